"""The three products of a low-rank adapter with its dropped-out input, in plain torch; `low_rank_kernels` has them for
GPUs.

Shapes: x [tokens, columns], down [ranks, columns], hidden and its slope (gradient) [tokens, ranks].
"""

import torch
from torch import Tensor

from finetune_trainer.keyed_dropout import Mask


def project(x: Tensor, down: Tensor, mask: Mask | None, scale: float) -> Tensor:
    """scale dropout(x) down', in the dtype of x."""
    return _dropped(x, mask) @ down.T * _joint(mask, scale)


def weight_slope(x: Tensor, slope: Tensor, mask: Mask | None, scale: float) -> Tensor:
    """scale slope' dropout(x), float32 [ranks, columns]."""
    return (slope.T @ _dropped(x, mask)).float() * _joint(mask, scale)


def add_product(total: Tensor, left: Tensor, right: Tensor, mask: Mask | None = None, scale: float = 1.0) -> None:
    """Add scale left right to `total` [tokens, columns], where nothing is dropped; right is [ranks, columns]."""
    if mask is None:
        total.addmm_(left, right, alpha=scale)
    else:
        total.add_(torch.where(mask.kept(), left @ right * _joint(mask, scale), 0))


def _dropped(x: Tensor, mask: Mask | None) -> Tensor:
    return x if mask is None else torch.where(mask.kept(), x, 0)


def _joint(mask: Mask | None, scale: float) -> float:
    return scale * mask.scale if mask else scale
