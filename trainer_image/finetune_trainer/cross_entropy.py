"""Losses of taught tokens from the hidden states that predict them, without all their logits at once."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**25


def cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each target, float32 [targets].

    Shapes: hidden [targets, width], head [vocabulary, width], targets int64 [targets]. Gradients of a frozen head's
    input are made along with the losses, so that logits exist once and a part at a time.
    """
    if not head.requires_grad:
        losses: Tensor = _FrozenHead.apply(hidden.to(head.dtype), head, targets)
        return losses
    parts = zip(hidden.split(_rows(head)), targets.split(_rows(head)), strict=True)
    return torch.cat([checkpoint(_losses, rows, head, wanted, use_reentrant=False) for rows, wanted in parts])


def _losses(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, head).float(), targets, reduction="none")


def _rows(head: Tensor) -> int:
    """Rows whose logits are made at once."""
    return max(64, LOGITS_AT_ONCE // len(head))


class _FrozenHead(torch.autograd.Function):
    """loss = log sum exp(z) - z_target with z = head hidden; its gradient by hidden is head' (softmax(z) - onehot)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        losses = hidden.new_empty(len(targets), dtype=torch.float32)
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(targets), _rows(head)):
            part = slice(start, start + _rows(head))
            logits, wanted = (hidden[part] @ head.T).float(), targets[part, None]
            total = logits.logsumexp(1, keepdim=True)
            losses[part] = (total - logits.gather(1, wanted))[:, 0]
            if slopes is not None:
                share = logits.sub_(total).exp_()
                share.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=share.dtype))
                slopes[part] = share.to(head.dtype) @ head
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return losses

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * slope[:, None].to(slopes.dtype), None, None
