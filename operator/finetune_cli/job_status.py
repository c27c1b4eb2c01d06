"""`status`: how a job stands, for a terminal of 80 columns."""

from collections.abc import Iterator
from datetime import datetime

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from finetune_api.run import Progress, result_at
from finetune_api.status import FailureStatus, FineTuneJobStatus, Phase, RunStatus, Trigger
from finetune_cli.cluster import LiveJob
from finetune_cli.comparison import print_comparison
from finetune_cli.layout import print_line, text_table
from finetune_cli.live import counts
from finetune_cli.live import duration as clock
from finetune_cli.live import facts as figures
from finetune_trainer.wording import duration

COLORS: dict[Phase, str] = {"Succeeded": "green", "Rejected": "yellow", "Failed": "red", "Suspended": "magenta"}
TRIGGERS: dict[Trigger, str] = {
    "Created": "the job is new",
    "SpecChanged": "the manifest changed",
    "Schedule": "its schedule came due",
    "DatasetChanged": "the data changed",
    "Requested": "it was asked for",
}
HELD = {"True": "yes", "False": "no", "Unknown": "not yet"}
BAR_COLUMNS = 24
DAY = 86_400
"""Seconds."""
UNSEEN = "The operator has not looked at this job yet. If that lasts, see whether the operator runs."
OUTDATED = "The manifest has changed since; this is how the one before stood."


def print_status(console: Console, live: LiveJob, now: datetime) -> None:
    """Everything worth knowing about a job."""
    status = live.status
    _print_head(console, live)
    for name, text in _facts(status, now):
        print_line(console, f"{name:<8}  {text}")
    if status.progress is not None and (status.run is None or status.run.outcome is None):
        _print_progress(console, status.progress)
    if status.failure is not None:
        _print_failure(console, status.failure, status.message or "", now)
    console.print()
    if status.evaluation is not None:
        print_comparison(console, status.evaluation, result_at(status.adapter.uri) if status.adapter else "adapter")
    if status.conditions:
        console.print(_conditions(status, now), "", sep="\n")
    if status.history:
        console.print(_history(status, now), "", sep="\n")


def _print_head(console: Console, live: LiveJob) -> None:
    job, status = live.job, live.status
    phase = status.phase or "Pending"
    name = (f"{job.metadata.namespace}/{job.metadata.name}", "bold")
    console.print(Text.assemble(name, "  ", (phase, f"bold {COLORS.get(phase, 'cyan')}")))
    console.print(Text(status.message or UNSEEN))
    if status.phase is not None and status.observed_generation != live.generation:
        console.print(Text(OUTDATED, style="yellow"))
    console.print()


def _facts(status: FineTuneJobStatus, now: datetime) -> Iterator[tuple[str, str]]:
    """The run, what it made, what is in use, what comes next."""
    if status.run is not None:
        yield "run", f"{status.run.id or 'not named before its data is read'}, attempt {status.run.attempt}"
        yield from (("", line) for line in _times(status.run, now))
        if status.run.data is not None:
            yield "data", status.run.data
    in_use = status.current
    if status.adapter is not None and (in_use is None or in_use.uri != status.adapter.uri):
        yield result_at(status.adapter.uri), status.adapter.uri
    yield "in use", f"the {result_at(in_use.uri)} of run {in_use.run_id}" if in_use else "nothing yet"
    if in_use is not None:
        yield "", in_use.uri
    retrain = status.retrain
    if retrain is not None and retrain.next_schedule_time is not None:
        yield "next run", f"{moment(retrain.next_schedule_time)}, by the schedule"
    if retrain is not None and retrain.check_message is not None:
        yield "data", f"The last look at it failed: {retrain.check_message}"


def _times(run: RunStatus, now: datetime) -> Iterator[str]:
    if run.started_at is not None:
        reason = f", because {TRIGGERS[run.trigger]}" if run.trigger else ""
        yield f"started {span(run.started_at, now)} ago{reason}"
    if run.finished_at is not None:
        took = f", after {span(run.started_at, run.finished_at)}" if run.started_at else ""
        yield f"ended {span(run.finished_at, now)} ago{took}"


def _print_progress(console: Console, progress: Progress) -> None:
    """Bar, steps done of all, percentage; then the figures that fit into a line."""
    line = Table.grid(padding=(0, 2))
    line.add_column(width=8)
    bar = ProgressBar(total=progress.total_steps or None, completed=progress.step, width=BAR_COLUMNS, pulse=False)
    share = f"{100 * progress.step // progress.total_steps} %" if progress.total_steps else ""
    line.add_row(progress.stage, bar, counts(progress), share, progress.message or "")
    console.print(line)
    if figures(progress):
        print_line(console, f"{'':<8}  {figures(progress)}")


def _print_failure(console: Console, failure: FailureStatus, told: str, now: datetime) -> None:
    """The latest failure and what follows; its sentence only where the head has not told it."""
    code = f", exit code {failure.exit_code}" if failure.exit_code is not None else ""
    sentence = "" if told.startswith(failure.message) else f"{failure.message} "
    console.print()
    console.print(Text.assemble((f"{failure.reason}{code}. ", "bold red"), sentence, _what_follows(failure, now)))
    for line in failure.log:
        print_line(console, f"  {line}")


def _what_follows(failure: FailureStatus, now: datetime) -> str:
    if not failure.will_retry:
        return "It is not tried again by itself."
    if failure.retry_at is None or failure.retry_at <= now:
        return "It is tried again."
    return f"It is tried again in {clock((failure.retry_at - now).total_seconds())}."


def _conditions(status: FineTuneJobStatus, now: datetime) -> Table:
    rows = text_table("condition", "", "for", "reason")
    for condition in status.conditions:
        good = condition.status == ("False" if condition.type == "Stalled" else "True")
        color = "green" if good else "red" if condition.type == "Stalled" else "dim"
        held = Text(HELD[condition.status], style=color)
        rows.add_row(condition.type, held, span(condition.last_transition_time, now), condition.reason)
    return rows


def _history(status: FineTuneJobStatus, now: datetime) -> Table:
    rows = text_table("earlier run", "result", "ended", "because")
    for run in status.history:
        ended = f"{span(run.finished_at, now)} ago" if run.finished_at else ""
        reason = TRIGGERS[run.trigger] if run.trigger else ""
        rows.add_row(run.id or "not named", run.outcome or "replaced by another", ended, reason)
    return rows


def span(start: datetime, end: datetime) -> str:
    """31 s, 2 h 5 min, 3 days."""
    seconds = max(0, int((end - start).total_seconds()))
    return f"{seconds // DAY} days" if seconds >= 2 * DAY else duration(seconds)


def moment(time: datetime) -> str:
    """2026-11-29 02:00 UTC."""
    return f"{time:%Y-%m-%d %H:%M} UTC"
