"""Results and plans as tables for a terminal of 80 columns or more."""

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from finetune_api.job import FineTuneJob
from finetune_api.layout import Layout
from finetune_api.report import DataReport, Report, Sample, TrainingReport
from finetune_api.run import Setting, result_of
from finetune_api.speed import Forecast
from finetune_cli.comparison import print_comparison
from finetune_cli.layout import facts, print_line, print_settings, table
from finetune_trainer.plan import Plan
from finetune_trainer.store import Store
from finetune_trainer.wording import NOUNS, byte_size, count, counted, duration, layout_sentence, memory, speed

SAMPLES = 4
SAMPLE_LETTERS = 300


def print_report(report: Report, store: Store) -> None:
    """Comparison, samples, how it went, and where everything is."""
    console, result = Console(), result_of(report.model.method)
    if report.outcome.evaluation is not None:
        print_comparison(console, report.outcome.evaluation, result)
    for sample in report.samples[:SAMPLES]:
        _print_sample(console, sample, NOUNS[result])
    _print_warnings(console, report.warnings)
    _print_training(console, report.training)
    if report.outcome.adapter is not None:
        print_line(console, f"Report:  {store.uri_of('report.html')}")
        print_line(console, f'Try it:  finetune chat {report.outcome.adapter.uri} "…"')
        if report.outcome.adapter.merged_uri is not None:
            print_line(console, f"Merged:  {report.outcome.adapter.merged_uri}")


def print_plan(job: FineTuneJob, settings: list[Setting], plan: Plan) -> None:
    """What a run would do."""
    console = Console()
    console.print(f"{job.metadata.namespace}/{job.metadata.name}", style="bold", highlight=False)
    _print_data(console, plan.data)
    about = facts()
    about.add_row("steps", _steps(plan))
    about.add_row(
        "parameters", f"{count(plan.shape.parameters)}, of which {count(plan.trained_parameters)} are trained"
    )
    about.add_row("here", _forecast(plan.here, plan))
    console.print(about)
    console.print(_cards(plan))
    print_settings(console, settings)
    _print_warnings(console, plan.warnings)


def _print_training(console: Console, training: TrainingReport) -> None:
    """What training took of the machine."""
    took = facts()
    took.add_row("speed", speed(training))
    took.add_row("memory", memory(training))
    if training.layout is not None:
        took.add_row("", layout_sentence(training.layout))
    console.print(Padding(took, (0, 0, 1, 0)))


def _print_sample(console: Console, sample: Sample, noun: str) -> None:
    """One held-out row: what was asked, what was wanted, what either answered."""
    console.print(Text(f"Row {count(sample.row)}", style="bold"), Text(_cut(sample.prompt)))
    answers = facts()
    answers.add_row("reference", Text(_cut(sample.reference)))
    for name, answer in (("base", sample.base), (noun, sample.adapter)):
        style = "green" if answer == sample.reference else ""
        answers.add_row(name, Text(_cut(answer), style=style) if answer else Text("(nothing)", style="dim"))
    console.print(Padding(answers, (0, 0, 1, 2)))


def _print_warnings(console: Console, warnings: list[str]) -> None:
    for warning in warnings:
        console.print(Text.assemble(("Warning: ", "bold yellow"), warning))
    if warnings:
        console.print()


def _print_data(console: Console, data: DataReport) -> None:
    found = "detected" if data.detected else "as given"
    duplicates = f", {counted(data.duplicates, 'duplicate')} dropped" if data.duplicates else ""
    console.print(f"{counted(data.rows, 'row')}, format {data.format} ({found}){duplicates}", highlight=False)
    for left_out in data.left_out:
        examples = ", ".join(map(str, left_out.examples))
        console.print(Text(f"Left out: {counted(left_out.rows, 'row')} {left_out.reason}, for instance {examples}"))
    splits = table("split", "rows", "groups", "tokens", "supervised", "median", "p95", "longest")
    for split in data.splits:
        lengths = (split.lengths.median, split.lengths.p95, split.lengths.longest)
        splits.add_row(
            split.name, *map(count, (split.rows, split.groups, split.tokens, split.supervised_tokens, *lengths))
        )
    console.print(splits)


def _steps(plan: Plan) -> str:
    schedule = plan.schedule
    *others, last = map(str, sorted(schedule.validation_steps))
    which = f"steps {', '.join(others)} and {last}" if others else f"step {last}"
    return (
        f"{count(schedule.planned_steps)} ({schedule.steps_per_epoch} an epoch), at most {count(schedule.max_steps)}; "
        f"validation after {which} of each epoch"
    )


def _forecast(found: Forecast | None, plan: Plan) -> str:
    """What training takes on this machine."""
    if found is None:
        return "too large for the memory of this machine"
    memory = found.memory
    return (
        f"{found.card.name}: about {byte_size(memory.total)}, of which base {byte_size(memory.base)}, trained "
        f"{byte_size(memory.trained)}, activations {byte_size(memory.activations)}; {_layout(found.layout, plan)}"
    )


def _cards(plan: Plan) -> Table:
    """What training takes on accelerators that there are."""
    rows = table("accelerator", "memory needed", "tokens a second", f"{plan.schedule.planned_steps} steps take")
    for card, found in plan.cards:
        if found is None:
            rows.add_row(card.name, "more than it has", "", "")
            continue
        seconds = found.step_seconds * plan.schedule.planned_steps
        rows.add_row(card.name, byte_size(found.memory.total), count(round(found.tokens_per_second)), duration(seconds))
    return rows


def _layout(layout: Layout, plan: Plan) -> str:
    """A layout in a few words."""
    again = f"{layout.recomputed} of {plan.shape.layers} layers twice" if layout.recomputed else ""
    expanded = "dequantised once" if layout.expanded else ""
    return ", ".join(filter(None, (f"passes of {count(layout.pass_tokens)} tokens", again, expanded)))


def _cut(text: str) -> str:
    """Text in one paragraph, of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= SAMPLE_LETTERS else f"{line[: SAMPLE_LETTERS - 1]}…"
