"""Attention over packed rows: each row attends to itself only, without a dense mask and without padding.

Registered with transformers under the name PACKED. On CUDA it is torch's variable-length kernel; elsewhere the rows are
padded for this one operation only. Generation keeps transformers' own SDPA, which knows about padding and caches.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from finetune_trainer.errors import ModelNotLoadable

PACKED = "finetune_packed"
_GROUPED: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
"""Older versions share key-value heads among query heads without being asked."""


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    boundaries: Tensor | None = None,
    longest: int = 0,
    prefix: Sequence[tuple[Tensor, Tensor]] = (),
    **ignored: Any,
) -> tuple[Tensor, None]:
    """Causal attention within rows, each behind the prefix of its layer.

    Shapes: query [1, heads, tokens, dim], key and value [1, kv heads, tokens, dim], boundaries int32 [rows + 1], prefix
    keys and values [kv heads, length, dim]; returns [1, tokens, heads, dim]. Raises ModelNotLoadable for a model that
    does not hand the boundaries down or wants more of its attention than this offers: a leak between rows must never
    go unnoticed.
    """
    if boundaries is None or ignored.get("softcap") is not None or ignored.get("s_aux") is not None:
        raise ModelNotLoadable(
            f"{type(module).__name__} needs a kind of attention that packed training does not offer."
        )
    # By view, not by index: the gradient of an index is a copy.
    query, key, value = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    before = 0
    if prefix:
        if sliding_window is not None:
            raise ModelNotLoadable(
                f"{type(module).__name__} attends through a window, which a prefix would fall out of."
            )
        key, value = (
            _behind(part.transpose(0, 1), rows, boundaries)
            for part, rows in zip(prefix[int(module.layer_idx)], (key, value), strict=True)  # type: ignore[arg-type]
        )
        before = prefix[0][0].shape[1]
    if query.device.type == "cuda" and query.dtype == torch.bfloat16:
        return _attend_varlen(query, key, value, boundaries, longest, before, scaling, sliding_window), None
    return _attend_padded(query, key, value, boundaries, before, scaling, sliding_window), None


def _behind(prefix: Tensor, rows: Tensor, boundaries: Tensor) -> Tensor:
    """The rows with the prefix before each: [rows * length + tokens, heads, dim]."""
    length, starts = len(prefix), boundaries[:-1]
    token = torch.arange(len(rows), device=rows.device)
    row = torch.searchsorted(boundaries, token, right=True)  # from 1
    joined = rows.new_empty(len(rows) + length * len(starts), *rows.shape[1:])
    joined = joined.index_copy(0, token + row * length, rows)
    places = (starts + length * torch.arange(len(starts), device=rows.device))[:, None] + torch.arange(
        length, device=rows.device
    )
    return joined.index_copy(0, places.flatten(), prefix.repeat(len(starts), 1, 1))


def _attend_varlen(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, longest: int, before: int, scaling: float | None,
    window: int | None,
) -> Tensor:  # fmt: skip
    """Tokens first: query [tokens, heads, dim]; returns [1, tokens, heads, dim]."""
    own = boundaries
    if before:
        own = boundaries + before * torch.arange(len(boundaries), dtype=torch.int32, device=boundaries.device)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # newer versions prefer cuDNN's, whose gradients we have seen wrong
        attended = varlen_attn(
            query, key, value, boundaries, own, longest, longest + before, scale=scaling,
            window_size=(-1 if window is None else window - 1, 0), **_GROUPED,
        )  # fmt: skip
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0)


def _attend_padded(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, before: int, scaling: float | None,
    window: int | None,
) -> Tensor:  # fmt: skip
    """All rows in one call, each padded on the right, where causal attention never looks; shapes as above.

    In float32: more exact, and on CPUs twice as fast as the bfloat16 kernel.
    """
    lengths: list[int] = boundaries.diff().tolist()
    dtype, repeats, longest = query.dtype, query.shape[1] // key.shape[1], max(lengths)
    queries = list(torch.split(query.float(), lengths))
    keys, values = (list(torch.split(tensor.float(), [before + n for n in lengths])) for tensor in (key, value))
    query, key, value = (pad_sequence(rows, batch_first=True).transpose(1, 2) for rows in (queries, keys, values))
    plain = not before and (window is None or longest <= window)
    mask = None if plain else _band(longest, before, window, query.device)
    attended = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=plain, scale=scaling, enable_gqa=repeats > 1
    ).transpose(1, 2)
    packed = torch.cat([row[:length] for row, length in zip(attended, lengths, strict=True)])
    return packed.to(dtype).unsqueeze(0)


def _band(tokens: int, before: int, window: int | None, device: torch.device) -> Tensor:
    """Mask [tokens, before + tokens]: each token sees what is before it and itself, or the last `window` of these."""
    own = before + torch.arange(tokens, device=device)[:, None]
    distance = own - torch.arange(before + tokens, device=device)[None, :]
    return (distance >= 0) & (distance < (window or before + tokens))


@contextmanager
def own_attention(base: PreTrainedModel) -> Iterator[None]:
    """Let a model attend as transformers does, which is what generation needs, instead of within packed rows."""
    base.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        base.set_attn_implementation(PACKED)


AttentionInterface.register(PACKED, attend_packed)
AttentionMaskInterface.register(PACKED, lambda *_args, **_kwargs: None)
