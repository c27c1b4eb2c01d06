"""Base against adapter or tuned model as a table for a terminal of 80 columns or more."""

from rich.console import Console
from rich.text import Text

from finetune_api.run import EvaluationOutcome, Result
from finetune_cli.layout import table
from finetune_trainer.wording import (
    NOUNS,
    counted,
    metric_difference,
    metric_interval,
    metric_value,
    verdict_sentence,
)

COLORS = {"Passed": "green", "Failed": "red", "Inconclusive": "yellow"}


def print_comparison(console: Console, evaluation: EvaluationOutcome, result: Result) -> None:
    """Every metric with its interval, and the verdict on a result in a sentence."""
    rows, groups = evaluation.metrics[0].n, evaluation.metrics[0].groups
    among = f" in {counted(groups, 'independent group')}" if groups < rows else ""
    console.print(f"{counted(rows, 'held-out row')}{among}", highlight=False)
    metrics = table("metric", "base", NOUNS[result], "difference", "95 % interval")
    for metric in evaluation.metrics:
        metrics.add_row(
            metric.name,
            metric_value(metric.name, metric.base),
            metric_value(metric.name, metric.adapter),
            metric_difference(metric.name, metric.difference),
            metric_interval(metric),
        )
    console.print(metrics)
    verdict = (evaluation.verdict, f"bold {COLORS[evaluation.verdict]}")
    console.print(Text.assemble(verdict, ". ", verdict_sentence(evaluation, result)))
    console.print()
