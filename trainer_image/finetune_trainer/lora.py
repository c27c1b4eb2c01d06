"""LoRA: attaching, saving, loading, merging."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from finetune_api.methods import CHANGING_INITS, LoraInit, LoraSpec
from finetune_trainer.errors import InvalidConfig, ModelNotLoadable
from finetune_trainer.keyed_dropout import Draw
from finetune_trainer.low_rank import fuse
from finetune_trainer.tuned import Tuned, trainable

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MISFITS = (OSError, ValueError, RuntimeError, SafetensorError)
"""What PEFT raises for a damaged adapter, or one of another model."""
INITS: dict[LoraInit, Any] = {"default": True, "pissa": "pissa_niter_16"}
"""What PEFT calls an initialisation, where it has another name for it."""


def attach_lora(base: PreTrainedModel, lora: LoraSpec, seed: int) -> Tuned:
    """Add float32 LoRA matrices; the adapted model starts out equal to the base. Raises InvalidConfig."""
    targets = _targets(base, lora.target_modules)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        init_lora_weights=INITS.get(lora.init, lora.init),
        task_type="CAUSAL_LM",
    )
    return _tuned(get_peft_model(base, config, autocast_adapter_dtype=True))


def load_lora(base: PreTrainedModel, folder: Path) -> Tuned:
    """A published adapter on a loaded base. Raises ModelNotLoadable."""
    try:
        return _tuned(PeftModel.from_pretrained(base, str(folder)))
    except MISFITS as error:
        raise misfit(folder, error) from error


def is_prefix(folder: Path) -> bool:
    """Whether an adapter in PEFT layout is a prefix. False if it is damaged, too."""
    try:
        return bool(json.loads((folder / CONFIG).read_text())["peft_type"] == "PREFIX_TUNING")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def misfit(folder: Path, error: Exception) -> ModelNotLoadable:
    """What is said of an adapter that cannot be put on a base."""
    reason = " ".join(line.strip() for line in str(error).splitlines()[:2])  # one more line for every layer
    return ModelNotLoadable(f"The adapter in {folder} does not fit the base model: {reason}")


def _tuned(model: Any) -> Tuned:
    draw = Draw()
    fuse(model, draw)
    parameters = trainable(model)
    init = str(model.peft_config["default"].init_lora_weights)
    start = _Start(parameters) if init.startswith(CHANGING_INITS) else None
    return Tuned(
        base=model.get_base_model(),
        parameters=parameters,
        bare=start.bare if start else model.disable_adapter,
        save=lambda folder, base: _save(model, folder, base, start),
        weights=WEIGHTS,
        draw=draw,
    )


class _Start:
    """The first values of an adapter that was taken out of the base: only with them the base is what it was."""

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self.parameters = parameters
        self.values = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @contextmanager
    def bare(self) -> Iterator[None]:
        """The base as it was."""
        trained = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._put(self.values)
        try:
            yield
        finally:
            self._put(trained)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])


def _save(model: PeftModel, folder: Path, base: str, start: _Start | None) -> None:
    """Write the adapter in PEFT layout, naming `base` as its base model.

    Embeddings are never trained; saying so keeps PEFT from asking a hub whether the vocabulary has changed.
    """
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty template; ours takes its place
    if start is not None:
        _write_difference(model, folder, start)


def _write_difference(model: PeftModel, folder: Path, start: _Start) -> None:
    """The change since the start as an adapter of twice the rank, for the base as it is published.

    W - s B0 A0 + s B A = W + s [B, -B0] [A; A0] (Meng et al. 2024, PiSSA, arXiv 2404.02948, appendix C).
    """
    trained = _tensors(model)
    with start.bare():
        first = _tensors(model)
    joined = {
        name: torch.cat([value, first[name]]) if "lora_A" in name else torch.cat([value, -first[name]], 1)
        for name, value in trained.items()
    }
    save_file({name: value.contiguous() for name, value in joined.items()}, folder / WEIGHTS, {"format": "pt"})
    written = json.loads((folder / CONFIG).read_text())
    written |= {"r": 2 * written["r"], "init_lora_weights": True}
    written["lora_alpha"] *= 2**0.5 if written["use_rslora"] else 2
    (folder / CONFIG).write_text(json.dumps(written, indent=2))


def _tensors(model: PeftModel) -> dict[str, Tensor]:
    """A copy of the adapter, by the names that PEFT stores it under."""
    stored = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: value.detach().cpu().clone() for name, value in stored.items()}


def _targets(model: PreTrainedModel, wanted: Sequence[str]) -> list[str]:
    """The names of the linear layers to adapt. Raises InvalidConfig.

    PEFT itself is content when one of several names fits, and would take experts for linear layers, which no dropout
    and no quantisation reaches. An adapter on the output head is lost by servers that tie or fuse it.
    """
    head = model.get_output_embeddings()
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    known = sorted({name.rpartition(".")[2] for name in linear})
    if list(wanted) == ["all-linear"]:
        return known
    heads = [name for name, module in model.named_modules() if module is head]
    if named := [target for target in wanted if any(name.endswith(target) for name in heads)]:
        raise InvalidConfig(f"method.lora.targetModules: {named[0]} is the output head, which cannot carry an adapter.")
    if wrong := [target for target in wanted if not any(f".{name}".endswith(f".{target}") for name in linear)]:
        raise InvalidConfig(
            f"method.lora.targetModules: no layer of this model is called {', '.join(wrong)}. "
            f"Its linear layers are {', '.join(known)}; all-linear takes them all."
        )
    return list(wanted)


def merge_lora(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The base in its compute dtype with a published adapter folded in, dequantising what was quantised.

    Merging into the dequantised weights keeps what training saw; merging and quantising again, or merging into the
    weights as they were before quantisation, does not. Raises ModelNotLoadable.
    """
    if getattr(base, "is_quantized", False):
        base = base.dequantize()
    try:
        merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    except MISFITS as error:
        raise misfit(folder, error) from error
    assert isinstance(merged, PreTrainedModel)
    return merged
