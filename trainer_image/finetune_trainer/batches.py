"""Which rows make up which step, and how they are packed: pure functions of the seed, so a resumed run repeats them."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_trainer.tokens import Example


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


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimiser steps in one pass; the last may hold fewer rows."""
    return math.ceil(rows / batch_size)


def rows_of_step(rows: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Indices of the rows of optimiser step `step` (from 0), shuffled anew each epoch."""
    epoch, position = divmod(step, steps_per_epoch(rows, batch_size))
    order = list(range(rows))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order[position * batch_size : (position + 1) * batch_size]


def fill(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Distribute items over bins of at most `budget`, first fit decreasing; an item over the budget has its own bin.

    Returns indices into `lengths`; bins and their contents keep the original order of their first and of all items.
    """
    bins: list[tuple[int, list[int]]] = []
    for index in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        for place, (used, content) in enumerate(bins):
            if used + lengths[index] <= budget:
                bins[place] = (used + lengths[index], [*content, index])
                break
        else:
            bins.append((lengths[index], [index]))
    return sorted(sorted(content) for _, content in bins)


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
    return Packed(*map(tuple, (ids, positions, boundaries, predictors, targets, owners)))


def pack_all(examples: Sequence[Example], budget: int) -> list[tuple[list[int], Packed]]:
    """Pack examples into as few packs of at most `budget` tokens as first fit finds, with the indices in each."""
    bins = fill([len(example.ids) for example in examples], budget)
    return [(content, pack([examples[index] for index in content])) for content in bins]
