"""LoRA over frozen linear layers, with what reads the same input computed together.

PEFT owns the adapter: its weights, its names, its files. Only the forward passes of its linear layers are replaced, by
one autograd function for all layers that read the same tensor (query, key and value; gate and up): the input is kept
once, its mask never, and its gradient is summed in place. Layers of other kinds keep PEFT's own forward pass, which is
also the reference that tests compare with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn

from finetune_trainer import low_rank_products
from finetune_trainer.frozen import dense
from finetune_trainer.keyed_dropout import Draw, KeyedDropout, Mask, column_keys

Layer = Any
"""A LoraLayer, which is no Module to type checkers."""
ADAPTER = "default"
PROBE = [[0, 1, 2]]


def fuse(model: PeftModel, draw: Draw) -> None:
    """Replace the forward passes of a model's LoRA layers, and every dropout by one with keys."""
    base: Any = model.get_base_model()
    for number, layers in enumerate(_that_read_the_same(model)):
        rate = getattr(layers[0].lora_dropout[ADAPTER], "p", 0.0)
        columns = column_keys(layers[0].lora_A[ADAPTER].weight.shape[1], number).to(base.device)
        dropout = KeyedDropout(rate, columns, draw)
        siblings = Siblings([layer for layer in layers if is_linear(layer)], dropout, base.dtype)
        for layer in layers:
            layer.lora_dropout[ADAPTER] = dropout
        for layer in siblings.layers:
            layer.forward = partial(_forward, layer, siblings)


def is_linear(layer: Layer) -> bool:
    """Whether a layer is LoRA as its paper has it, or DoRA, on a linear layer."""
    linear = isinstance(layer.get_base_layer(), nn.Linear) and not getattr(layer, "fan_in_fan_out", False)
    known = not layer.lora_variant or isinstance(layer.lora_variant.get(ADAPTER), DoraLinearVariant)
    return linear and known and not layer.lora_bias[ADAPTER]


@dataclass
class Siblings:
    """Layers that read the same input. The first to be called computes the outputs of all."""

    layers: list[Layer]
    dropout: KeyedDropout
    dtype: torch.dtype
    """What they multiply in."""
    source: Tensor | None = None
    """The input of the outputs that wait."""
    waiting: dict[int, Tensor] = field(default_factory=dict)
    """Outputs not asked for yet, by the id of their layer."""

    def output(self, layer: Layer, x: Tensor) -> Tensor:
        """What `layer` makes of x."""
        if x is self.source and id(layer) in self.waiting:
            result = self.waiting.pop(id(layer))
        else:
            layers = self.layers if layer is self.layers[0] else [layer]
            result, *others = self._compute(x, layers)
            self.source = x
            self.waiting = {id(sibling): output for sibling, output in zip(layers[1:], others, strict=True)}
        if not self.waiting:
            self.source = None
        return result

    def _compute(self, x: Tensor, layers: Sequence[Layer]) -> tuple[Tensor, ...]:
        downs = [layer.lora_A[ADAPTER].weight for layer in layers]
        ups = [layer.lora_B[ADAPTER].weight for layer in layers]
        lengths = [layer.lora_magnitude_vector[ADAPTER].weight for layer in layers if _is_dora(layer)]
        outputs: tuple[Tensor, ...] = _LowRank.apply(
            x.to(self.dtype), layers, self.dropout.mask, *downs, *ups, *lengths
        )
        return outputs


def _forward(layer: Layer, siblings: Siblings, x: Tensor) -> Tensor:
    if layer.disable_adapters:
        output: Tensor = layer.get_base_layer()(x.to(siblings.dtype))
        return output
    return siblings.output(layer, x)


