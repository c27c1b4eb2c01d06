"""Fused norms, rotary embeddings and activations against those of transformers."""

import os
import subprocess
import sys
from pathlib import Path

from finetune_trainer.blocks import FAMILIES

SCRIPT = Path(__file__).parent / "interpreted_blocks.py"


def test_each_family_computes_what_it_computed_before() -> None:
    ended = subprocess.run(
        [sys.executable, SCRIPT], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.split() == list(FAMILIES)
