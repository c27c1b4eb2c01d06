"""Order and packing."""

import random

from finetune_trainer.batches import fill, pack, rows_of_step, steps_per_epoch
from finetune_trainer.rows import Row
from finetune_trainer.tokens import Example


def example(*ids: int) -> Example:
    return Example(Row(1, "g", text="x"), ids, (False, *[True] * (len(ids) - 1)), 0)


def test_an_epoch_visits_every_row_once_and_the_next_in_another_order() -> None:
    orders = [
        [row for step in range(steps_per_epoch(10, 4)) for row in rows_of_step(10, 4, epoch * 3 + step, seed=1)]
        for epoch in (0, 1)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    assert orders[0] != orders[1]


def test_the_rows_of_a_step_depend_on_the_seed_only() -> None:
    assert rows_of_step(50, 8, 13, seed=5) == rows_of_step(50, 8, 13, seed=5) != rows_of_step(50, 8, 13, seed=6)


def test_every_item_lands_in_one_bin_and_no_bin_overflows() -> None:
    rng = random.Random(0)
    for _ in range(200):
        lengths = [rng.randint(1, 60) for _ in range(rng.randint(1, 40))]
        bins = fill(lengths, 64)
        assert sorted(index for content in bins for index in content) == list(range(len(lengths)))
        assert all(sum(lengths[index] for index in content) <= 64 for content in bins)


def test_an_item_over_the_budget_travels_alone() -> None:
    assert fill([100, 5, 5], 64) == [[0], [1, 2]]


def test_no_row_is_predicted_from_the_row_before_it() -> None:
    packed = pack([example(1, 2, 3), example(4, 5)])
    assert packed.boundaries == (0, 3, 5)
    assert packed.positions == (0, 1, 2, 0, 1)
    assert list(zip(packed.predictors, packed.targets, packed.owners, strict=True)) == [(0, 2, 0), (1, 3, 0), (3, 5, 1)]
