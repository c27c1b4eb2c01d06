"""What makes a job run: its creation, a change of its manifest, a request, its schedule, new data. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from finetune_api.identity import spec_digest
from finetune_api.retrain import RetrainSpec
from finetune_api.status import RetrainStatus, RunStatus, Trigger
from finetune_operator.observed import Subject

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


class InvalidSchedule(Exception):
    """The schedule or its time zone means nothing. The message says what and where."""


@dataclass(frozen=True)
class Start:
    """A reason to start a run."""

    trigger: Trigger
    token: str
    """Tells this start from others of the same manifest."""


def due_start(subject: Subject, run: RunStatus | None, new_data: str | None, now: datetime) -> Start | None:
    """Why a run must start now, if it must. A changed manifest comes first: it also replaces a run that goes on.

    `new_data` is the version of the data if a look at it found it changed.
    """
    if run is None:
        return Start("Created", f"generation-{subject.generation}")
    if run.spec_digest != spec_digest(subject.job.spec):
        return Start("SpecChanged", f"generation-{subject.generation}")
    return _by_itself(subject, new_data, now) if _may_start(subject) else None


def _may_start(subject: Subject) -> bool:
    run = subject.status.run
    return (run is not None and run.outcome is not None) or subject.job.spec.retrain.concurrency_policy == "Replace"


def _by_itself(subject: Subject, new_data: str | None, now: datetime) -> Start | None:
    remembered = subject.status.retrain or RetrainStatus()
    if subject.requested and subject.requested != remembered.handled_request:
        return Start("Requested", f"request-{subject.requested}")
    tick = due_tick(subject, now)
    if tick is not None and not subject.job.spec.suspend:
        return Start("Schedule", f"schedule-{tick:%Y%m%dT%H%M}")
    if new_data is not None:
        return Start("DatasetChanged", f"data-{new_data}")
    return None


def due_tick(subject: Subject, now: datetime) -> datetime | None:
    """When the schedule came due, if it did and nothing was done about it."""
    remembered = subject.status.retrain or RetrainStatus()
    retrain, due = subject.job.spec.retrain, remembered.next_schedule_time
    return due if due and due <= now and remembered.schedule == schedule_text(retrain) else None


def follow_schedule(subject: Subject, now: datetime) -> RetrainStatus:
    """What to remember of the schedule from now on. Ticks missed in a row count once; a bad schedule has none."""
    remembered, retrain = subject.status.retrain or RetrainStatus(), subject.job.spec.retrain
    text, tick = schedule_text(retrain), due_tick(subject, now)
    if text is not None and text == remembered.schedule and tick is None:
        return remembered
    if text is None or find_fault(retrain, now):
        return remembered.model_copy(update={"schedule": None, "next_schedule_time": None})
    last, following = tick or remembered.last_schedule_time, next_tick(retrain, now)
    return remembered.model_copy(update={"schedule": text, "next_schedule_time": following, "last_schedule_time": last})


def find_fault(retrain: RetrainSpec, now: datetime) -> str | None:
    """What is wrong with the schedule or its time zone, as a sentence."""
    try:
        if retrain.schedule:
            next_tick(retrain, now)
    except InvalidSchedule as error:
        return str(error)
    return None


def schedule_text(retrain: RetrainSpec) -> str | None:
    """The schedule with its time zone, as one text."""
    return f"{retrain.schedule} {retrain.time_zone}" if retrain.schedule else None


def next_tick(retrain: RetrainSpec, after: datetime) -> datetime:
    """When the schedule is next due, UTC. Raises InvalidSchedule."""
    schedule = str(retrain.schedule)
    try:
        local = after.astimezone(ZoneInfo(retrain.time_zone))
        return next(CronSim(NICKNAMES.get(schedule, schedule), local)).astimezone(UTC)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidSchedule(f"spec.retrain.timeZone {retrain.time_zone} is not a known time zone.") from error
    except CronSimError as error:
        raise InvalidSchedule(f"spec.retrain.schedule {schedule!r} is no cron expression: {error}.") from error
    except StopIteration as error:
        raise InvalidSchedule(f"spec.retrain.schedule {schedule!r} never comes due.") from error
