"""Cross-entropy of the taught tokens of packed rows."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn

from finetune_trainer.attention import packed_attention
from finetune_trainer.batches import Packed, pack
from finetune_trainer.model import autocast
from finetune_trainer.rows import Row
from finetune_trainer.tokens import Example


def token_losses(model: PeftModel, packed: Packed) -> Tensor:
    """Negative log-likelihood in nats of each taught token, float32 [targets].

    Only the positions that predict a taught token go through the output head: no logits are made for prompts.
    """
    device = next(model.parameters()).device
    boundaries = torch.tensor(packed.boundaries, dtype=torch.int32)
    with autocast(model), packed_attention(model):
        logits = model(
            input_ids=_row(packed.ids, device),
            position_ids=_row(packed.positions, device),
            logits_to_keep=_row(packed.predictors, device)[0],
            boundaries=boundaries.to(device),
            longest=int(boundaries.diff().max()),
            use_cache=False,
        ).logits[0]
    return F.cross_entropy(logits.float(), _row(packed.targets, device)[0], reduction="none")


def sees_neighbours(model: PeftModel) -> bool:
    """Whether a row depends on the row packed before it, which must never be.

    Attention keeps rows apart, but models that also mix tokens by convolutions or state spaces do not know about
    packing. So it is measured: the gradient of one row's losses by its neighbour's embeddings is zero, or they leak.
    """
    neighbour, probe = _probe_row(range(11, 31)), _probe_row(range(3, 11))
    embedded: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[0]

    handle = model.get_input_embeddings().register_forward_hook(keep)
    try:
        with model.disable_adapter():
            losses = token_losses(model, pack([neighbour, probe]))
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(losses[-probe.taught :].sum(), embedded)
    return bool(gradient[:, : len(neighbour.ids)].any())


def _probe_row(ids: Sequence[int]) -> Example:
    return Example(Row(0, "probe"), tuple(ids), (False, *[True] * (len(ids) - 1)), 0)


def _row(values: Sequence[int], device: torch.device) -> Tensor:
    """A tensor of shape [1, len(values)]."""
    return torch.tensor([values], dtype=torch.int64, device=device)
