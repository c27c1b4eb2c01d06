"""Figures and findings as people read them: pure functions from values to text."""

import math
from datetime import UTC, datetime

from finetune_api.report import DataReport, LayoutReport, TrainingReport
from finetune_api.run import EvaluationOutcome, MetricResult, Result, Verdict
from finetune_api.training import MetricName
from finetune_trainer.charts import MINUS, Reading
from finetune_trainer.statistics import verdict

NOUNS: dict[Result, str] = {"adapter": "adapter", "model": "tuned model"}
"""What a result is called beside the base model."""


def count(number: int) -> str:
    """1234567 as 1,234,567."""
    return f"{number:,}"


def counted(number: int, thing: str) -> str:
    """1 row, 1,234 rows."""
    return f"{count(number)} {thing}{'' if number == 1 else 's'}"


def byte_size(size: int) -> str:
    """Bytes in the largest binary unit that leaves at least 1: 13.2 MiB."""
    power = 0 if size < 1024 else min(4, int(math.log2(size) / 10))
    return f"{size:,} bytes" if power == 0 else f"{size / 1024**power:,.1f} {'KMGT'[power - 1]}iB"


def duration(seconds: float) -> str:
    """0.8 s, 31 s, 2 min 31 s, 8 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def decimal(number: float, digits: int = 1) -> str:
    """1234.56 as 1,234.6; what is no number is called undefined."""
    return f"{number:,.{digits}f}" if math.isfinite(number) else _not_finite(number)


def percent(fraction: float) -> str:
    """0.875 as 87.5 %."""
    return f"{decimal(100 * fraction)} %"


def _not_finite(number: float) -> str:
    return "undefined" if math.isnan(number) else "∞" if number > 0 else f"{MINUS}∞"


def moment(iso: str) -> str:
    """An ISO 8601 time, in UTC where it names no zone, as 23 November 2026, 14:02 UTC."""
    at = datetime.fromisoformat(iso)
    at = at.astimezone(UTC) if at.tzinfo else at
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def metric_value(metric: MetricName, value: float) -> str:
    """A value of a metric: a percentage, or a perplexity with two decimals."""
    return decimal(value, 2) if metric == "perplexity" else percent(value)


def metric_difference(metric: MetricName, value: float) -> str:
    """A difference with its sign: percentage points, or perplexity."""
    return signed(value, 2) if metric == "perplexity" else signed(100 * value, 1)


def metric_interval(metric: MetricResult) -> str:
    """The confidence interval as [+75.0, +100.0]."""
    low, high = (metric_difference(metric.name, bound) for bound in metric.ci)
    return f"[{low}, {high}]"


def signed(value: float, digits: int) -> str:
    """A number with its sign; one that would round to zero keeps one digit, so that it never passes for zero."""
    if not math.isfinite(value):
        return ("+" if value > 0 else "") + _not_finite(value)
    text = f"{value:+,.{digits}f}" if abs(value) >= 0.5 * 10**-digits else f"{value:+.1g}"
    return text.replace("-", MINUS, 1) if value else f"{0:.{digits}f}"


def reading(metric: MetricResult) -> Reading:
    """What the interval says, by the rule that the verdict follows."""
    readings: dict[Verdict, Reading] = {"Passed": "better", "Failed": "worse", "Inconclusive": "unclear"}
    return readings[verdict(metric)]


def prepared_sentence(data: DataReport, demand: int | None = None) -> str:
    """How many rows there are to work with, and what memory a card must have, bytes, where that is known."""
    rows = {split.name: count(split.rows) for split in data.splits}
    left_out = sum(left.rows for left in data.left_out)
    return (
        f"{counted(sum(split.rows for split in data.splits), 'row')} prepared: {rows['train']} for training, "
        f"{rows['validation']} for validation, {rows['test']} for the test; {count(left_out) if left_out else 'none'} "
        "left out." + (f" A card needs at least {byte_size(demand)}." if demand else "")
    )


def speed(training: TrainingReport) -> str:
    """Tokens a second, after warm-up and as foreseen where that is known; on a CPU nothing sound is foreseen."""
    found = f"{decimal(training.tokens_per_second)} tokens/s over {duration(training.seconds)}"
    if training.steady_tokens_per_second:
        found += f"; {decimal(training.steady_tokens_per_second)} after warm-up"
    if training.layout is not None and not on_cpu(training):
        found += f"; {decimal(training.layout.predicted_tokens_per_second)} were foreseen"
    return found


def memory(training: TrainingReport) -> str:
    """The peak, beside what was foreseen. A process on a CPU holds its libraries, too, which nobody foresees."""
    found = f"{byte_size(training.peak_memory_bytes)} at its peak{', libraries included' if on_cpu(training) else ''}"
    if training.layout is None:
        return found
    what = " for model and training" if on_cpu(training) else ""
    return f"{found}; {byte_size(training.layout.predicted_memory_bytes)} were foreseen{what}"


def on_cpu(training: TrainingReport) -> bool:
    """Whether a run had no accelerator."""
    return training.device.startswith("CPU")


def layout_sentence(layout: LayoutReport) -> str:
    """How the memory was used."""
    parts = [f"Each pass took up to {counted(layout.pass_tokens, 'token')}"]
    if layout.expanded:
        parts.append("the quantised base was kept dequantised")
    if layout.recomputed:
        were = "was" if layout.recomputed == 1 else "were"
        again = f"{counted(layout.recomputed, 'layer')} {were} computed again"
        parts.append(f"{again} in the backward pass to save memory")
    return f"{'; '.join(parts)}."


def verdict_sentence(evaluation: EvaluationOutcome, result: Result) -> str:
    """What the primary metric says of a result, for somebody who reads one sentence."""
    metric = next(m for m in evaluation.metrics if m.name == evaluation.primary_metric)
    return f"{_scores(metric, NOUNS[result])} {_conclusion(metric, NOUNS[result])}"


def _scores(metric: MetricResult, noun: str) -> str:
    rows = counted(metric.n, "held-out row")
    base, adapter = metric_value(metric.name, metric.base), metric_value(metric.name, metric.adapter)
    match metric.name:
        case "exactMatch":
            right, before = round(metric.adapter * metric.n), round(metric.base * metric.n)
            return f"The {noun} answers {count(right)} of {rows} exactly; the base model {before:,} of {metric.n:,}."
        case "tokenF1":
            return (
                f"On {rows}, the {noun}'s answers overlap the reference answers by {adapter} (token F1); "
                f"the base model's by {base}."
            )
        case "perplexity":
            return f"On {rows}, the {noun} has a perplexity of {adapter}; the base model {base} (lower is better)."


def _conclusion(metric: MetricResult, noun: str) -> str:
    if any(map(math.isnan, metric.ci)):
        return "The difference has no 95 % interval, so this run does not show which is better."
    ends = {
        "better": f", so the {noun} is better.",
        "worse": f", so the {noun} is worse.",
        "unclear": ", which includes zero, so this run does not show which is better.",
    }
    unit = "" if metric.name == "perplexity" else " points"
    difference = f"{metric_difference(metric.name, metric.difference)}{unit}"
    return f"The difference, {difference}, has a 95 % interval of {metric_interval(metric)}{ends[reading(metric)]}"
