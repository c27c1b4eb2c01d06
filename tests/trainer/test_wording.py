"""Figures and findings as people read them."""

import math
from typing import Any

import pytest

from finetune_api.run import MetricResult
from finetune_trainer.charts import MINUS
from finetune_trainer.wording import (
    byte_size,
    count,
    decimal,
    duration,
    layout_sentence,
    memory,
    metric_difference,
    metric_interval,
    metric_value,
    moment,
    percent,
    reading,
    signed,
    speed,
    verdict_sentence,
)
from support.reports import make_evaluation, make_layout, make_metric, make_training


@pytest.mark.parametrize(
    ("metric", "want"),
    [
        (
            make_metric(adapter=0.875, difference=0.875, ci=(0.75, 1.0), n=24),
            "The adapter answers 21 of 24 held-out rows exactly; the base model 0 of 24. "
            "The difference, +87.5 points, has a 95 % interval of [+75.0, +100.0], so the adapter is better.",
        ),
        (
            make_metric(name="tokenF1", base=0.412, adapter=0.377, difference=-0.035, ci=(-0.061, -0.012), n=1200),
            "On 1,200 held-out rows, the adapter's answers overlap the reference answers by 37.7 % (token F1); the "
            f"base model's by 41.2 %. The difference, {MINUS}3.5 points, has a 95 % interval of "
            f"[{MINUS}6.1, {MINUS}1.2], so the adapter is worse.",
        ),
        (
            make_metric(
                name="perplexity", higher_is_better=False, base=9.5, adapter=9.25, difference=-0.25, ci=(-0.7, 0.2), n=1
            ),
            "On 1 held-out row, the adapter has a perplexity of 9.25; the base model 9.50 (lower is better). "
            f"The difference, {MINUS}0.25, has a 95 % interval of [{MINUS}0.70, +0.20], which includes zero, "
            "so this run does not show which is better.",
        ),
        (
            make_metric(ci=(math.nan, math.nan)),
            "The adapter answers 31 of 36 held-out rows exactly; the base model 0 of 36. "
            "The difference has no 95 % interval, so this run does not show which is better.",
        ),
    ],
)
def test_the_verdict_is_one_plain_sentence(metric: MetricResult, want: str) -> None:
    assert verdict_sentence(make_evaluation(primary_metric=metric.name, metrics=[metric]), "adapter") == want


def test_a_whole_model_is_not_called_an_adapter() -> None:
    for name in ("exactMatch", "tokenF1", "perplexity"):
        sentence = verdict_sentence(make_evaluation(primary_metric=name), "model")
        assert "the tuned model" in sentence.lower()
        assert sentence.endswith("so the tuned model is better.")
        assert "adapter" not in sentence


def test_speed_and_memory_are_told_beside_what_was_foreseen_where_that_is_known() -> None:
    card = {"device": "NVIDIA H100", "steady_tokens_per_second": 455.05, "peak_memory_bytes": 3 * 2**29}
    on_card, on_cpu = make_training(layout=make_layout(), **card), make_training(layout=make_layout())
    assert speed(on_card) == "412.7 tokens/s over 2 min 31 s; 455.1 after warm-up; 430.0 were foreseen"
    assert memory(on_card) == "1.5 GiB at its peak; 1.4 GiB were foreseen"
    assert speed(on_cpu) == speed(make_training()) == "412.7 tokens/s over 2 min 31 s"
    assert memory(on_cpu) == ("2.0 GiB at its peak, libraries included; 1.4 GiB were foreseen for model and training")
    assert memory(make_training()) == "2.0 GiB at its peak, libraries included"


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, "Each pass took up to 8,192 tokens."),
        (
            {"expanded": True, "recomputed": 1},
            "Each pass took up to 8,192 tokens; the quantised base was kept dequantised; 1 layer was computed again in "
            "the backward pass to save memory.",
        ),
        (
            {"recomputed": 12},
            "Each pass took up to 8,192 tokens; 12 layers were computed again in the backward pass to save memory.",
        ),
    ],
)
def test_the_use_of_memory_is_one_sentence(changes: dict[str, Any], want: str) -> None:
    assert layout_sentence(make_layout(**changes)) == want


@pytest.mark.parametrize(
    ("higher", "ci", "want"),
    [
        (True, (0.1, 0.2), "better"),
        (False, (0.1, 0.2), "worse"),
        (True, (-0.2, -0.1), "worse"),
        (False, (-math.inf, -0.1), "better"),
        (True, (0.0, 0.2), "unclear"),
        (True, (math.nan, 0.2), "unclear"),
    ],
)
def test_an_interval_is_read_in_the_direction_of_its_metric(higher: bool, ci: tuple[float, float], want: str) -> None:
    assert reading(make_metric(higher_is_better=higher, ci=ci)) == want


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (count(1234567), "1,234,567"),
        (byte_size(0), "0 bytes"),
        (byte_size(1023), "1,023 bytes"),
        (byte_size(1024), "1.0 KiB"),
        (byte_size(13_841_203), "13.2 MiB"),
        (byte_size(80 * 1024**3), "80.0 GiB"),
        (byte_size(3 * 1024**5), "3,072.0 TiB"),
        (duration(0.84), "0.8 s"),
        (duration(59.6), "1 min 0 s"),
        (duration(151.2), "2 min 31 s"),
        (duration(29_100), "8 h 5 min"),
        (decimal(1234.56), "1,234.6"),
        (percent(0.875), "87.5 %"),
        (decimal(math.nan), "undefined"),
        (metric_value("perplexity", 3.14159), "3.14"),
        (metric_value("perplexity", math.inf), "∞"),
        (metric_value("tokenF1", 1.0), "100.0 %"),
        (metric_difference("exactMatch", -0.125), f"{MINUS}12.5"),
        (metric_difference("perplexity", math.inf), "+∞"),
        (metric_interval(make_metric(ci=(-0.5, 0.0))), f"[{MINUS}50.0, 0.0]"),
        (signed(0.03, 1), "+0.03"),
        (signed(-0.001, 2), f"{MINUS}0.001"),
        (signed(0.05, 1), "+0.1"),
        (moment("2026-11-23T00:30:00+01:00"), "22 November 2026, 23:30 UTC"),
        (moment("2026-11-03T08:05:00"), "3 November 2026, 08:05 UTC"),
    ],
)
def test_numbers_are_written_for_people(got: str, want: str) -> None:
    assert got == want
