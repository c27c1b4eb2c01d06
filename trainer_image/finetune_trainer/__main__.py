"""`python -m finetune_trainer STAGE`: one stage in a pod."""

import os
import sys

from finetune_trainer.process import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # taking torch and CUDA down in order costs seconds of a GPU, and may end in another exit code
