"""Bottleneck adapters: two small layers and a residual after a block of the base; PEFT has none.

y' = y + U act(D dropout(y)), with U zero at the start (Houlsby et al. 2019, arXiv 1902.00751, section 2.1).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from finetune_api.methods import BottleneckSpec
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.keyed_dropout import Draw, KeyedDropout, column_keys
from finetune_trainer.lora import misfit
from finetune_trainer.tuned import Tuned

WEIGHTS, CONFIG = "bottleneck.safetensors", "bottleneck_config.json"
FEED_FORWARD, ATTENTION = ("mlp", "feed_forward", "ffn"), ("self_attn", "attention", "attn")
"""What models call these blocks of a layer."""


class Bottleneck(nn.Module):
    """One adapter, float32."""

    def __init__(self, size: int, width: int, dropout: KeyedDropout) -> None:
        super().__init__()
        self.dropout = dropout
        self.down, self.up = nn.Linear(size, width), nn.Linear(width, size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, y: Tensor) -> Tensor:
        """y with what the adapter adds; [..., size]."""
        added: Tensor = self.up(nn.functional.gelu(self.down(self.dropout(y))))
        return y + added.to(y.dtype)


def attach_bottleneck(base: PreTrainedModel, spec: BottleneckSpec, seed: int) -> Tuned:
    """Put adapters after the blocks of a base; it starts out unchanged. Raises InvalidConfig."""
    torch.manual_seed(seed)
    draw, switch = Draw(), _Switch()
    adapters = nn.ModuleDict()
    for number, (name, block) in enumerate(_blocks(base, spec)):
        columns = column_keys(base.config.hidden_size, number).to(base.device)
        adapter = Bottleneck(base.config.hidden_size, spec.width, KeyedDropout(spec.dropout, columns, draw))
        adapters[name.replace(".", "/")] = adapter.to(base.device)
        block.register_forward_hook(_behind(adapter, switch))
    return Tuned(
        base=base,
        parameters=dict(adapters.named_parameters()),
        bare=switch.off,
        save=lambda folder, name: _save(adapters, spec, folder, name),
        weights=WEIGHTS,
        draw=draw,
    )


def load_bottleneck(base: PreTrainedModel, folder: Path) -> Tuned:
    """A published adapter on a loaded base. Raises ModelNotLoadable."""
    try:
        spec = BottleneckSpec.model_validate(json.loads((folder / CONFIG).read_text())["bottleneck"])
        tuned = attach_bottleneck(base, spec, seed=0)
        tuned.restore(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, InvalidConfig) as error:
        raise misfit(folder, error) from error
    return tuned


class _Switch:
    """Whether the adapters of a model take part."""

    def __init__(self) -> None:
        self.on = True

    @contextmanager
    def off(self) -> Iterator[None]:
        """The bare base."""
        self.on = False
        try:
            yield
        finally:
            self.on = True


def _behind(adapter: Bottleneck, switch: _Switch) -> Any:
    """A forward hook that changes the first output of a block."""

    def change(_block: nn.Module, _inputs: object, output: Any) -> Any:
        if not switch.on:
            return output
        return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)

    return change


def _blocks(base: PreTrainedModel, spec: BottleneckSpec) -> list[tuple[str, nn.Module]]:
    """The blocks that get an adapter, by their names in the model."""
    wanted = FEED_FORWARD + (ATTENTION if spec.placement == "houlsby" else ())
    layers = [name for name, module in base.named_modules() if isinstance(module, GradientCheckpointingLayer)]
    found = [
        (f"{layer}.{name}", block)
        for layer in layers
        for name, block in base.get_submodule(layer).named_children()
        if name in wanted
    ]
    if not found:
        raise InvalidConfig(f"method.type bottleneck: {type(base).__name__} has no blocks called {', '.join(wanted)}.")
    return found


def _save(adapters: nn.ModuleDict, spec: BottleneckSpec, folder: Path, base: str) -> None:
    weights = {name: parameter.detach().cpu().contiguous() for name, parameter in adapters.named_parameters()}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    written = {"base_model_name_or_path": base, "bottleneck": spec.model_dump(mode="json", by_alias=True)}
    (folder / CONFIG).write_text(json.dumps(written, indent=2))
