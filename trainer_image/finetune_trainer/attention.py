"""Attention over packed rows: each row attends to itself only, without a dense mask and without padding.

Registered with transformers under the name PACKED. On CUDA it is torch's variable-length kernel; elsewhere the rows are
padded for this one operation only. Generation keeps transformers' own SDPA, which knows about padding and caches.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from finetune_trainer.errors import ModelNotLoadable

PACKED = "finetune_packed"
_VARLEN = inspect.signature(varlen_attn).parameters


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
    **ignored: Any,
) -> tuple[Tensor, None]:
    """Causal attention within rows.

    Shapes: query [1, heads, tokens, dim], key and value [1, kv heads, tokens, dim], boundaries int32 [rows + 1];
    returns [1, tokens, heads, dim]. Raises ModelNotLoadable for a model that does not hand the boundaries down or
    wants more of its attention than this offers: a leak between rows must never go unnoticed.
    """
    if boundaries is None or ignored.get("softcap") is not None or ignored.get("s_aux") is not None:
        raise ModelNotLoadable(
            f"{type(module).__name__} needs a kind of attention that packed training does not offer."
        )
    repeats = query.shape[1] // key.shape[1]
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if query.device.type == "cuda" and query.dtype == torch.bfloat16:
        return _attend_varlen(query, key, value, boundaries, longest, scaling, sliding_window, repeats), None
    return _attend_padded(query, key, value, boundaries, scaling, sliding_window, repeats), None


def _attend_varlen(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, longest: int, scaling: float | None,
    window: int | None, repeats: int,
) -> Tensor:  # fmt: skip
    """Tokens first: query [tokens, heads, dim]; returns [1, tokens, heads, dim]."""
    key, value = (tensor.repeat_interleave(repeats, 1) for tensor in (key, value))
    options: dict[str, Any] = {}
    if "window_size" in _VARLEN:
        options["window_size"] = (-1 if window is None else window - 1, 0)
    elif window is None:
        options["is_causal"] = True
    else:
        raise ModelNotLoadable("Sliding-window attention on packed rows needs a newer torch.")
    if scaling is not None:
        options["scale"] = scaling
    query, key, value = (tensor.contiguous() for tensor in (query, key, value))
    attended = varlen_attn(query, key, value, boundaries, boundaries, longest, longest, **options)
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0)


def _attend_padded(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, scaling: float | None, window: int | None,
    repeats: int,
) -> Tensor:  # fmt: skip
    """All rows in one call, each padded on the right, where causal attention never looks; shapes as above.

    In float32: more exact, and on CPUs twice as fast as the bfloat16 kernel.
    """
    lengths: list[int] = boundaries.diff().tolist()
    dtype = query.dtype
    rows = (list(torch.split(tensor.float(), lengths)) for tensor in (query, key, value))
    query, key, value = (pad_sequence(row, batch_first=True).transpose(1, 2) for row in rows)
    mask = None if window is None or max(lengths) <= window else _band(max(lengths), window, query.device)
    attended = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=repeats > 1
    ).transpose(1, 2)
    packed = torch.cat([row[:length] for row, length in zip(attended, lengths, strict=True)])
    return packed.to(dtype).unsqueeze(0)


def _band(tokens: int, window: int, device: torch.device) -> Tensor:
    """Mask [tokens, tokens]: each token sees itself and the window - 1 before it."""
    distance = torch.arange(tokens, device=device)[:, None] - torch.arange(tokens, device=device)[None, :]
    return (distance >= 0) & (distance < window)


@contextmanager
def packed_attention(model: PeftModel) -> Iterator[None]:
    """Let the model attend within packed rows, then give it back its own attention."""
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    before = base.config._attn_implementation
    base.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


AttentionInterface.register(PACKED, attend_packed)
AttentionMaskInterface.register(PACKED, lambda *_args, **_kwargs: None)
