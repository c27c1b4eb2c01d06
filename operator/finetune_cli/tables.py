"""Results and plans as tables for a terminal of 80 columns or more."""

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from finetune_api.job import FineTuneJob
from finetune_api.report import DataReport, Report, Sample
from finetune_api.run import EvaluationOutcome, Setting
from finetune_trainer.plan import Plan
from finetune_trainer.store import Store
from finetune_trainer.wording import (
    byte_size,
    count,
    counted,
    metric_difference,
    metric_interval,
    metric_value,
    verdict_sentence,
)

SAMPLES = 4
SAMPLE_LETTERS = 300
COLORS = {"Passed": "green", "Failed": "red", "Inconclusive": "yellow"}


def print_report(report: Report, store: Store) -> None:
    """Comparison, samples, and where everything is."""
    console = Console()
    if report.outcome.evaluation is not None:
        _print_comparison(console, report.outcome.evaluation)
    for sample in report.samples[:SAMPLES]:
        _print_sample(console, sample)
    _print_warnings(console, report.warnings)
    if report.outcome.adapter is not None:
        _print_line(console, f"Report:  {store.uri_of('report.html')}")
        _print_line(console, f'Try it:  finetune chat {report.outcome.adapter.uri} "…"')


def print_plan(job: FineTuneJob, settings: list[Setting], plan: Plan) -> None:
    """What a run would do."""
    console = Console()
    console.print(f"{job.metadata.namespace}/{job.metadata.name}", style="bold", highlight=False)
    _print_data(console, plan.data)
    facts = _facts()
    facts.add_row("steps", _steps(plan))
    facts.add_row(
        "parameters", f"{count(plan.shape.parameters)}, of which {count(plan.trained_parameters)} are trained"
    )
    facts.add_row("memory", _memory(plan))
    console.print(facts)
    table = _table("setting", "value", "from")
    table.columns[1].justify, table.columns[1].overflow, table.columns[1].no_wrap = "left", "fold", False
    table.columns[2].justify = "left"
    for setting in settings:
        source = setting.source.removeprefix("default: ")
        table.add_row(setting.path, setting.value, source, style="bold" if source == "manifest" else "")
    console.print(table)
    _print_warnings(console, plan.warnings)


def _print_comparison(console: Console, evaluation: EvaluationOutcome) -> None:
    rows, groups = evaluation.metrics[0].n, evaluation.metrics[0].groups
    among = f" in {counted(groups, 'independent group')}" if groups < rows else ""
    console.print(f"{counted(rows, 'held-out row')}{among}", highlight=False)
    table = _table("metric", "base", "adapter", "difference", "95 % interval")
    for metric in evaluation.metrics:
        table.add_row(
            metric.name,
            metric_value(metric.name, metric.base),
            metric_value(metric.name, metric.adapter),
            metric_difference(metric.name, metric.difference),
            metric_interval(metric),
        )
    console.print(table)
    verdict = (evaluation.verdict, f"bold {COLORS[evaluation.verdict]}")
    console.print(Text.assemble(verdict, ". ", verdict_sentence(evaluation)))
    console.print()


def _print_sample(console: Console, sample: Sample) -> None:
    """One held-out row: what was asked, what was wanted, what either answered."""
    console.print(Text(f"Row {count(sample.row)}", style="bold"), Text(_cut(sample.prompt)))
    answers = _facts()
    answers.add_row("reference", Text(_cut(sample.reference)))
    for name, answer in (("base", sample.base), ("adapter", sample.adapter)):
        style = "green" if answer == sample.reference else ""
        answers.add_row(name, Text(_cut(answer), style=style) if answer else Text("(nothing)", style="dim"))
    console.print(Padding(answers, (0, 0, 1, 2)))


def _print_warnings(console: Console, warnings: list[str]) -> None:
    for warning in warnings:
        console.print(Text.assemble(("Warning: ", "bold yellow"), warning))
    if warnings:
        console.print()


def _print_line(console: Console, line: str) -> None:
    """A line to copy: never broken, never coloured."""
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def _print_data(console: Console, data: DataReport) -> None:
    found = "detected" if data.detected else "as given"
    duplicates = f", {counted(data.duplicates, 'duplicate')} dropped" if data.duplicates else ""
    console.print(f"{counted(data.rows, 'row')}, format {data.format} ({found}){duplicates}", highlight=False)
    for left_out in data.left_out:
        examples = ", ".join(map(str, left_out.examples))
        console.print(Text(f"Left out: {counted(left_out.rows, 'row')} {left_out.reason}, for instance {examples}"))
    table = _table("split", "rows", "groups", "tokens", "supervised", "median", "p95", "longest")
    for split in data.splits:
        lengths = (split.lengths.median, split.lengths.p95, split.lengths.longest)
        table.add_row(
            split.name, *map(count, (split.rows, split.groups, split.tokens, split.supervised_tokens, *lengths))
        )
    console.print(table)


def _steps(plan: Plan) -> str:
    schedule = plan.schedule
    *others, last = map(str, sorted(schedule.validation_steps))
    which = f"steps {', '.join(others)} and {last}" if others else f"step {last}"
    return (
        f"{count(schedule.planned_steps)} ({schedule.steps_per_epoch} an epoch), at most {count(schedule.max_steps)}; "
        f"validation after {which} of each epoch"
    )


def _memory(plan: Plan) -> str:
    memory = plan.memory
    return (
        f"about {byte_size(memory.total)}: base {byte_size(memory.base)}, adapter and optimiser "
        f"{byte_size(memory.adapter)}, activations {byte_size(memory.activations)}, logits {byte_size(memory.logits)}"
    )


def _cut(text: str) -> str:
    """Text in one paragraph, of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= SAMPLE_LETTERS else f"{line[: SAMPLE_LETTERS - 1]}…"


def _facts() -> Table:
    """Names on the left, text of any length on the right."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _table(*headers: str) -> Table:
    """The first column left, numbers right; nothing in it is ever broken or cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, justify="right" if place else "left", no_wrap=True)
    return table
