"""The report of a run as one HTML page: no script, nothing fetched, legible on a phone, on a desk and on paper."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from finetune_api.report import LeftOut, Report, TrainingReport
from finetune_api.run import EvaluationOutcome, MetricResult, Verdict
from finetune_api.training import MetricName
from finetune_trainer.charts import MINUS, Mark, Part, Reading, Series, forest_row, line_chart, nice_ticks, stacked_bar
from finetune_trainer.scores import exact_match
from finetune_trainer.statistics import verdict

MOST_CHARACTERS = 1500
"""Characters of one text on the page."""
MOST_WARNINGS = 3
"""Warnings at the top of the page; where there are more, all of them are listed at its end."""

METRIC_LABELS: dict[MetricName, str] = {"exactMatch": "Exact match", "tokenF1": "Token F1", "perplexity": "Perplexity"}
QUANTIZATION_LABELS = {"nf4": "NF4 (4 bit)", "int8": "int8 (8 bit)", "none": "none"}
READING_LABELS: dict[Reading, str] = {"better": "better", "worse": "worse", "unclear": "no clear difference"}
VERDICT_SIGNS = {"Passed": "✓", "Inconclusive": "?", "Failed": "✕", "Not evaluated": "○"}
STAGES = ("prepare", "train", "evaluate", "publish")


def render_page(report: Report) -> str:
    """report.html of a finished run."""
    evaluation = report.outcome.evaluation
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            data=report.data,
            evaluation=evaluation,
            verdict=evaluation.verdict if evaluation else "Not evaluated",
            sentence=verdict_sentence(evaluation) if evaluation else report.outcome.message,
            comparison=comparison(evaluation) if evaluation else [],
            loss_chart=loss_chart(report.training),
            rate_chart=rate_chart(report.training),
            split_bar=split_bar(report),
            stage_bar=stage_bar(report.seconds),
            warnings=list(dict.fromkeys([*report.warnings, *report.data.warnings])),
        )
    )


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


def verdict_sentence(evaluation: EvaluationOutcome) -> str:
    """What the primary metric says, for somebody who reads one sentence."""
    metric = next(m for m in evaluation.metrics if m.name == evaluation.primary_metric)
    return f"{_scores(metric)} {_conclusion(metric)}"


def _scores(metric: MetricResult) -> str:
    rows = counted(metric.n, "held-out row")
    base, adapter = metric_value(metric.name, metric.base), metric_value(metric.name, metric.adapter)
    match metric.name:
        case "exactMatch":
            right, before = round(metric.adapter * metric.n), round(metric.base * metric.n)
            return f"The adapter answers {count(right)} of {rows} exactly; the base model {before:,} of {metric.n:,}."
        case "tokenF1":
            return (
                f"On {rows}, the adapter's answers overlap the reference answers by {adapter} (token F1); "
                f"the base model's by {base}."
            )
        case "perplexity":
            return f"On {rows}, the adapter has a perplexity of {adapter}; the base model {base} (lower is better)."


def _conclusion(metric: MetricResult) -> str:
    if any(map(math.isnan, metric.ci)):
        return "The difference has no 95 % interval, so this run does not show which is better."
    ends = {
        "better": ", so the adapter is better.",
        "worse": ", so the adapter is worse.",
        "unclear": ", which includes zero, so this run does not show which is better.",
    }
    unit = "" if metric.name == "perplexity" else " points"
    difference = f"{metric_difference(metric.name, metric.difference)}{unit}"
    return f"The difference, {difference}, has a 95 % interval of {metric_interval(metric)}{ends[reading(metric)]}"


@dataclass(frozen=True)
class Comparison:
    """One metric as a row of the comparison table."""

    metric: MetricResult
    label: str
    decides: bool
    reading: Reading
    plot: str
    """SVG."""


def comparison(evaluation: EvaluationOutcome) -> list[Comparison]:
    """Every metric, the one that decides first; metrics of one unit share the scale of their plots."""
    ordered = sorted(evaluation.metrics, key=lambda metric: metric.name != evaluation.primary_metric)
    return [
        Comparison(
            metric=metric,
            label=METRIC_LABELS[metric.name],
            decides=metric.name == evaluation.primary_metric,
            reading=reading(metric),
            plot=_plot(metric, [m for m in ordered if m.higher_is_better == metric.higher_is_better]),
        )
        for metric in ordered
    ]


def _plot(metric: MetricResult, alike: list[MetricResult]) -> str:
    widest = max((abs(bound) for m in alike for bound in m.ci if math.isfinite(bound)), default=0.0)
    low, high = metric.ci if metric.higher_is_better else (-metric.ci[1], -metric.ci[0])
    return forest_row(
        metric.difference if metric.higher_is_better else -metric.difference,
        (low, high),
        nice_ticks(0.0, widest, 4)[-1],
        reading(metric),
        f"{METRIC_LABELS[metric.name]}: difference {metric_difference(metric.name, metric.difference)}, "
        f"95 % interval {metric_interval(metric)}: {READING_LABELS[reading(metric)]}",
    )


def loss_chart(training: TrainingReport) -> str:
    """Training and validation loss over steps, with the step whose adapter was kept."""
    return line_chart(
        [
            Series("training", [(p.step, p.value) for p in training.train_loss], strong=False),
            Series("validation", [(p.step, p.value) for p in training.validation_loss]),
        ],
        title=f"Training and validation loss; the best validation loss is at step {count(training.best_step)}",
        x_label="step",
        y_label="nats per token",
        mark=Mark(training.best_step, f"best: step {count(training.best_step)}"),
    )


def rate_chart(training: TrainingReport) -> str:
    """Learning rate over steps."""
    points = [(p.step, p.value) for p in training.learning_rate]
    return line_chart([Series("learning rate", points)], title="Learning rate", x_label="step")


def split_bar(report: Report) -> str:
    """The splits by rows."""
    total = max(1, sum(split.rows for split in report.data.splits))
    return stacked_bar(
        [Part(s.name, s.rows, f"{counted(s.rows, 'row')}, {100 * s.rows / total:.0f} %") for s in report.data.splits],
        title="Rows by split: " + ", ".join(f"{s.name} {count(s.rows)}" for s in report.data.splits),
    )


def stage_bar(seconds: dict[str, float]) -> str:
    """Wall time by stage, in the order of the run."""
    ordered = sorted(seconds.items(), key=lambda item: STAGES.index(item[0]) if item[0] in STAGES else len(STAGES))
    return stacked_bar(
        [Part(stage, time, duration(time)) for stage, time in ordered],
        title="Wall time by stage: " + ", ".join(f"{stage} {duration(time)}" for stage, time in ordered),
    )


def row_numbers(left_out: LeftOut) -> str:
    """The row numbers that are known, and whether there are more."""
    return ", ".join(map(count, left_out.examples)) + (", …" if left_out.rows > len(left_out.examples) else "")


def excerpt(text: str) -> str:
    """The text, or its beginning and how much is missing."""
    more = len(text) - MOST_CHARACTERS
    return text if more <= 0 else f"{text[:MOST_CHARACTERS]}… ({count(more)} more characters in report.json)"


def tied(text: str) -> str:
    """Numbers tied to their units and intervals to themselves, so that no line ends between them."""
    return re.sub(r"(?<=\d) (?=(?:s|min|h|points|[KMGT]iB)\b|%)|(?<=,) (?=\S+\])", "\u00a0", text)


def labelled(entries: dict[str, str]) -> str:
    """Names and values in one line: torch 2.11.0, peft 0.21.2."""
    return ", ".join(f"{name} {value}" for name, value in entries.items())


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("finetune_trainer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    environment.globals |= {
        "exact_match": exact_match,
        "most_warnings": MOST_WARNINGS,
        "quantization_labels": QUANTIZATION_LABELS,
        "reading_labels": READING_LABELS,
        "verdict_signs": VERDICT_SIGNS,
    }
    return environment


_FILTERS: dict[str, Any] = {
    "people": count,
    "byte_size": byte_size,
    "counted": counted,
    "decimal": decimal,
    "duration": duration,
    "excerpt": excerpt,
    "labelled": labelled,
    "metric_difference": metric_difference,
    "metric_interval": metric_interval,
    "metric_value": metric_value,
    "moment": moment,
    "row_numbers": row_numbers,
    "tied": tied,
}
