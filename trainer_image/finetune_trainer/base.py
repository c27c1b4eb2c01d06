"""The base model: loading, quantising, counting."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bitsandbytes import functional as bits
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from finetune_api.methods import Quantization
from finetune_trainer.architecture import check_loadable
from finetune_trainer.errors import ModelNotLoadable
from finetune_trainer.frozen import multiply_dense
from finetune_trainer.place import Place
from finetune_trainer.tuned import Tuned, compute_dtype

NF4: dict[str, Any] = {"quant_type": "nf4", "compress_statistics": True}


def pick_device() -> torch.device:
    """A GPU where there is one, else the CPU; each process of a machine has a GPU of its own."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(Place.of().local_rank)
    return torch.device("cuda", torch.cuda.current_device())


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on a card or in main memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def load_base(
    folder: Path,
    quantization: Quantization,
    device: torch.device,
    *,
    expanded: bool = False,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Load, quantise and freeze the base model. Raises ModelNotLoadable.

    With `expanded`, weights are quantised and at once dequantised: the same values, in more memory, multiplied sooner.
    `dtype` is that of weights that are not quantised; by default what the device multiplies fastest.
    """
    check_loadable(folder)
    dtype = dtype or compute_dtype(device)
    stored: Quantization = "none" if expanded else quantization
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device},
            quantization_config=_quantization_config(stored, dtype),
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
        )
    except Exception as error:  # loaders raise ValueError, OSError, RuntimeError, SafetensorError, KeyError ...
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        raise ModelNotLoadable(f"The model in {folder} cannot be loaded: {reason}") from error
    model.eval().requires_grad_(False)
    multiply_dense(model, dtype)
    if expanded:
        _round_weights(model, quantization)
    return model


def _quantization_config(quantization: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if quantization == "nf4":  # QLoRA (Dettmers et al. 2023, arXiv 2305.14314, section 3)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    if quantization == "int8":  # LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339)
        return BitsAndBytesConfig(load_in_8bit=True)
    return None


def linear_layers(model: PreTrainedModel) -> Iterator[nn.Linear]:
    """The linear layers but the output head: what is quantised and adapted."""
    head = model.get_output_embeddings()
    return (module for module in model.modules() if isinstance(module, nn.Linear) and module is not head)


@torch.no_grad()
def _round_weights(model: PreTrainedModel, quantization: Quantization) -> None:
    """Give every weight the value that its quantised form stands for."""
    for layer in linear_layers(model):
        if quantization == "nf4":
            layer.weight.copy_(bits.dequantize_4bit(*bits.quantize_4bit(layer.weight, **NF4)))
        elif quantization == "int8":
            values, scales, _ = bits.int8_vectorwise_quant(layer.weight.to(torch.float16))
            layer.weight.copy_(bits.int8_vectorwise_dequant(values, scales))


def parameter_count(tuned: Tuned) -> int:
    """Parameters of the base as published, whatever they are stored as here."""
    added = {id(parameter) for parameter in tuned.parameters.values()} if not tuned.trains_head else set()
    stored = {id(layer.weight): layer.in_features * layer.out_features for layer in linear_layers(tuned.base)}
    return sum(stored.get(id(p), p.numel()) for p in tuned.base.parameters() if id(p) not in added)


def weights_digest(folder: Path) -> tuple[str, int]:
    """sha256 over the digests of the weight files, and their size in bytes."""
    total = hashlib.sha256()
    size = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
        size += file.stat().st_size
    return f"sha256:{total.hexdigest()}", size
