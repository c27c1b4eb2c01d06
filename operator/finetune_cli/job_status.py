"""`status`: how a job stands, for a terminal of 80 columns."""

from datetime import datetime

from rich.console import Console
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from finetune_api.run import Progress
from finetune_api.status import FailureStatus, FineTuneJobStatus, PastRun, Phase, RunStatus, Trigger
from finetune_cli.cluster import LiveJob
from finetune_cli.comparison import print_comparison
from finetune_cli.layout import facts, table
from finetune_cli.live import counts
from finetune_cli.live import duration as clock
from finetune_cli.live import facts as figures
from finetune_trainer.wording import duration

PHASE_COLORS: dict[Phase, str] = {"Succeeded": "green", "Rejected": "yellow", "Failed": "red", "Suspended": "magenta"}
TRIGGERS: dict[Trigger, str] = {
    "Created": "the job is new",
    "SpecChanged": "the manifest changed",
    "Schedule": "its schedule came due",
    "DatasetChanged": "the data changed",
    "Requested": "it was asked for",
}
GOOD = {"Stalled": "False"}
"""Conditions that are good when they are not true."""
BAR_COLUMNS = 24
DAY = 86_400
"""Seconds."""
UNSEEN = "The operator has not looked at this job yet. If that lasts, see whether it runs."
OUTDATED = "The manifest has changed since; this is how the one before stood."


def print_status(console: Console, live: LiveJob, now: datetime) -> None:
    """Everything worth knowing about a job."""
    job, status = live.job, live.status
    phase = status.phase or "Pending"
    head = (f"{job.metadata.namespace}/{job.metadata.name}", "bold")
    console.print(Text.assemble(head, "  ", (phase, f"bold {PHASE_COLORS.get(phase, 'cyan')}")))
    console.print(Text(status.message or UNSEEN))
    if status.phase is not None and status.observed_generation != live.generation:
        console.print(Text(OUTDATED, style="yellow"))
    console.print()
    console.print(_summary(status, now))
    if status.failure is not None:
        _print_failure(console, status.failure, now)
    if status.evaluation is not None:
        console.print()
        print_comparison(console, status.evaluation)
    if status.conditions:
        console.print(_conditions(status, now))
    if status.history:
        console.print(_history(status.history, now))


def _summary(status: FineTuneJobStatus, now: datetime) -> Table:
    """The run, how far it is, and what is in use."""
    rows = facts()
    if status.run is not None:
        rows.add_row("run", _run(status.run, now))
    if status.progress is not None and (status.run is None or status.run.outcome is None):
        rows.add_row(status.progress.stage, _bar(status.progress))
        rows.add_row("", Text(figures(status.progress), overflow="fold"))
    if status.adapter is not None:
        rows.add_row("adapter", Text(status.adapter.uri))
    if status.current is not None:
        rows.add_row("in use", Text(f"{status.current.run_id}\n{status.current.uri}"))
    else:
        rows.add_row("in use", "no adapter yet")
    if status.retrain is not None and status.retrain.next_schedule_time is not None:
        rows.add_row("next run", f"{moment(status.retrain.next_schedule_time)}, by the schedule")
    if status.retrain is not None and status.retrain.check_message is not None:
        rows.add_row("data", Text(f"The last look at it failed: {status.retrain.check_message}"))
    return rows


def _run(run: RunStatus, now: datetime) -> str:
    name = run.id or "not named before its data is read"
    reason = f", because {TRIGGERS[run.trigger]}" if run.trigger else ""
    began = f"started {ago(run.started_at, now)}{reason}" if run.started_at else ""
    ended = f"ended {ago(run.finished_at, now)}" if run.finished_at else ""
    return "\n".join(line for line in (f"{name}, attempt {run.attempt}", began, ended) if line)


def _bar(progress: Progress) -> Table:
    """Bar, steps done of all, percentage."""
    line = Table.grid(padding=(0, 2))
    share = f"{100 * progress.step // progress.total_steps} %" if progress.total_steps else ""
    bar = ProgressBar(total=progress.total_steps or None, completed=progress.step, width=BAR_COLUMNS, pulse=False)
    line.add_row(bar, counts(progress), share, progress.message or "")
    return line


def _print_failure(console: Console, failure: FailureStatus, now: datetime) -> None:
    code = f", exit code {failure.exit_code}" if failure.exit_code is not None else ""
    console.print()
    console.print(Text.assemble((f"{failure.reason}{code}. ", "bold red"), failure.message))
    console.print(Text(_what_follows(failure, now)))
    if failure.log:
        console.print(Padding(Text("\n".join(failure.log), style="dim"), (0, 0, 0, 2)))


def _what_follows(failure: FailureStatus, now: datetime) -> str:
    if not failure.will_retry:
        return "It is not tried again by itself."
    if failure.retry_at is None or failure.retry_at <= now:
        return "It is tried again."
    return f"It is tried again in {clock((failure.retry_at - now).total_seconds())}."


def _conditions(status: FineTuneJobStatus, now: datetime) -> Table:
    rows = table("condition", "", "since", "reason")
    for column in rows.columns[1:]:
        column.justify = "left"
    for condition in status.conditions:
        good = condition.status == GOOD.get(condition.type, "True")
        color = "green" if good else "red" if condition.type == "Stalled" else "dim"
        held = Text({"True": "yes", "False": "no", "Unknown": "not yet"}[condition.status], style=color)
        rows.add_row(condition.type, held, ago(condition.last_transition_time, now), condition.reason)
    return rows


def _history(history: list[PastRun], now: datetime) -> Table:
    rows = table("earlier run", "result", "ended", "because")
    for column in rows.columns[1:]:
        column.justify = "left"
    for run in history:
        ended = ago(run.finished_at, now) if run.finished_at else ""
        reason = TRIGGERS[run.trigger] if run.trigger else ""
        rows.add_row(run.id or "not named", run.outcome or "replaced by another", ended, reason)
    return rows


def ago(time: datetime, now: datetime) -> str:
    """31 s ago, 2 h 5 min ago, 3 days ago."""
    seconds = max(0, int((now - time).total_seconds()))
    return f"{seconds // DAY} days ago" if seconds >= 2 * DAY else f"{duration(seconds)} ago"


def moment(time: datetime) -> str:
    """2026-11-29 02:00 UTC."""
    return f"{time:%Y-%m-%d %H:%M} UTC"
