"""The base model and its adapter: loading, quantising, attaching, saving."""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from finetune_api.training import LoraSpec, MethodSpec, Quantization
from finetune_trainer.architecture import check_loadable
from finetune_trainer.errors import InvalidConfig, ModelNotLoadable


def pick_device() -> torch.device:
    """CUDA where there is a card, else CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on a card or in main memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def autocast(model: nn.Module) -> AbstractContextManager[Any]:
    """Compute in the base model's dtype while the adapter stays float32 (facts: bf16 adapters freeze at low rates)."""
    weight = next(p for p in model.parameters() if p.is_floating_point() and not p.requires_grad)
    if weight.dtype == torch.bfloat16:
        return torch.autocast(weight.device.type, torch.bfloat16)
    return nullcontext()


def load_base(folder: Path, quantization: Quantization, device: torch.device) -> PreTrainedModel:
    """Load, quantise and freeze the base model. Raises ModelNotLoadable."""
    check_loadable(folder)
    dtype = compute_dtype(device)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device},
            quantization_config=_quantization_config(quantization, dtype),
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
        )
    except Exception as error:  # loaders raise ValueError, OSError, RuntimeError, SafetensorError, KeyError ...
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        raise ModelNotLoadable(f"The model in {folder} cannot be loaded: {reason}") from error
    model.requires_grad_(False)
    _keep_trainable_layout(model)
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


def _keep_trainable_layout(model: nn.Module) -> None:
    """Stop bitsandbytes repacking 4-bit weights on CPU for inference: the backward pass then reads the wrong layout.

    Seen with bitsandbytes 0.50.2 on CPUs with AVX512-BF16: an evaluation before training silently ruins training.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def attach_lora(model: PreTrainedModel, lora: LoraSpec, seed: int) -> PeftModel:
    """Add float32 LoRA matrices; B is zero, so the adapted model starts out equal to the base. Raises InvalidConfig."""
    targets: str | list[str] = "all-linear" if lora.target_modules == ["all-linear"] else list(lora.target_modules)
    _refuse_output_head(model, targets)
    _refuse_unknown_layers(model, targets)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    assert isinstance(adapted, PeftModel)
    return adapted


def _refuse_output_head(model: PreTrainedModel, targets: str | list[str]) -> None:
    """An adapter on the output head is lost by servers that tie or fuse it."""
    heads = [name for name, module in model.named_modules() if module is model.get_output_embeddings()]
    if isinstance(targets, list) and (named := [t for t in targets if any(h.endswith(t) for h in heads)]):
        raise InvalidConfig(f"method.lora.targetModules: {named[0]} is the output head, which cannot carry an adapter.")


def _refuse_unknown_layers(model: PreTrainedModel, targets: str | list[str]) -> None:
    """PEFT itself is content when one of several names fits."""
    head = model.get_output_embeddings()
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    named = targets if isinstance(targets, list) else []
    wrong = [target for target in named if not any(f".{name}".endswith(f".{target}") for name in linear)]
    if wrong:
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise InvalidConfig(
            f"method.lora.targetModules: no layer of this model is called {', '.join(wrong)}. "
            f"Its linear layers are {', '.join(known)}; all-linear takes them all."
        )


def adapt(model: PreTrainedModel, method: MethodSpec, seed: int) -> PeftModel:
    """Attach what the method trains."""
    return attach_lora(model, method.lora, seed)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name, in a fixed order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the trained parameters on the CPU."""
    return {name: parameter.detach().cpu().clone() for name, parameter in trainable(model).items()}


def restore(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put a snapshot back, in place, so that optimisers keep their references."""
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(tensors[name])


@contextmanager
def inference(model: PeftModel, adapter: bool) -> Iterator[None]:
    """No gradients, no dropout; with the adapter or as the bare base. The training mode is given back."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), nullcontext() if adapter else model.disable_adapter():
            yield
    finally:
        model.train(was_training)


def save_adapter(model: PeftModel, folder: Path, base: str) -> None:
    """Write the adapter in PEFT layout, naming `base` as its base model.

    Embeddings are never trained; saying so keeps PEFT from asking a hub whether the vocabulary has changed.
    """
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty template; ours takes its place


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """A published adapter on a loaded base. Raises ModelNotLoadable."""
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])  # one more line for every layer
        raise ModelNotLoadable(f"The adapter in {folder} does not fit the base model: {reason}") from error
    return adapted


def merge(model: PeftModel) -> PreTrainedModel:
    """The base in its compute dtype with the adapter folded in, dequantising what was quantised.

    Merging into the dequantised weights keeps what training saw; merging and quantising again, or merging into the
    weights as they were before quantisation, does not.
    """
    config, weights = model.peft_config["default"], get_peft_model_state_dict(model, save_embedding_layers=False)
    base: Any = model.unload()
    if getattr(base, "is_quantized", False):
        base.dequantize()
    adapted = get_peft_model(base, config)
    set_peft_model_state_dict(adapted, weights)
    merged = adapted.merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    return merged


def parameter_count(model: nn.Module) -> int:
    """Parameters of the base as published, whatever they are stored as here."""
    packed = {id(m.weight): 2 for m in model.modules() if isinstance(m, Linear4bit)}
    return sum(p.numel() * packed.get(id(p), 1) for p in model.parameters() if not p.requires_grad)


def weights_digest(folder: Path) -> tuple[str, int]:
    """sha256 over the digests of the weight files, and their size in bytes."""
    total = hashlib.sha256()
    size = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
        size += file.stat().st_size
    return f"sha256:{total.hexdigest()}", size
