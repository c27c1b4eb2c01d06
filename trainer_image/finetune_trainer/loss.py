"""Forward passes over packed rows, and the losses of their taught tokens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune_trainer.batches import Packed, pack
from finetune_trainer.cross_entropy import cross_entropy
from finetune_trainer.keyed_dropout import row_key, token_keys
from finetune_trainer.rows import Row
from finetune_trainer.tokens import Example
from finetune_trainer.tuned import Tuned

PROBE_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Batch:
    """A pack on the device."""

    ids: Tensor
    """int64 [1, tokens]."""
    positions: Tensor
    """int64 [1, tokens]."""
    boundaries: Tensor
    """int32 [rows + 1]."""
    longest: int
    """Tokens of the longest row, or more."""
    predictors: Tensor
    """int64 [targets]."""
    targets: Tensor
    """int64 [targets]."""
    keys: Tensor | None
    """int32 [tokens], to drop out by."""


def make_batch(packed: Packed, device: torch.device, draw: tuple[int, int] | None = None) -> Batch:
    """The tensors of a pack. With `draw`, seed and step, entries are dropped out."""
    keys = None
    if draw is not None:
        keys = token_keys([row_key(*draw, number) for number in packed.numbers], packed.lengths)
    return Batch(
        ids=_to(device, packed.ids)[None],
        positions=_to(device, packed.positions)[None],
        boundaries=_to(device, packed.boundaries, torch.int32),
        longest=max(packed.lengths),
        predictors=_to(device, packed.predictors),
        targets=_to(device, packed.targets),
        keys=None if keys is None else _send(keys, device),
    )


def token_losses(tuned: Tuned, batch: Batch) -> Tensor:
    """Negative log-likelihood in nats of each taught token, float32 [targets].

    Only the positions that predict a taught token go through the output head: no logits are made for prompts.
    """
    if has_plain_head(tuned):
        hidden = hidden_states(tuned, batch)[batch.predictors]
        with tuned.autocast():
            return cross_entropy(hidden, tuned.base.get_output_embeddings().weight, batch.targets)
    with tuned.autocast():
        logits = tuned.base(**_arguments(tuned, batch), logits_to_keep=batch.predictors).logits[0]
    return F.cross_entropy(logits.float(), batch.targets, reduction="none")


def hidden_states(tuned: Tuned, batch: Batch) -> Tensor:
    """What the model hands to its output head, [tokens, width]."""
    with tuned.autocast():
        states: Tensor = tuned.base.base_model(**_arguments(tuned, batch)).last_hidden_state.squeeze(0)
    return states


def _arguments(tuned: Tuned, batch: Batch) -> dict[str, Any]:
    tuned.draw.tokens = batch.keys
    prefix = tuned.prefix() if tuned.prefix else []
    before = prefix[0][0].shape[1] if prefix else 0
    return {
        "input_ids": batch.ids,
        "position_ids": batch.positions + before,
        "boundaries": batch.boundaries,
        "longest": batch.longest,
        "prefix": prefix,
        "use_cache": False,
    }


def has_plain_head(tuned: Tuned) -> bool:
    """Whether logits are the hidden states times the head's weight, without bias, scale or cap. Measured once."""
    if tuned.plain_head is None:
        batch = make_batch(pack([probe_row(range(3, 11))]), tuned.device)
        head = tuned.base.get_output_embeddings()
        with tuned.inference(adapted=True), tuned.autocast():
            logits = tuned.base(**_arguments(tuned, batch)).logits[0].float()
            states = tuned.base.base_model(**_arguments(tuned, batch)).last_hidden_state[0]
            plain = F.linear(states, head.weight).float()
        tuned.plain_head = bool((logits - plain).abs().max() <= PROBE_TOLERANCE * logits.abs().max())
    return tuned.plain_head


def sees_neighbours(tuned: Tuned) -> bool:
    """Whether a row depends on the row packed before it, which must never be. Measured once.

    Attention keeps rows apart, but models that also mix tokens by convolutions or state spaces do not know about
    packing. The gradient of one row's losses by its neighbour's embeddings is zero, or they leak.
    """
    if tuned.mixes_rows is None:
        neighbour, probe = probe_row(range(11, 31)), probe_row(range(3, 11))
        has_plain_head(tuned)
        with _leaf_embeddings(tuned) as embedded:
            losses = token_losses(tuned, make_batch(pack([neighbour, probe]), tuned.device))
            (gradient,) = torch.autograd.grad(losses[-probe.taught :].sum(), embedded)
        tuned.mixes_rows = bool(gradient[:, : len(neighbour.ids)].any())
    return tuned.mixes_rows


@contextmanager
def _leaf_embeddings(tuned: Tuned) -> Iterator[list[Tensor]]:
    """What the next pass embeds, to take gradients by."""
    embedded: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[0]

    handle = tuned.base.get_input_embeddings().register_forward_hook(keep)
    try:
        yield embedded
    finally:
        handle.remove()


def probe_row(ids: Sequence[int]) -> Example:
    """A row of these tokens, all but the first of them taught."""
    return Example(Row(0, "probe"), tuple(ids), (False, *[True] * (len(ids) - 1)), 0)


def _to(device: torch.device, values: Sequence[int], dtype: torch.dtype = torch.int64) -> Tensor:
    return _send(torch.tensor(values, dtype=dtype), device)


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """To a card without waiting for what it is doing."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
