"""What is foreseen beside what was measured (docs/performance.md; `benchmarks/speed.py` on one card or two)."""

from dataclasses import dataclass
from typing import Any

import pytest

from finetune_api.cards import CARDS, GIB
from finetune_api.layout import Layout
from finetune_api.memory import ModelShape
from finetune_api.methods import MethodSpec
from finetune_api.speed import Lengths, forecast

TOLERANCE = 0.15
WIDTHS = {"7b": (4096, 14336, 32, 1024), "3b": (3072, 8192, 28, 1024), "1b": (2048, 8192, 16, 512)}
"""Of the states, of the feed-forward block, layers, and width of the keys."""
METHODS: dict[str, dict[str, Any]] = {
    "int8": {"quantization": "int8"},
    "dora": {"lora": {"dora": True}},
    "prefix": {"type": "prefix"},
    "bottleneck": {"type": "bottleneck"},
    "full": {"type": "full"},
}


@dataclass(frozen=True)
class Run:
    """A run that was measured."""

    card: str
    shape: str
    setting: str
    step: int
    """Tokens of an average step."""
    layout: Layout
    tokens_per_second: float
    gib: float
    processes: int = 1

    def __str__(self) -> str:
        return f"{self.card} {self.shape} {self.setting} in {self.processes}"


def expanded(tokens: int) -> Layout:
    return Layout(expanded=True, pass_tokens=tokens, inference_tokens=16384)


RUNS = [
    Run("H100", "7b", "article", 2673, expanded(3034), 15145, 30.31),
    Run("H100", "7b", "packed", 7952, expanded(8243), 16019, 52.26),
    Run("H100", "7b", "small", 7952, Layout(False, 32, 1, 8243, 7136), 10754, 9.95),
    Run("H100", "3b", "article", 2705, expanded(3037), 30814, 15.24),
    Run("H200", "7b", "article", 2673, expanded(3034), 16424, 30.24),
    Run("H200", "7b", "packed", 7952, expanded(8239), 17225, 52.26),
    Run("H200", "7b", "small", 7952, Layout(False, 2, 1, 1030, 1100), 11794, 9.97),
    Run("H200", "3b", "article", 2704, expanded(3056), 33985, 15.49),
    Run("H200", "3b", "packed", 8040, expanded(8263), 35891, 28.01),
    Run("H200", "3b", "small", 8040, Layout(False, 28, 1, 8263, 7530), 24484, 5.99),
    Run("H200", "1b", "article", 2704, expanded(3056), 75830, 7.79),
    Run("H200", "1b", "packed", 8040, expanded(8263), 83843, 13.57),
    Run("H200", "1b", "small", 8040, Layout(False, 15, 1, 4132, 4000), 53900, 2.98),
    Run("H200", "1b", "int8", 2705, expanded(3037), 72558, 7.48),
    Run("H200", "1b", "dora", 2705, expanded(3037), 49193, 10.36),
    Run("H200", "1b", "prefix", 2705, expanded(3037), 85781, 6.26),
    Run("H200", "1b", "bottleneck", 2705, expanded(3037), 91633, 6.35),
    Run("H200", "1b", "full", 2705, Layout(False, 0, 1, 3037, 16384), 35157, 21.72),
    Run("H200", "7b", "article", 2699, expanded(1554), 27539, 24.32, processes=2),
    Run("H200", "7b", "divided", 2659, Layout(False, 32, 2, 1421, 1100), 5885, 5.0, processes=2),
]


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_what_is_foreseen_was_measured(run: Run) -> None:
    card = next(card for card in CARDS if card.name == run.card)
    lengths = Lengths(run.step // run.processes, run.layout.pass_tokens, 1024, 0.7)
    method = MethodSpec.model_validate(METHODS.get(run.setting, {}))
    found = forecast(shape_of(run.shape), method, run.layout, card, lengths)
    assert found.tokens_per_second * run.processes == pytest.approx(run.tokens_per_second, rel=TOLERANCE)
    assert found.memory.total / GIB == pytest.approx(run.gib, rel=TOLERANCE)


def shape_of(name: str) -> ModelShape:
    hidden, inner, layers, keys = WIDTHS[name]
    attention = [(hidden, hidden), (keys, hidden), (keys, hidden), (hidden, hidden)]
    linear = [*attention, (inner, hidden), (inner, hidden), (hidden, inner)] * layers
    return ModelShape(tuple(linear), 2 * 32000 * hidden, 32000, layers, hidden, hidden, keys, inner)
