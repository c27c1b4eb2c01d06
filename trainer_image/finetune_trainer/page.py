"""The report of a run as one HTML page: no script, nothing fetched, legible on a phone, on a desk and on paper."""

import math
import re
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from finetune_api.methods import Method
from finetune_api.report import LeftOut, Report, TrainingReport
from finetune_api.run import EvaluationOutcome, MetricResult, result_of
from finetune_api.training import MetricName
from finetune_trainer.charts import Mark, Part, Reading, Series, forest_row, line_chart, nice_ticks, stacked_bar
from finetune_trainer.scores import exact_match
from finetune_trainer.wording import (
    NOUNS,
    byte_size,
    count,
    counted,
    decimal,
    duration,
    layout_sentence,
    memory,
    metric_difference,
    metric_interval,
    metric_value,
    moment,
    reading,
    speed,
    verdict_sentence,
)

MOST_CHARACTERS = 1500
"""Characters of one text on the page."""
MOST_WARNINGS = 3
"""Warnings at the top of the page; where there are more, all of them are listed at its end."""

METRIC_LABELS: dict[MetricName, str] = {"exactMatch": "Exact match", "tokenF1": "Token F1", "perplexity": "Perplexity"}
METHOD_LABELS: dict[Method, str] = {
    "lora": "LoRA adapter",
    "full": "full fine-tuning, every weight",
    "prefix": "prefix",
    "bottleneck": "bottleneck adapters",
}
QUANTIZATION_LABELS = {"nf4": "NF4 (4 bit)", "int8": "int8 (8 bit)", "none": "none"}
READING_LABELS: dict[Reading, str] = {"better": "better", "worse": "worse", "unclear": "no clear difference"}
VERDICT_SIGNS = {"Passed": "✓", "Inconclusive": "?", "Failed": "✕", "Not evaluated": "○"}
STAGES = ("prepare", "train", "evaluate", "publish")


def render_page(report: Report) -> str:
    """report.html of a finished run."""
    evaluation = report.outcome.evaluation
    result = result_of(report.model.method)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            noun=NOUNS[result],
            data=report.data,
            evaluation=evaluation,
            verdict=evaluation.verdict if evaluation else "Not evaluated",
            sentence=verdict_sentence(evaluation, result) if evaluation else report.outcome.message,
            comparison=comparison(evaluation) if evaluation else [],
            loss_chart=loss_chart(report.training),
            rate_chart=rate_chart(report.training),
            split_bar=split_bar(report),
            stage_bar=stage_bar(report.seconds),
            warnings=list(dict.fromkeys([*report.warnings, *report.data.warnings])),
        )
    )


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
    """Training and validation loss over steps, with the step whose weights were kept."""
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
        "method_labels": METHOD_LABELS,
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
    "layout_sentence": layout_sentence,
    "memory": memory,
    "metric_difference": metric_difference,
    "metric_interval": metric_interval,
    "metric_value": metric_value,
    "moment": moment,
    "row_numbers": row_numbers,
    "speed": speed,
    "tied": tied,
}
