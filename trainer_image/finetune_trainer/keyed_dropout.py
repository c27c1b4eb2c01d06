"""Dropout whose mask is a function of seed, step, row, position and column: the same however rows are packed.

A token has a key and a column has a key; an entry is kept if their product, in 32 bits, lies above a bound
(multiply-shift hashing, Dietzfelbinger et al. 1997, A reliable randomized algorithm for the closest-pair problem).
Nothing is drawn and nothing stored: a mask is computed again wherever it is needed.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

GOLDEN = 0x9E3779B1  # 2^32 / golden ratio, odd


@dataclass(frozen=True)
class Mask:
    """Which entries of an input of shape [tokens, columns] are kept."""

    tokens: Tensor
    """Keys, int32 [tokens]."""
    columns: Tensor
    """Keys, int32 [columns]."""
    rate: float
    """Share that is dropped, 0 to 1."""

    @property
    def bound(self) -> int:
        """An entry is kept if the product of its keys is at least this."""
        return min(round(self.rate * 2**32), 2**32 - 1) - 2**31

    @property
    def scale(self) -> float:
        """What kept entries are multiplied by, so that the mean stays."""
        return 1 / (1 - self.rate)

    def kept(self) -> Tensor:
        """The mask, bool [tokens, columns]."""
        return self.tokens[:, None] * self.columns[None, :] >= self.bound


class Draw:
    """The token keys of the rows in work, int32 [tokens]; without them nothing is dropped."""

    tokens: Tensor | None = None


class KeyedDropout(nn.Module):
    """Dropout as a layer, for inputs of shape [..., columns] with as many rows as there are token keys."""

    def __init__(self, rate: float, columns: Tensor, draw: Draw) -> None:
        super().__init__()
        self.rate, self.columns, self.draw = rate, columns, draw

    @property
    def mask(self) -> Mask | None:
        """The mask of the rows in work; None if nothing is dropped."""
        return Mask(self.draw.tokens, self.columns, self.rate) if self.rate and self.draw.tokens is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """x with some entries dropped and the others scaled up."""
        mask = self.mask
        return x if mask is None else torch.where(mask.kept().view(x.shape), x * mask.scale, 0).to(x.dtype)


def row_key(seed: int, step: int, row: int) -> int:
    """Key of a row in an optimiser step."""
    return zlib.crc32(f"{seed}/{step}/{row}".encode())


def token_keys(rows: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """Keys of packed tokens from the keys and lengths of their rows, int32 [sum of lengths]."""
    starts = torch.tensor(rows, dtype=torch.int64).repeat_interleave(torch.tensor(lengths))
    positions = torch.cat([torch.arange(length) for length in lengths])
    return _mixed(starts + positions * GOLDEN)


def column_keys(columns: int, layer: int) -> Tensor:
    """Keys of the columns of a layer's input, int32 [columns]."""
    return _mixed(torch.arange(columns) * GOLDEN + _mixed(torch.tensor([layer + 1])).to(torch.int64))


def _mixed(values: Tensor) -> Tensor:
    """Well-spread odd int32 from int64: the finaliser of MurmurHash3 (Appleby 2011)."""
    bits = 0xFFFFFFFF
    values = values & bits
    values = ((values ^ (values >> 16)) * 0x85EBCA6B) & bits
    values = ((values ^ (values >> 13)) * 0xC2B2AE35) & bits
    values = (values ^ (values >> 16)) | 1
    return (values - (values >> 31 << 32)).to(torch.int32)
