"""Which sizes of passes to record: each costs time to record, and a pass is padded to the next one. Pure."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

GRAIN = 64
"""Tokens that sizes are multiples of."""
RECORDING = 1.0
"""What a recording costs, in passes of mean size (on an H100; up to 3 where launching kernels is slow)."""


def choose_sizes(passes: Sequence[int]) -> list[int]:
    """The sizes that cost least for passes of these tokens, largest first: padding and recordings together.

    The best division of the sorted sizes into runs, each padded to its last, by dynamic programming over where the last
    run begins (as in Bellman 1961, On the approximation of curves by line segments using dynamic programming).
    """
    counts = Counter(GRAIN * math.ceil(tokens / GRAIN) for tokens in passes)
    sizes = sorted(counts)
    number = list(accumulate((counts[size] for size in sizes), initial=0))
    total = list(accumulate((counts[size] * size for size in sizes), initial=0))
    price = RECORDING * total[-1] / number[-1]
    cost, begins = [0.0], [0]
    for end in range(1, len(sizes) + 1):

        def cost_from(begin: int, end: int = end) -> float:
            padding = sizes[end - 1] * (number[end] - number[begin]) - (total[end] - total[begin])
            return cost[begin] + price + padding

        begins.append(min(range(end), key=cost_from))
        cost.append(cost_from(begins[end]))
    chosen, end = [], len(sizes)
    while end:
        chosen.append(sizes[end - 1])
        end = begins[end]
    return chosen