class _LowRank(torch.autograd.Function):
    """y_i = x W_i' + b_i + s dropout(x) A_i' B_i' (Hu et al. 2021, arXiv 2106.09685, section 4.1), for several i.

    With DoRA, y_i = g_i (x W_i' + s dropout(x) A_i' B_i') + b_i, where g_i brings the rows of W_i + s B_i A_i to the
    lengths m_i that are trained (Liu et al. 2024, arXiv 2402.09353, equation 5; as in section 4.3, the lengths they
    have count as constants).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layers: Sequence[Layer], mask: Mask | None, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(layers)
        rows, scale = x.reshape(-1, x.shape[-1]), layers[0].scaling[ADAPTER]
        down = torch.cat(weights[:count]).to(x.dtype)
        ups, lengths = [weight.to(x.dtype) for weight in weights[count : 2 * count]], weights[2 * count :]
        hidden = _products(x).project(rows, down, mask, scale)
        outputs, gains = [], []
        for number, (layer, part, up) in enumerate(zip(layers, _split(hidden, layers), ups, strict=True)):
            base = layer.get_base_layer()
            weight = dense(base, x.dtype)
            outputs.append(F.linear(rows, weight, None if lengths else base.bias))
            _products(x).add_product(outputs[-1], part, up.T)
            if lengths:
                gains.append(lengths[number] / row_lengths(weight, weights[number], weights[count + number], scale))
        ctx.layers, ctx.mask, ctx.shape = layers, mask, x.shape
        ctx.save_for_backward(rows, hidden, down, *ups, *lengths, *gains, *(outputs if lengths else ()))
        if lengths:  # what is kept must not be what is given away: fused blocks write over their inputs
            outputs = [_scaled(*each) for each in zip(outputs, gains, strict=True)]
            for output, layer in zip(outputs, layers, strict=True):
                if layer.get_base_layer().bias is not None:
                    output.add_(layer.get_base_layer().bias)
        return tuple(output.view(*x.shape[:-1], -1) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        rows, hidden, down, *saved = ctx.saved_tensors
        layers: Sequence[Layer] = ctx.layers
        ups, lengths, gains, outputs = (saved[n * len(layers) : (n + 1) * len(layers)] for n in range(4))
        products, scale = _products(rows), layers[0].scaling[ADAPTER]
        flat = [slope.reshape(-1, slope.shape[-1]) for slope in slopes]
        of_lengths = []
        for number in range(len(lengths)):
            multiplied = (flat[number] * outputs[number]).sum(0, dtype=torch.float32)
            of_lengths.append(multiplied * gains[number] / lengths[number])
            flat[number] = _scaled(flat[number], gains[number])
        of_ups = [_in_float32(slope.T, part) for slope, part in zip(flat, _split(hidden, layers), strict=True)]
        of_hidden = torch.cat([slope @ up for slope, up in zip(flat, ups, strict=True)], 1)
        of_down = products.weight_slope(rows, of_hidden, ctx.mask, scale)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _through_base(flat, layers)
            products.add_product(of_x, of_hidden, down, ctx.mask, scale)
            of_x = of_x.view(ctx.shape)
        return (of_x, None, None, *_split(of_down, layers, dim=0), *of_ups, *of_lengths)


def row_lengths(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """Lengths of the rows of W + s B A, float32 [outputs], without making that matrix.

    |w + s b A|^2 = |w|^2 + 2 s (w A') b' + s^2 b (A A') b'.
    """
    crossed = (weight @ down.to(weight.dtype).T).float()
    squares = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32).square()
    added = 2 * scale * crossed + scale**2 * (up @ (down @ down.T))
    return torch.sqrt(squares + (added * up).sum(1))


def _scaled(values: Tensor, gains: Tensor) -> Tensor:
    """Values times float32 gains, computed in float32 but never kept in it."""
    return torch.mul(values, gains, out=torch.empty_like(values))


def _is_dora(layer: Layer) -> bool:
    return bool(layer.lora_variant)


def _through_base(slopes: Sequence[Tensor], layers: Sequence[Layer]) -> Tensor:
    """The part of the input's gradient that comes by way of the frozen weights."""
    weights = (dense(layer.get_base_layer(), slopes[0].dtype) for layer in layers)
    total = slopes[0] @ next(weights)
    for slope, weight in zip(slopes[1:], weights, strict=True):
        total.addmm_(slope, weight)
    return total


def _split(joint: Tensor, layers: Sequence[Layer], dim: int = 1) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = joint.split([layer.r[ADAPTER] for layer in layers], dim)
    return parts


def _in_float32(left: Tensor, right: Tensor) -> Tensor:
    """left right, added up and kept in float32."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).float()


def _products(x: Tensor) -> ModuleType:
    if not x.is_cuda:
        return low_rank_products
    from finetune_trainer import low_rank_kernels  # Triton is there only where torch was built for GPUs

    return low_rank_kernels


def _that_read_the_same(model: PeftModel) -> list[list[Layer]]:
    """The LoRA layers in the order they are called; those with the same parent and input are together."""
    named: dict[str, Layer] = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    groups: list[list[Layer]] = []
    previous: tuple[str, Tensor] | None = None

    def note(name: str, layer: Layer, inputs: tuple[Tensor, ...]) -> None:
        nonlocal previous
        parent, x = name.rpartition(".")[0], inputs[0]
        together = previous is not None and previous[0] == parent and previous[1] is x
        groups.append([*groups.pop(), layer] if together else [layer])
        previous = parent, x

    handles = [
        layer.register_forward_pre_hook(partial(lambda name, layer, inputs: note(name, layer, inputs), name))
        for name, layer in named.items()
    ]
    with torch.no_grad():
        model.get_base_model()(torch.tensor(PROBE, device=model.device), use_cache=False)
    for handle in handles:
        handle.remove()
    called = {id(layer) for group in groups for layer in group}
    return groups + [[layer] for layer in named.values() if id(layer) not in called]
