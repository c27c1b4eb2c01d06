"""Cross-entropy of the taught tokens of packed rows."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor

from finetune_trainer.attention import packed_attention
from finetune_trainer.batches import Packed
from finetune_trainer.model import autocast


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


def _row(values: Sequence[int], device: torch.device) -> Tensor:
    """A tensor of shape [1, len(values)]."""
    return torch.tensor([values], dtype=torch.int64, device=device)
