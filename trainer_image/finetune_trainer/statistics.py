"""Is the adapter better, or was it luck? Paired differences, resampled by group."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_api.run import MetricResult, Verdict
from finetune_api.training import MetricName

RESAMPLES = 10_000
LEVEL = 0.95
LARGEST_EXPONENT = 12 * np.log(10)
"""Perplexities end at 1e12: nothing is worse than that, and reports are JSON, which knows no infinity."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """One metric of base and adapter on the same rows: a ratio of sums, such as correct answers over rows.

    For perplexity the ratio is nats over tokens, and the metric its exponential.
    """

    name: MetricName
    higher_is_better: bool
    base: Sequence[float]
    adapter: Sequence[float]
    weights: Sequence[float]
    groups: Sequence[str]
    exponential: bool = False


def compare(paired: Paired, seed: int = 0) -> MetricResult:
    """Values, difference and its percentile interval from a paired cluster bootstrap.

    Whole groups are drawn with replacement (Davison & Hinkley 1997, Bootstrap Methods, section 3.8): rows of one group
    are not independent, and resampling rows would make the interval too narrow.
    """
    names = sorted(set(paired.groups))
    place = {name: index for index, name in enumerate(names)}
    member = np.array([place[group] for group in paired.groups])
    base, adapter, weights = (
        np.bincount(member, weights=np.asarray(values, dtype=float), minlength=len(names))
        for values in (paired.base, paired.adapter, paired.weights)
    )
    draws: Array = (
        np.random.default_rng(seed)
        .multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
        .astype(float)
    )
    drawn_weights: Array = draws @ weights
    differences = _value(draws @ adapter, drawn_weights, paired) - _value(draws @ base, drawn_weights, paired)
    tail = (1 - LEVEL) / 2 * 100
    low, high = np.percentile(differences, [tail, 100 - tail])
    before, after = (float(_value(total.sum(), weights.sum(), paired)) for total in (base, adapter))
    return MetricResult(
        name=paired.name,
        higher_is_better=paired.higher_is_better,
        base=before,
        adapter=after,
        difference=after - before,
        ci=(float(low), float(high)),
        n=len(paired.base),
        groups=len(names),
    )


def _value(total: Array, weight: Array, paired: Paired) -> Array:
    ratio = total / weight
    return np.exp(np.minimum(ratio, LARGEST_EXPONENT)) if paired.exponential else ratio


def verdict(metric: MetricResult) -> Verdict:
    """Passed or Failed when the interval lies wholly on one side of zero, else Inconclusive."""
    low, high = metric.ci if metric.higher_is_better else (-metric.ci[1], -metric.ci[0])
    if low > 0:
        return "Passed"
    return "Failed" if high < 0 else "Inconclusive"
