"""`plan`: whether a run would start and why, with which settings, and what its pods would ask for."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from finetune_api.identity import spec_digest
from finetune_api.job import FineTuneJob, FineTuneJobSpec
from finetune_api.settings import settings_of
from finetune_api.status import RetrainStatus, RunStatus
from finetune_cli.cluster import LiveJob
from finetune_cli.job_status import moment
from finetune_cli.layout import print_line, print_settings, text_table
from finetune_trainer.wording import duration


@dataclass(frozen=True)
class Forecast:
    """What the operator will do, and why, in a sentence."""

    starts: bool
    sentence: str


def print_job_plan(console: Console, live: LiveJob, now: datetime) -> None:
    """The plan of a job as the cluster has it."""
    spec = live.job.spec
    _print_forecast(console, live.job, foresee(live, spec, now))
    for name, text in _facts(live, spec):
        print_line(console, f"{name:<9}  {text}")
    console.print("", _pods(spec), sep="\n")
    print_settings(console, settings_of(spec))


def print_change(console: Console, live: LiveJob | None, wanted: FineTuneJob, now: datetime) -> None:
    """What applying another manifest would do."""
    if live is None:
        _print_forecast(console, wanted, Forecast(True, "The job is new: applying it starts its first run."))
        console.print(_pods(wanted.spec))
        print_settings(console, settings_of(wanted.spec))
        return
    _print_forecast(console, wanted, foresee(live, wanted.spec, now))
    changes = changed_settings(live.job.spec, wanted.spec)
    if changes:
        rows = text_table("setting", "now", "then")
        for column in rows.columns[1:]:
            column.overflow, column.no_wrap = "fold", False
        for path, before, after in changes:
            rows.add_row(path, before, after)
        console.print(rows, "", sep="\n")
    console.print(_pods(wanted.spec))


def foresee(live: LiveJob, spec: FineTuneJobSpec, now: datetime) -> Forecast:
    """What follows for a job if its spec is this one."""
    if live.deleted:
        return Forecast(False, "Nothing starts: the job is being deleted.")
    if spec.output.uri.startswith("file://"):
        return Forecast(False, "Nothing starts: a file:// output is a folder inside the pod. Use pvc:// or a bucket.")
    expected = _without_suspension(live, spec, now)
    if not spec.suspend:
        return expected
    later = f" Once it is false, {expected.sentence[0].lower()}{expected.sentence[1:]}" if expected.starts else ""
    return Forecast(False, f"Nothing starts while spec.suspend is true.{later}")


def _without_suspension(live: LiveJob, spec: FineTuneJobSpec, now: datetime) -> Forecast:
    run = live.status.run
    if run is None:
        return Forecast(True, "A run starts: the job is new.")
    if run.spec_digest != spec_digest(spec):
        replaced = f" It takes the place of {_named(run)}, which goes on." if run.outcome is None else ""
        return Forecast(True, f"A run starts: the manifest asks for another result than the latest run did.{replaced}")
    if run.outcome is None:
        return Forecast(False, f"Nothing new starts: {_named(run)} is of this manifest and goes on.")
    reason = _own_reason(live, spec, now)
    if reason:
        return Forecast(True, f"A run starts: {reason}.")
    return Forecast(False, f"Nothing starts: {_named(run)} is of this manifest and has ended ({run.outcome}).")


def _own_reason(live: LiveJob, spec: FineTuneJobSpec, now: datetime) -> str | None:
    """Why a job whose manifest has not changed runs again."""
    retrain = live.status.retrain or RetrainStatus()
    if live.requested and live.requested != retrain.handled_request:
        return "the annotation finetuning.dev/requested-at asks for it"
    due = retrain.next_schedule_time
    return "its schedule has come due" if spec.retrain.schedule and due and due <= now else None


def _named(run: RunStatus) -> str:
    return f"run {run.id}" if run.id else "the latest run"


def changed_settings(before: FineTuneJobSpec, after: FineTuneJobSpec) -> list[tuple[str, str, str]]:
    """Settings that decide the result and differ: path, value now, value then."""
    pairs = zip(settings_of(before), settings_of(after), strict=True)
    return [(old.path, old.value, new.value) for old, new in pairs if old.value != new.value]


def _print_forecast(console: Console, job: FineTuneJob, forecast: Forecast) -> None:
    console.print(Text(f"{job.metadata.namespace}/{job.metadata.name}", style="bold"))
    console.print(Text(forecast.sentence, style="yellow" if forecast.starts else ""))
    console.print()


def _facts(live: LiveJob, spec: FineTuneJobSpec) -> Iterator[tuple[str, str]]:
    """Digest, destination, and what makes it run by itself."""
    yield "manifest", spec_digest(spec)
    latest = live.status.run.spec_digest if live.status.run else None
    if latest is not None and latest != spec_digest(spec):
        yield "last run", latest
    yield "results", f"{spec.output.uri.rstrip('/')}/{live.job.metadata.namespace}/{live.job.metadata.name}/"
    yield from _triggers(live, spec)


def _triggers(live: LiveJob, spec: FineTuneJobSpec) -> Iterator[tuple[str, str]]:
    retrain, remembered = spec.retrain, live.status.retrain or RetrainStatus()
    if retrain.schedule is not None:
        due = remembered.next_schedule_time
        yield "schedule", f"{retrain.schedule} ({retrain.time_zone}){f', next {moment(due)}' if due else ''}"
    if retrain.on_dataset_change:
        every = timedelta(seconds=retrain.check_interval_seconds)
        last = remembered.last_check_time
        following = f", next {moment(last + every)}" if last else ""
        yield "data", f"looked at every {duration(every.total_seconds())}{following}"
    if retrain.schedule is None and not retrain.on_dataset_change:
        yield "by itself", "never: there is no schedule, and the data is not looked at"


def _pods(spec: FineTuneJobSpec) -> Table:
    """What the pods of each stage ask for."""
    resources, prepare = spec.resources, spec.resources.prepare
    rows = text_table("pod", "CPU", "memory", "disk", "accelerators")
    if prepare.separate:
        rows.add_row("prepare", prepare.cpu, prepare.memory, resources.storage, "none")
    gpus = f"{resources.gpus} {resources.gpu_resource}" if resources.gpus else "none"
    rows.add_row("train" if prepare.separate else "both", resources.cpu, resources.memory, resources.storage, gpus)
    return rows
