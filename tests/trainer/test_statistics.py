"""Intervals that mean what they say."""

import math
import random

import pytest

from finetune_api.run import MetricResult
from finetune_trainer.statistics import Paired, compare, verdict


def paired(base: list[float], adapter: list[float], groups: list[str] | None = None) -> Paired:
    names = groups or [str(index) for index in range(len(base))]
    return Paired("exactMatch", True, base, adapter, [1.0] * len(base), names)


def result(low: float, high: float, higher: bool = True) -> MetricResult:
    return MetricResult(
        name="exactMatch", higher_is_better=higher, base=0, adapter=0, difference=0, ci=(low, high), n=1, groups=1
    )


def test_the_values_are_plain_means() -> None:
    outcome = compare(paired([0, 0, 1, 1], [1, 1, 1, 0]))
    assert (outcome.base, outcome.adapter, outcome.difference) == (0.5, 0.75, 0.25)
    assert (outcome.n, outcome.groups) == (4, 4)


def test_the_interval_covers_the_truth_about_as_often_as_it_claims() -> None:
    rng = random.Random(1)
    hits = 0
    for seed in range(200):
        base = [float(rng.random() < 0.5) for _ in range(60)]
        adapter = [float(rng.random() < 0.7) for _ in range(60)]
        low, high = compare(paired(base, adapter), seed).ci
        hits += low <= 0.2 <= high
    assert 180 <= hits <= 199


def test_rows_of_one_group_count_as_one_witness() -> None:
    base, adapter = [0.0] * 40, [1.0] * 20 + [0.0] * 20
    alone = compare(paired(base, adapter))
    together = compare(paired(base, adapter, [str(index // 10) for index in range(40)]))
    assert together.ci[1] - together.ci[0] > 2 * (alone.ci[1] - alone.ci[0])


def test_perplexity_is_the_exponential_of_the_mean_loss_per_token() -> None:
    outcome = compare(Paired("perplexity", False, [4.0, 8.0], [2.0, 4.0], [2.0, 4.0], ["a", "b"], exponential=True))
    assert outcome.base == pytest.approx(math.exp(2))
    assert outcome.adapter == pytest.approx(math.exp(1))


@pytest.mark.parametrize(
    ("metric", "want"),
    [
        (result(0.1, 0.3), "Passed"),
        (result(-0.3, -0.1), "Failed"),
        (result(-0.1, 0.3), "Inconclusive"),
        (result(0.0, 0.3), "Inconclusive"),
        (result(-3, -1, higher=False), "Passed"),
        (result(1, 3, higher=False), "Failed"),
    ],
)
def test_the_verdict_follows_the_interval(metric: MetricResult, want: str) -> None:
    assert verdict(metric) == want


def test_a_perplexity_without_bounds_is_told_as_a_finite_number() -> None:
    outcome = compare(Paired("perplexity", False, [1e6, 2e3], [4.0, 4.0], [2.0, 2.0], ["a", "b"], exponential=True))
    assert outcome.base == pytest.approx(1e12)
    assert outcome.adapter == pytest.approx(math.exp(2))
    assert all(map(math.isfinite, (outcome.difference, *outcome.ci)))
    assert verdict(outcome) == "Passed"
