"""Results and plans as tables for a terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from finetune_api.job import FineTuneJob
from finetune_api.report import DataReport, Report
from finetune_api.run import Setting
from finetune_trainer.page import byte_size, count, metric_difference, metric_interval, metric_value, verdict_sentence
from finetune_trainer.plan import Plan
from finetune_trainer.store import Store

SAMPLES = 4
COLORS = {"Passed": "green", "Failed": "red", "Inconclusive": "yellow"}


def print_report(report: Report, store: Store) -> None:
    """Comparison, samples, and where everything is."""
    console = Console()
    evaluation = report.outcome.evaluation
    if evaluation is not None:
        table = _table("held-out test rows", "base", "adapter", "difference", "95 % interval", "rows", "groups")
        for metric in evaluation.metrics:
            table.add_row(
                metric.name,
                metric_value(metric.name, metric.base),
                metric_value(metric.name, metric.adapter),
                metric_difference(metric.name, metric.difference),
                metric_interval(metric),
                str(metric.n),
                str(metric.groups),
            )
        console.print(table)
        console.print(Text(evaluation.verdict, style=f"bold {COLORS[evaluation.verdict]}"), end=": ")
        console.print(Text(verdict_sentence(evaluation)))
    _print_samples(console, report)
    for warning in report.warnings:
        console.print(Text(f"Warning: {warning}", style="yellow"))
    if report.outcome.adapter is not None:
        console.print()
        console.print(f"Report:  {store.uri_of('report.html')}", soft_wrap=True, highlight=False)
        console.print(f"Try it:  finetune chat {report.outcome.adapter.uri} \"…\"", soft_wrap=True, highlight=False)


def print_plan(job: FineTuneJob, settings: list[Setting], plan: Plan) -> None:
    """What a run would do."""
    console = Console()
    console.print(f"{job.metadata.namespace}/{job.metadata.name}", style="bold", highlight=False)
    _print_data(console, plan.data)
    schedule, memory = plan.schedule, plan.memory
    console.print(
        f"{schedule.planned_steps} optimiser steps ({schedule.steps_per_epoch} per epoch), at most {schedule.max_steps}; "
        f"validation after steps {', '.join(map(str, sorted(schedule.validation_steps)))} of each epoch."
    )
    console.print(
        f"{count(plan.shape.parameters)} parameters, {count(plan.trained_parameters)} of them trained. "
        f"Memory, estimated: {byte_size(memory.total)} (base {byte_size(memory.base)}, adapter and optimiser "
        f"{byte_size(memory.adapter)}, activations {byte_size(memory.activations)}, logits {byte_size(memory.logits)})."
    )
    table = _table("setting", "value", "from")
    for setting in settings:
        style = "bold" if setting.source == "manifest" else ""
        table.add_row(setting.path, setting.value, setting.source, style=style)
    console.print(table)
    for warning in plan.warnings:
        console.print(Text(f"Warning: {warning}", style="yellow"))


def _print_data(console: Console, data: DataReport) -> None:
    found = "detected" if data.detected else "as given"
    console.print(f"{count(data.rows)} rows, format {data.format} ({found}), {count(data.duplicates)} duplicates dropped.")
    table = _table("split", "rows", "groups", "tokens", "supervised", "median", "p95", "longest")
    for split in data.splits:
        lengths = (split.lengths.median, split.lengths.p95, split.lengths.longest)
        table.add_row(split.name, *map(count, (split.rows, split.groups, split.tokens, split.supervised_tokens, *lengths)))
    console.print(table)
    for left_out in data.left_out:
        console.print(f"Left out: {count(left_out.rows)} rows {left_out.reason}, for instance {left_out.examples}.")


def _print_samples(console: Console, report: Report) -> None:
    table = _table("prompt", "reference", "base", "adapter")
    for column in table.columns:
        column.justify, column.overflow, column.ratio = "left", "fold", 1
    table.show_lines = True
    for sample in report.samples[:SAMPLES]:
        right = "green" if sample.adapter == sample.reference else ""
        texts = (sample.prompt, sample.reference, sample.base)
        table.add_row(*(Text(_cut(text)) for text in texts), Text(_cut(sample.adapter), style=right))
    if report.samples:
        console.print(table)


def _cut(text: str, longest: int = 240) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _table(*headers: str) -> Table:
    """Numbers right, the first column left."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, justify="left" if place == 0 or headers[0] == "setting" else "right")
    return table
