"""Has the data changed? A small Job now and then, whose answer is compared with what was known. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_api.status import RetrainStatus, RunStatus
from finetune_operator.diagnosis import explain_failure
from finetune_operator.observed import Observed, StageJob, StagePod, last_report
from finetune_operator.orders import StageOrder

LONGEST_LOOK = timedelta(minutes=10)


@dataclass(frozen=True)
class Check:
    """What a look at the data told, and what to do about the next one."""

    version: str | None = None
    """What the data is now."""
    new_data: str | None = None
    """The same, if it is not what it was."""
    last_time: datetime | None = None
    """When the look that just ended did so."""
    message: str | None = None
    """Why it failed, if it did."""
    create: Sequence[StageOrder] = ()
    delete: Sequence[StageJob] = ()
    wake_at: datetime | None = None


def follow_check(seen: Observed, now: datetime) -> Check:
    """The state of the look at the data that is due, goes on, or has ended."""
    spec, run = seen.subject.job.spec, seen.subject.status.run
    jobs = [job for job in seen.jobs if job.stage == "check"]
    if run is None or spec.suspend or not spec.retrain.on_dataset_change or not _may_look(seen, run):
        return Check(delete=jobs)
    if not jobs:
        return _begin(seen, run, now)
    job = max(jobs, key=lambda job: job.created)
    return Check() if job.ended is None else _conclude(seen, job, now)


def _may_look(seen: Observed, run: RunStatus) -> bool:
    """Not while a run goes on that must not be replaced, or that has not said yet what data it reads."""
    replaceable = run.id is not None and seen.subject.job.spec.retrain.concurrency_policy == "Replace"
    return run.outcome is not None or replaceable


def _begin(seen: Observed, run: RunStatus, now: datetime) -> Check:
    remembered = seen.subject.status.retrain or RetrainStatus()
    last = max((time for time in (remembered.last_check_time, run.started_at) if time), default=seen.subject.created)
    due = last + timedelta(seconds=seen.subject.job.spec.retrain.check_interval_seconds)
    if now < due:
        return Check(wake_at=due)
    # The second of its due time numbers a look: the same after a restart, another one next time.
    number, limit = int(due.timestamp()), int(LONGEST_LOOK.total_seconds())
    return Check(create=[StageOrder(run=str(run.key), stage="check", attempt=number, deadline_seconds=limit)])


def _conclude(seen: Observed, job: StageJob, now: datetime) -> Check:
    pods = [pod for pod in seen.pods if pod.stage == "check" and pod.attempt == job.attempt]
    report, ended = last_report(pods), job.ended_at or now
    if report is None or report.data_version is None:
        return Check(last_time=ended, message=_explain(seen, job, pods), delete=[job])
    new_data = report.data_version if _is_news(seen, report.data_version) else None
    return Check(report.data_version, new_data, ended, delete=[job])


def _explain(seen: Observed, job: StageJob, pods: Sequence[StagePod]) -> str:
    if job.reason == "DeadlineExceeded":
        return f"Looking at the data took longer than {LONGEST_LOOK.total_seconds() / 60:.0f} minutes."
    return explain_failure(seen.subject.job.spec, job, pods).message


def _is_news(seen: Observed, version: str) -> bool:
    """Whether the data is not what the latest run read. To a run that failed before it could, any data is news."""
    known, run = (seen.subject.status.retrain or RetrainStatus()).data_version, seen.subject.status.run
    if known is not None:
        return version != known
    return run is not None and run.outcome == "Failed" and run.id is None
