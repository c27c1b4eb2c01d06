"""Order and packing."""

import random
from statistics import stdev

import pytest

from finetune_trainer.batches import Order, fill, pack, steps_per_epoch
from finetune_trainer.rows import Row
from finetune_trainer.tokens import Example


def example(*ids: int) -> Example:
    return Example(Row(1, "g", text="x"), ids, (False, *[True] * (len(ids) - 1)), 0)


LENGTHS = [random.Random(0).randrange(20, 1000) for _ in range(50)]


@pytest.mark.parametrize("lengths", [LENGTHS, [7] * 50])
def test_an_epoch_visits_every_row_once_and_the_next_in_another_order(lengths: list[int]) -> None:
    count = steps_per_epoch(50, 8)
    order = Order(lengths, 8, seed=1)
    epochs = [[sorted(order.rows_of(epoch * count + step)) for step in range(count)] for epoch in (0, 1)]
    for steps in epochs:
        assert sorted(row for step in steps for row in step) == list(range(50))
        assert sorted(map(len, steps)) == [7] * 6 + [8]
    assert not {tuple(step) for step in epochs[0]} & {tuple(step) for step in epochs[1]}


def test_the_rows_of_a_step_depend_on_lengths_and_seed_only() -> None:
    first = Order(LENGTHS, 8, seed=5).rows_of(13)
    assert first == Order(list(LENGTHS), 8, seed=5).rows_of(13) != Order(LENGTHS, 8, seed=6).rows_of(13)


def test_steps_have_about_as_many_tokens_though_rows_differ_widely() -> None:
    draw = random.Random(0)
    lengths = [max(32, min(1024, int(draw.lognormvariate(5.6, 0.7)))) for _ in range(1880)]
    order = Order(lengths, 8, seed=0)
    steps = [sum(lengths[row] for row in order.rows_of(step)) for step in range(235)]
    blind = [sum(draw.sample(lengths, 8)) for _ in range(235)]
    assert stdev(steps) < 0.35 * stdev(blind)


def test_any_two_rows_meet_in_a_step_sooner_or_later() -> None:
    met, order = set(), Order([7, 7, 7, 7, 7, 7], 2, seed=0)
    for step in range(400 * steps_per_epoch(6, 2)):
        met.add(tuple(sorted(order.rows_of(step))))
    assert len(met) == 15


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
