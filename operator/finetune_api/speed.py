"""How long training takes on a card: matrix work at its rate, everything else at that of its memory. Pure arithmetic.

The constants were fitted to thirteen runs of models of 1, 3 and 7 billion parameters on an H100 and an H200 by LoRA,
and to one run each of DoRA, full fine-tuning and a divided base on H200s (docs/performance.md).
"""

import math
from dataclasses import dataclass, replace

from finetune_api.cards import Card
from finetune_api.layout import FEWEST_TOKENS, Layout
from finetune_api.memory import MemoryEstimate, ModelShape, estimate_memory, is_dora
from finetune_api.methods import MethodSpec

MATRIX_SHARE, HALF_WIDTH = 0.80, 1200
"""Of a card's matrix rate that endlessly large matrices would reach; and the width at which half of that is."""
SWEEPS = 10.5
"""How often what the backward pass keeps is read or written in a forward and a backward pass."""
FORWARD_SWEEPS = 0.35
"""The forward pass's part of that."""
SECONDS_PER_LAYER = 3.2e-4
"""What a pass takes besides, however few its tokens: starting kernels that do not fill the card."""
DEQUANTISED = 5.2
"""Bytes of memory traffic that dequantising a weight is worth."""
PER_LOGIT = 94
"""Bytes of memory traffic that a logit is worth."""
DORA_SWEEPS = 35
"""How much more often DoRA reads or writes the outputs of linear layers."""
PER_TRAINED, PER_TRAINED_IN_FULL = 40, 110
"""Bytes of memory traffic that a step is worth for each trained parameter; in full fine-tuning, with all its copies."""
SECONDS_PER_GATHER = 3.2e-3
"""What it takes to put a divided layer together and to start its kernels one by one."""
MOST_PARTS = 32
MOST_READ = 16384
SPARE_SHARE = 0.05
"""Of a card's memory that is lost in pieces."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the steps and rows of a run."""

    typical_step: int
    largest_step: int
    longest_row: int
    taught_share: float
    """Share of the tokens that is supervised."""

    def shared(self, processes: int) -> "Lengths":
        """What one of several processes sees of them."""
        typical, largest = (max(1, math.ceil(step / processes)) for step in (self.typical_step, self.largest_step))
        return replace(self, typical_step=typical, largest_step=max(largest, self.longest_row))


@dataclass(frozen=True)
class Forecast:
    """What a run would take."""

    layout: Layout
    memory: MemoryEstimate
    step_seconds: float
    tokens_per_second: float
    card: Card


def step_seconds(shape: ModelShape, method: MethodSpec, layout: Layout, card: Card, lengths: Lengths) -> float:
    """Seconds of a typical optimiser step."""
    passes = math.ceil(lengths.typical_step / layout.pass_tokens)
    work = lengths.typical_step * token_seconds(shape, method, layout, card, lengths.taught_share)
    again = share_again(shape, layout)
    work += passes * shape.layers * SECONDS_PER_LAYER * (1 + FORWARD_SWEEPS * again)
    if layout.divided > 1:
        work += passes * shape.layers * (2 + again) * SECONDS_PER_GATHER
    traffic = PER_TRAINED_IN_FULL if method.type == "full" else PER_TRAINED
    optimiser = shape.trained_parameters(method) * traffic / card.bandwidth
    return work + passes * dequantising_seconds(shape, method, layout, card) + optimiser


def token_seconds(shape: ModelShape, method: MethodSpec, layout: Layout, card: Card, taught_share: float) -> float:
    """Seconds that a token adds to a pass: two operations for each weight forwards, and two for its input's gradient;
    two more for the weight's own where it is trained, and for a forward pass that is made again."""
    again = share_again(shape, layout)
    sweeps = 6 if method.type == "full" else 4
    head = shape.vocabulary * shape.hidden * taught_share
    operations = (sweeps + 2 * again) * shape.linear_parameters + sweeps * head
    traffic = SWEEPS * (1 + FORWARD_SWEEPS * again) * shape.kept_per_token(method) * shape.layers
    traffic += PER_LOGIT * shape.vocabulary * taught_share
    traffic += DORA_SWEEPS * shape.outputs_per_token * shape.layers if is_dora(method) else 0
    reached = MATRIX_SHARE * shape.hidden / (shape.hidden + HALF_WIDTH)
    return operations / (reached * card.matrix_rate) + traffic / card.bandwidth


