"""Frozen linear layers: however they are stored, what is multiplied with is the weight itself, dequantised if need be.

bitsandbytes' own forward passes are not used: of 4-bit weights on CPUs they repack in place for inference what the
backward pass then reads wrongly (0.50.2, CPUs with AVX512-BF16), and of 8-bit weights they wait for the card, which a
recorded pass cannot, and quantise activations, too.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from bitsandbytes import functional as bits
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn


def multiply_dense(model: nn.Module, dtype: torch.dtype) -> None:
    """Have every quantised layer of a model multiply with its dequantised weight, in `dtype`."""
    for module in model.modules():
        if isinstance(module, Linear4bit | Linear8bitLt):
            module.forward = partial(_forward, module, dtype)  # type: ignore[method-assign]


def dense(layer: Any, dtype: torch.dtype) -> Tensor:
    """The weight of a linear layer as it is multiplied with, [outputs, inputs]."""
    weight: Any = layer.weight
    if isinstance(layer, Linear4bit):
        packed = weight.data.view(torch.uint8).view(-1, 1)
        weight = bits.dequantize_4bit(packed, layer.quant_state or weight.quant_state)
    elif isinstance(layer, Linear8bitLt):
        scales = layer.state.SCB if layer.state.SCB is not None else weight.SCB
        values = weight.data.view(torch.int8).view(layer.out_features, layer.in_features)
        weight = bits.int8_vectorwise_dequant(values, scales)
    multiplied: Tensor = weight.to(dtype)
    return multiplied


def plain_weight(layer: Any) -> nn.Parameter:
    """The weight of a layer as a parameter of no special kind, its scales kept with the layer.

    Quantised ones become half as many numbers of 16 bits, for only parameters of floats can be divided over processes
    by every torch we run with; nobody computes with these.
    """
    stored: Any = layer.weight
    if isinstance(layer, Linear4bit):
        layer.quant_state = stored.quant_state
    elif isinstance(layer, Linear8bitLt):
        layer.state.SCB = stored.SCB if layer.state.SCB is None else layer.state.SCB
    if isinstance(layer, Linear4bit | Linear8bitLt):
        layer.weight = nn.Parameter(stored.data.reshape(-1, 2).view(torch.bfloat16), requires_grad=False)
    weight: nn.Parameter = layer.weight
    return weight


def _forward(layer: Any, dtype: torch.dtype, x: Tensor) -> Tensor:
    output: Tensor = _Frozen.apply(x.to(dtype), layer)
    return output


class _Frozen(torch.autograd.Function):
    """y = x W' + b, without keeping the dequantised weight for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
        ctx.layer = layer
        return F.linear(x, dense(layer, x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope @ dense(ctx.layer, slope.dtype), None
