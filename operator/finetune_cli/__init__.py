"""The `finetune` command: the same run on a laptop, and a look at what runs left in the store."""
