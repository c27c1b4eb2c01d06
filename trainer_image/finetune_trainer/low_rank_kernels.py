"""The products of `low_rank_products` in Triton: the mask is made in registers, and each input is read once.

With masks in memory and torch's own operations, dropout would cost a tenth of a training step.
Sums over long axes are split over programs and added in a fixed order, so that results repeat.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from finetune_trainer.keyed_dropout import Mask

TOKENS, COLUMNS = 64, 128
"""Tile of one program."""
PROGRAMS = 512
"""Programs that keep a large card busy."""


def project(x: Tensor, down: Tensor, mask: Mask | None, scale: float) -> Tensor:
    """scale dropout(x) down', in the dtype of x."""
    (tokens, columns), ranks = x.shape, down.shape[0]
    tiles = triton.cdiv(tokens, TOKENS)
    parts = _parts(columns, COLUMNS, tiles)
    partial = torch.empty(parts, tokens, ranks, dtype=torch.float32, device=x.device)
    _project[(tiles, parts)](
        x, down, partial, *_keys(mask, x), tokens, columns, ranks, x.stride(0), down.stride(0),
        _share(columns, COLUMNS, parts), _joint(mask, scale), _bound(mask), RANKS=_padded(ranks),
        DROP=mask is not None, TOKENS=TOKENS, COLUMNS=COLUMNS,
    )  # fmt: skip
    return partial.sum(0).to(x.dtype) if parts > 1 else partial[0].to(x.dtype)


def weight_slope(x: Tensor, slope: Tensor, mask: Mask | None, scale: float) -> Tensor:
    """scale slope' dropout(x), float32 [ranks, columns]."""
    (tokens, columns), ranks = x.shape, slope.shape[1]
    tiles = triton.cdiv(columns, COLUMNS)
    parts = _parts(tokens, TOKENS, tiles)
    partial = torch.empty(parts, ranks, columns, dtype=torch.float32, device=x.device)
    _weight_slope[(tiles, parts)](
        x, slope, partial, *_keys(mask, x), tokens, columns, ranks, x.stride(0), slope.stride(0),
        _share(tokens, TOKENS, parts), _joint(mask, scale), _bound(mask), RANKS=_padded(ranks), DROP=mask is not None,
        TOKENS=TOKENS, COLUMNS=COLUMNS,
    )  # fmt: skip
    return partial.sum(0) if parts > 1 else partial[0]


def add_product(total: Tensor, left: Tensor, right: Tensor, mask: Mask | None = None, scale: float = 1.0) -> None:
    """Add scale left right to `total` [tokens, columns], where nothing is dropped; right is [ranks, columns]."""
    (tokens, columns), ranks = total.shape, left.shape[1]
    _add_product[(triton.cdiv(tokens, TOKENS), triton.cdiv(columns, COLUMNS))](
        total, left, right, *_keys(mask, total), tokens, columns, ranks, total.stride(0), left.stride(0),
        right.stride(0), right.stride(1), _joint(mask, scale), _bound(mask), RANKS=_padded(ranks),
        DROP=mask is not None, TOKENS=TOKENS, COLUMNS=COLUMNS,
    )  # fmt: skip


