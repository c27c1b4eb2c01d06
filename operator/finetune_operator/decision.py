"""What to do next about one job: a pure function of what was seen, the settings and the time.

Every trigger leads here. The steps are tried in order; the first that applies says where the run stands and what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from finetune_api.identity import spec_digest
from finetune_api.status import FineTuneJobStatus, RetrainStatus, RunStatus
from finetune_operator.checks import Check, follow_check
from finetune_operator.observed import Observed, StageJob, Subject
from finetune_operator.settings import Settings
from finetune_operator.stages import Step, pursue
from finetune_operator.status import Situation, compose_status
from finetune_operator.triggers import InvalidSchedule, Start, due_start, follow_schedule
from finetune_operator.workloads import StageOrder, run_key


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: delete, create, say."""

    status: FineTuneJobStatus
    delete: Sequence[StageJob] = ()
    create: Sequence[StageOrder] = ()
    wake_at: datetime | None = None
    """When to look again even if nothing happens."""


def decide(seen: Observed, settings: Settings, now: datetime) -> Plan:
    """The next actions and the whole status of a job."""
    subject = seen.subject
    if subject.deleted:
        return Plan(subject.status)
    objection = refuse(subject, now)
    if objection is not None:
        return Plan(compose_status(subject, objection, subject.status.retrain, now))
    check = follow_check(seen, now)
    start = due_start(subject, subject.status.run, check.new_data, now)
    step = next_step(seen, start, settings, now)
    retrain = remember(subject, step.situation, check, now)
    return Plan(
        status=compose_status(subject, step.situation, retrain, now),
        delete=[job for job in (*step.delete, *check.delete, *leftovers(seen, step.situation.run)) if not job.deleted],
        create=[*step.create, *check.create],
        wake_at=min((time for time in (step.wake_at, check.wake_at, retrain.next_schedule_time) if time), default=None),
    )


def refuse(subject: Subject, now: datetime) -> Situation | None:
    """What only shows in a cluster: a manifest that is valid but cannot work here."""
    spec, run = subject.job.spec, subject.status.run
    if spec.output.uri.startswith("file://"):
        message = (
            f"spec.output.uri {spec.output.uri} is a folder inside the pod and ends with it; use pvc:// or a bucket."
        )
        return Situation("Pending", "InvalidSpec", message, run, stalled=True)
    try:
        follow_schedule(subject, now)
    except InvalidSchedule as error:
        return Situation("Pending", "InvalidSchedule", str(error), run, stalled=True)
    return None


def next_step(seen: Observed, start: Start | None, settings: Settings, now: datetime) -> Step:
    """Where the current run stands, or the one that must start."""
    subject, run = seen.subject, seen.subject.status.run
    if subject.job.spec.suspend and (start is not None or run is None or run.outcome is None):
        return pause(seen, start)
    if start is not None:
        return pursue(replace(seen, progress=None), begin(subject, start, now), settings, now)
    assert run is not None  # without a run there is a start
    if run.outcome is not None:
        return rest(seen, run, now)
    if subject.status.phase == "Suspended":
        run = run.model_copy(update={"started_at": now})
    return pursue(seen, run, settings, now)


def begin(subject: Subject, start: Start, now: datetime) -> RunStatus:
    """A new run."""
    digest = spec_digest(subject.job.spec)
    key = run_key(subject.uid, digest, start.token)
    return RunStatus(attempt=1, key=key, spec_digest=digest, trigger=start.trigger, started_at=now)


def pause(seen: Observed, start: Start | None) -> Step:
    """Suspended: stop what runs, start nothing."""
    subject, run = seen.subject, seen.subject.status.run
    saving = any(not pod.over for pod in seen.pods)
    message = "Suspended by spec.suspend."
    if saving:
        message = "Suspended by spec.suspend; the pod saves its work and stops."
    elif start is not None and run is not None:
        message = "Suspended by spec.suspend; set it to false and the changed manifest starts a run."
    active = [job for job in seen.jobs if job.ended is None]
    return Step(Situation("Suspended", "Suspended", message, run, progress=subject.status.progress), delete=active)


def rest(seen: Observed, run: RunStatus, now: datetime) -> Step:
    """Finished: keep what is known; remove what the run left in the cluster when its time has come."""
    assert run.outcome is not None
    assert run.finished_at is not None
    status, ttl = seen.subject.status, seen.subject.job.spec.ttl_seconds_after_finished
    reason = status.failure.reason if run.outcome == "Failed" and status.failure else run.outcome
    situation = Situation(
        run.outcome, reason, run.message or "", run, stalled=run.outcome != "Succeeded", progress=status.progress,
        failure=status.failure, adapter=status.adapter, evaluation=status.evaluation, current=status.current,
    )  # fmt: skip
    if ttl is None or not seen.jobs:
        return Step(situation)
    expiry = run.finished_at + timedelta(seconds=ttl)
    return Step(situation, wake_at=expiry) if now < expiry else Step(situation, delete=seen.jobs)


def remember(subject: Subject, situation: Situation, check: Check, now: datetime) -> RetrainStatus:
    """What must be known to start the next run by itself."""
    remembered = follow_schedule(subject, now)
    before = subject.status.run
    began = situation.run is not None and (before is None or situation.run.key != before.key)
    update = {
        "last_check_time": check.last_time or remembered.last_check_time,
        "check_message": check.message if check.last_time else remembered.check_message,
        "data_version": situation.data_version or check.version or remembered.data_version,
        "handled_request": subject.requested if began else remembered.handled_request,
    }
    return remembered.model_copy(update=update)


def leftovers(seen: Observed, run: RunStatus | None) -> list[StageJob]:
    """Jobs of runs whose place another has taken."""
    return [job for job in seen.jobs if run is not None and job.run != run.key]
