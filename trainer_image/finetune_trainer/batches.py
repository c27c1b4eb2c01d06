"""Which rows make up which step, and how they are packed: pure functions of the seed, so a resumed run repeats them."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from heapq import heapify, heapreplace
from itertools import pairwise

from finetune_trainer.tokens import Example

BLUR = 0.1


@dataclass(frozen=True)
class Packed:
    """Several rows laid end to end without padding, each attending to itself only."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    """Position within the row, restarting at 0."""
    boundaries: tuple[int, ...]
    """Offsets of the row starts and the end: len(rows) + 1 values."""
    predictors: tuple[int, ...]
    """Offsets of the tokens whose successor is taught."""
    targets: tuple[int, ...]
    """The taught successors, as many as predictors."""
    owners: tuple[int, ...]
    """For each target, the index of its row in this pack."""
    numbers: tuple[int, ...]
    """The number of each row in its source."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [end - start for start, end in pairwise(self.boundaries)]


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimiser steps in one pass; the last may hold fewer rows."""
    return math.ceil(rows / batch_size)


class Order:
    """Which rows, out of rows of these lengths, make up which optimiser step; another order each epoch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._steps = steps_per_epoch(len(lengths), batch_size)
        self._epoch = lru_cache(maxsize=2)(partial(_epoch, lengths, batch_size, seed))

    def rows_of(self, step: int) -> Sequence[int]:
        """Indices of the rows of a step (from 0)."""
        epoch, position = divmod(step, self._steps)
        return self._epoch(epoch)[position]


def _epoch(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Rows by steps of nearly even size: of each layer of about equal length, a step has one row.

    Every step then weighs about the same in the mean over tokens, and takes as long.
    """
    draw = random.Random(f"{seed}/{epoch}")
    blurred = [length * draw.uniform(1 - BLUR, 1 + BLUR) for length in lengths]  # equal rows part ways each epoch
    order = sorted(range(len(lengths)), key=lambda row: -blurred[row])
    count = steps_per_epoch(len(lengths), batch_size)
    layers = [order[start : start + count] for start in range(0, len(order), count)]
    for layer in layers:
        draw.shuffle(layer)
    steps = [[layer[step] for layer in layers if step < len(layer)] for step in range(count)]
    draw.shuffle(steps)  # those without a row of the last layer, too
    return steps


def fill(lengths: Sequence[int], budget: int, multiple: int = 1) -> list[list[int]]:
    """Distribute items over as few bins of at most `budget` as first fit decreasing finds, evenly if they can be.

    An item over the budget has its own bin. There are a multiple of `multiple` bins if there are items enough. Returns
    indices into `lengths`; bins and their contents keep the original order of their first and of all items.
    """
    order = sorted(range(len(lengths)), key=lambda item: (-lengths[item], item))
    tight = _first_fit(lengths, order, budget)
    even = _least_filled(lengths, order, multiple * math.ceil(len(tight) / multiple))
    fits = all(len(content) <= 1 or sum(lengths[item] for item in content) <= budget for content in even)
    return sorted(sorted(content) for content in (even if fits else tight) if content)


def _first_fit(lengths: Sequence[int], order: Sequence[int], budget: int) -> list[list[int]]:
    bins: list[tuple[int, list[int]]] = []
    for index in order:
        for place, (used, content) in enumerate(bins):
            if used + lengths[index] <= budget:
                bins[place] = (used + lengths[index], [*content, index])
                break
        else:
            bins.append((lengths[index], [index]))
    return [content for _, content in bins]


def _least_filled(lengths: Sequence[int], order: Sequence[int], count: int) -> list[list[int]]:
    """Each item into the bin that holds least so far (longest processing time first; Graham 1969)."""
    bins = [(0, number, list[int]()) for number in range(count)]
    heapify(bins)
    for index in order:
        used, number, content = bins[0]
        heapreplace(bins, (used + lengths[index], number, [*content, index]))
    return [content for _, _, content in bins]


def pack(examples: Sequence[Example]) -> Packed:
    """Lay examples end to end. The first token of a row is never predicted from the row before."""
    ids: list[int] = []
    positions: list[int] = []
    boundaries = [0]
    predictors: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for owner, example in enumerate(examples):
        start = len(ids)
        ids.extend(example.ids)
        positions.extend(range(len(example.ids)))
        boundaries.append(len(ids))
        taught = [index for index, learn in enumerate(example.supervised) if learn]
        predictors.extend(start + index - 1 for index in taught)
        targets.extend(example.ids[index] for index in taught)
        owners.extend(owner for _ in taught)
    numbers = [example.row.number for example in examples]
    return Packed(*map(tuple, (ids, positions, boundaries, predictors, targets, owners, numbers)))


def pack_all(examples: Sequence[Example], budget: int, multiple: int = 1) -> list[tuple[list[int], Packed]]:
    """Pack examples as `fill` divides them, with the indices in each pack."""
    bins = fill([len(example.ids) for example in examples], budget, multiple)
    return [(content, pack([examples[index] for index in content])) for content in bins]
