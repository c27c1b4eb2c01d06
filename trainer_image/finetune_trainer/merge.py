"""An adapter folded into its base: a whole model that is served without PEFT and without quantisation."""

import shutil
from pathlib import Path

import torch

from finetune_api.methods import Quantization
from finetune_trainer import bottleneck, lora
from finetune_trainer.base import load_base
from finetune_trainer.errors import InvalidConfig, StorageError
from finetune_trainer.full import write_model

LEFT_OUT = {lora.WEIGHTS, lora.CONFIG, "README.md"}
MERGED = "merged"
"""Folder of a run that holds the merged model, where one was wanted."""
CPU = torch.device("cpu")


def merge(source: Path, quantization: Quantization, adapter: Path, folder: Path) -> None:
    """Write the base from `source` with a published LoRA adapter in it into `folder`, with tokenizer, in bfloat16.

    A quantised base is dequantised first, for that is what the adapter was trained on: merging into the weights as they
    were before, or quantising again, changes the answers. Raises InvalidConfig, ModelNotLoadable, StorageError.
    """
    refuse_unmergeable(adapter)
    base = load_base(source, quantization, CPU, expanded=quantization != "none", dtype=torch.bfloat16)
    merged = lora.merge_lora(base, adapter)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in adapter.iterdir():
            if file.name not in LEFT_OUT:
                shutil.copy(file, folder)
        write_model(merged, folder)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}.") from error


def refuse_unmergeable(folder: Path) -> None:
    """Raises InvalidConfig for what is no LoRA adapter."""
    if (folder / "config.json").exists():
        raise InvalidConfig("This is a whole model already; there is nothing to merge.")
    if lora.is_prefix(folder):
        raise InvalidConfig("A prefix is keys and values before every row; it cannot be merged into weights.")
    if (folder / bottleneck.CONFIG).exists():
        raise InvalidConfig("Bottleneck adapters compute something after blocks of the base; they cannot be merged.")
