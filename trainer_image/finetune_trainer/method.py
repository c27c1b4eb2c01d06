"""The methods, by the names that manifests give them."""

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from finetune_api.methods import BottleneckSpec, LoraSpec, MethodSpec, PrefixSpec, Quantization
from finetune_trainer import bottleneck, lora, prefix
from finetune_trainer.base import load_base
from finetune_trainer.full import attach_full
from finetune_trainer.tuned import Tuned


def attach(base: PreTrainedModel, method: MethodSpec, seed: int, source: Path, opening: Iterable[int]) -> Tuned:
    """Build what the method trains into a base loaded from `source`; `opening` is text like that of the rows.

    Raises InvalidConfig if the method does not fit the model.
    """
    match method.part:
        case LoraSpec() as part:
            return lora.attach_lora(base, part, seed)
        case PrefixSpec() as part:
            return prefix.attach_prefix(base, part, seed, opening)
        case BottleneckSpec() as part:
            return bottleneck.attach_bottleneck(base, part, seed)
        case None:
            return attach_full(base, source)


def trained_dtype(method: MethodSpec) -> torch.dtype | None:
    """What a base is loaded as, for a method that trains its weights themselves: in bfloat16 small steps are lost."""
    return torch.float32 if method.type == "full" else None


def load(source: Path, quantization: Quantization, folder: Path, device: torch.device) -> Tuned:
    """What was trained, from a published folder, on its base from `source`. Raises ModelNotLoadable."""
    if (folder / "config.json").exists():
        return attach_full(load_base(folder, "none", device), source)
    base = load_base(source, quantization, device)
    if (folder / bottleneck.CONFIG).exists():
        return bottleneck.load_bottleneck(base, folder)
    return prefix.load_prefix(base, folder) if lora.is_prefix(folder) else lora.load_lora(base, folder)