def dequantising_seconds(shape: ModelShape, method: MethodSpec, layout: Layout, card: Card) -> float:
    """Seconds that a pass spends on making weights out of what is stored."""
    if layout.expanded or method.storage == "none":
        return 0.0
    return (2 + share_again(shape, layout)) * shape.linear_parameters * DEQUANTISED / card.bandwidth


def share_again(shape: ModelShape, layout: Layout) -> float:
    """Share of the layers that a pass goes through a second time forwards, besides once each way."""
    return min(1.0, layout.recomputed / shape.layers)


def foresee(
    shape: ModelShape, method: MethodSpec, card: Card, lengths: Lengths, pass_tokens: int | None = None,
    processes: int = 1,
) -> Forecast | None:  # fmt: skip
    """The run in the fastest layout that fits a card; None if none does. `pass_tokens` is no choice if it is given.

    Of several processes each has a card and takes its part of every step; the base is divided if it must be.
    """
    found = _foresee_whole(shape, method, card, lengths.shared(processes), pass_tokens, 1)
    if found is None and processes > 1 and method.type != "full":
        found = _foresee_whole(shape, method, card, lengths.shared(processes), pass_tokens, processes)
    return found and replace(found, tokens_per_second=found.tokens_per_second * processes)


def _foresee_whole(
    shape: ModelShape, method: MethodSpec, card: Card, lengths: Lengths, pass_tokens: int | None, divided: int
) -> Forecast | None:
    sizes = [min(pass_tokens, _sizes(lengths)[0])] if pass_tokens else _sizes(lengths)
    storages = (True, False) if method.storage != "none" and divided == 1 else (False,)
    layouts = (
        _least_recomputed(shape, method, card, lengths, Layout(expanded, 0, divided, tokens))
        for tokens in sizes
        for expanded in storages
    )
    fitting = [forecast(shape, method, layout, card, lengths) for layout in layouts if layout is not None]
    return min(fitting, key=lambda found: found.step_seconds, default=None)


def forecast(shape: ModelShape, method: MethodSpec, layout: Layout, card: Card, lengths: Lengths) -> Forecast:
    """The run in a layout."""
    memory = estimate_memory(shape, method, layout, lengths.taught_share)
    seconds = step_seconds(shape, method, layout, card, lengths)
    return Forecast(layout, memory, seconds, lengths.typical_step / seconds, card)


def least_memory(shape: ModelShape, method: MethodSpec, lengths: Lengths, processes: int = 1) -> int:
    """Bytes that each card must have for a run to fit at all."""
    tokens = max(lengths.longest_row, FEWEST_TOKENS)
    layout = Layout(False, shape.layers, 1 if method.type == "full" else processes, tokens, tokens)
    smallest = estimate_memory(shape, method, layout, lengths.taught_share)
    return round(smallest.total / (1 - SPARE_SHARE))


def _sizes(lengths: Lengths) -> list[int]:
    """Passes to choose from: the largest step whole, or in so many parts; never less than the longest row."""
    parts = {math.ceil(lengths.largest_step / count) for count in range(1, MOST_PARTS + 1)}
    return sorted({max(tokens, lengths.longest_row, FEWEST_TOKENS) for tokens in parts}, reverse=True)


def _least_recomputed(
    shape: ModelShape, method: MethodSpec, card: Card, lengths: Lengths, wanted: Layout
) -> Layout | None:
    """The layout with fewest layers computed again that fits; what is left over is for reading."""
    reading = max(lengths.longest_row, FEWEST_TOKENS)
    for recomputed in range(shape.layers + 1):
        layout = replace(wanted, recomputed=recomputed, inference_tokens=reading)
        left = usable(card) - estimate_memory(shape, method, layout, lengths.taught_share).total
        if left >= 0:
            return replace(layout, inference_tokens=min(MOST_READ, reading + left // shape.kept_per_token(method)))
    return None


def usable(card: Card) -> int:
    """Bytes of a card that a run may plan with."""
    return int(card.memory * (1 - SPARE_SHARE))
