"""The sizes of recorded passes: no other choice costs less."""

import random
from collections.abc import Sequence
from itertools import combinations

import pytest

from finetune_trainer.sizes import GRAIN, RECORDING, choose_sizes


def cost(sizes: Sequence[int], passes: Sequence[int]) -> float:
    """Tokens of padding, and of recordings."""
    rounded = [-(-tokens // GRAIN) * GRAIN for tokens in passes]
    padding = sum(min(size for size in sizes if size >= tokens) - tokens for tokens in rounded)
    return padding + len(sizes) * RECORDING * sum(rounded) / len(rounded)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_sizes_cost_less(seed: int) -> None:
    draw = random.Random(seed)
    passes = [draw.randrange(1, 40 * GRAIN) for _ in range(draw.choice((3, 10, 60)))]
    passes = [min(passes, key=lambda known: abs(known - tokens)) if seed % 2 else tokens for tokens in passes][:60]
    distinct = sorted({-(-tokens // GRAIN) * GRAIN for tokens in passes})[-9:]
    passes = [tokens for tokens in passes if -(-tokens // GRAIN) * GRAIN in distinct]
    others = (chosen for count in range(len(distinct)) for chosen in combinations(distinct[:-1], count))
    best = min(cost([*chosen, distinct[-1]], passes) for chosen in others)
    got = choose_sizes(passes)
    assert got == sorted(got, reverse=True)
    assert cost(got, passes) == pytest.approx(best)


def test_every_pass_fits_the_largest_and_many_equal_ones_get_their_own() -> None:
    assert choose_sizes([1000]) == [1024]
    assert choose_sizes([1000] * 100 + [4000] * 100) == [4032, 1024]
    assert choose_sizes([3000, 4000]) == [4032]


def test_a_long_run_has_more_sizes_than_a_short_one() -> None:
    draw = random.Random(0)
    tokens = [int(draw.gauss(2700, 500)) for _ in range(2000)]
    short, long = choose_sizes(tokens[:50]), choose_sizes(tokens)
    assert 1 < len(short) < len(long) < 40