def _parts(length: int, tile: int, others: int) -> int:
    """Into how many programs a sum over `length` is split when `others` programs run beside each."""
    return max(1, min(length // (4 * tile), PROGRAMS // others))


def _share(length: int, tile: int, parts: int) -> int:
    """Tiles of each part."""
    return -(-length // (tile * parts))


def _keys(mask: Mask | None, unused: Tensor) -> tuple[Tensor, Tensor]:
    return (mask.tokens, mask.columns) if mask else (unused, unused)


def _joint(mask: Mask | None, scale: float) -> float:
    return scale * mask.scale if mask else scale


def _bound(mask: Mask | None) -> int:
    return mask.bound if mask else 0


def _padded(ranks: int) -> int:
    """Matrix units take no fewer than 16."""
    return max(16, 1 << (ranks - 1).bit_length())


@triton.jit(do_not_specialize=["share"])
def _project(
    x, down, partial, token_keys, column_keys, tokens, columns, ranks, x_stride, down_stride, share, scale, bound,
    RANKS: tl.constexpr, DROP: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(1)
    row = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    rank = tl.arange(0, RANKS)
    if DROP:
        token_key = tl.load(token_keys + row, mask=row < tokens, other=0)
    total = tl.zeros((TOKENS, RANKS), dtype=tl.float32)
    for tile in range(part * share, (part + 1) * share):
        column = tile * COLUMNS + tl.arange(0, COLUMNS)
        inside = (row[:, None] < tokens) & (column[None, :] < columns)
        value = tl.load(x + row[:, None].to(tl.int64) * x_stride + column[None, :], mask=inside, other=0.0)
        if DROP:
            column_key = tl.load(column_keys + column, mask=column < columns, other=0)
            value = tl.where(token_key[:, None] * column_key[None, :] >= bound, value, 0.0)
        weight = tl.load(
            down + rank[None, :] * down_stride + column[:, None],
            mask=(rank[None, :] < ranks) & (column[:, None] < columns), other=0.0,
        )  # fmt: skip
        total = tl.dot(value, weight, total)
    place = partial + part.to(tl.int64) * tokens * ranks + row[:, None] * ranks + rank[None, :]
    tl.store(place, total * scale, mask=(row[:, None] < tokens) & (rank[None, :] < ranks))


@triton.jit(do_not_specialize=["share"])
def _weight_slope(
    x, slopes, partial, token_keys, column_keys, tokens, columns, ranks, x_stride, slope_stride, share, scale,
    bound, RANKS: tl.constexpr, DROP: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    rank = tl.arange(0, RANKS)
    if DROP:
        column_key = tl.load(column_keys + column, mask=column < columns, other=0)
    total = tl.zeros((RANKS, COLUMNS), dtype=tl.float32)
    for tile in range(part * share, (part + 1) * share):
        row = tile * TOKENS + tl.arange(0, TOKENS)
        inside = (row[:, None] < tokens) & (column[None, :] < columns)
        value = tl.load(x + row[:, None].to(tl.int64) * x_stride + column[None, :], mask=inside, other=0.0)
        if DROP:
            token_key = tl.load(token_keys + row, mask=row < tokens, other=0)
            value = tl.where(token_key[:, None] * column_key[None, :] >= bound, value, 0.0)
        slope = tl.load(
            slopes + row[None, :] * slope_stride + rank[:, None],
            mask=(rank[:, None] < ranks) & (row[None, :] < tokens), other=0.0,
        )  # fmt: skip
        total = tl.dot(slope, value, total)
    place = partial + part.to(tl.int64) * ranks * columns + rank[:, None] * columns + column[None, :]
    tl.store(place, total * scale, mask=(rank[:, None] < ranks) & (column[None, :] < columns))


@triton.jit
def _add_product(
    total, left, right, token_keys, column_keys, tokens, columns, ranks, total_stride, left_stride, rank_stride,
    column_stride, scale, bound, RANKS: tl.constexpr, DROP: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rank = tl.arange(0, RANKS)
    a = tl.load(
        left + row[:, None] * left_stride + rank[None, :],
        mask=(row[:, None] < tokens) & (rank[None, :] < ranks), other=0.0,
    )  # fmt: skip
    b = tl.load(
        right + rank[:, None] * rank_stride + column[None, :] * column_stride,
        mask=(rank[:, None] < ranks) & (column[None, :] < columns), other=0.0,
    )  # fmt: skip
    added = tl.dot(a, b) * scale
    if DROP:
        token_key = tl.load(token_keys + row, mask=row < tokens, other=0)
        column_key = tl.load(column_keys + column, mask=column < columns, other=0)
        added = tl.where(token_key[:, None] * column_key[None, :] >= bound, added, 0.0)
    inside = (row[:, None] < tokens) & (column[None, :] < columns)
    place = total + row[:, None].to(tl.int64) * total_stride + column[None, :]
    before = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, (before + added).to(total.dtype.element_ty), mask=inside)
