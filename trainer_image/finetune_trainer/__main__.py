"""`python -m finetune_trainer STAGE`: one stage in a pod."""

import sys

from finetune_trainer.process import main

if __name__ == "__main__":
    sys.exit(main())
