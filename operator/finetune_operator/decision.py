"""What to do next about one job: a pure function of what was seen, the settings and the time.

Every trigger leads here. The steps are tried in order; the first that applies says where the run stands and what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from finetune_api.identity import spec_digest
from finetune_api.status import FineTuneJobStatus, RetrainStatus, RunStatus
from finetune_operator.checks import Check, follow_check
from finetune_operator.observed import Observed, StageJob, StageService, Subject
from finetune_operator.orders import StageOrder, run_key
from finetune_operator.rendezvous import missing_services, useless_services
from finetune_operator.settings import Settings
from finetune_operator.stages import Step, deadline_of, pursue
from finetune_operator.status import Situation, compose_status, stand_still
from finetune_operator.triggers import Start, due_start, find_fault, follow_schedule


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: delete, let meet, create, say."""

    status: FineTuneJobStatus
    delete: Sequence[StageJob | StageService] = ()
    let_meet: Sequence[StageOrder] = ()
    """Attempts that go on and lack their Service."""
    create: Sequence[StageOrder] = ()
    wake_at: datetime | None = None
    """When to look again even if nothing happens."""


def decide(seen: Observed, settings: Settings, now: datetime) -> Plan:
    """The next actions and the whole status of a job."""
    subject = seen.subject
    if subject.deleted:
        return Plan(subject.status)
    objection = refuse(subject, now)
    check = Check() if objection else follow_check(seen, now)
    start = due_start(subject, subject.status.run, check.new_data, now)
    step = next_step(seen, start, objection, settings, now)
    retrain = remember(subject, step.situation, check, now)
    unwanted = {job for job in (*step.delete, *check.delete, *leftovers(seen, step.situation.run)) if not job.deleted}
    create = [*step.create, *(check.create if start is None else ())]  # a new run reads the data anyway
    kept = [job for job in seen.jobs if job not in unwanted]
    times = (step.wake_at, check.wake_at, retrain.next_schedule_time, time_limit(subject, step.situation, now))
    return Plan(
        status=compose_status(subject, step.situation, retrain, now),
        delete=[*(job for job in seen.jobs if job in unwanted), *useless_services(seen.services, kept, create)],
        let_meet=missing_services(seen.services, kept),
        create=create,
        wake_at=min((time for time in times if time), default=None),
    )


def refuse(subject: Subject, now: datetime) -> Situation | None:
    """What only shows in a cluster: a manifest that is valid but cannot work here. No run starts from it."""
    spec = subject.job.spec
    if spec.output.uri.startswith("file://"):
        message = (
            f"spec.output.uri {spec.output.uri} is a folder inside the pod and ends with it; use pvc:// or a bucket."
        )
        return stand_still(subject.status, "Pending", "InvalidSpec", message, stalled=True)
    fault = find_fault(spec.retrain, now)
    return stand_still(subject.status, "Pending", "InvalidSchedule", fault, stalled=True) if fault else None


def next_step(
    seen: Observed, start: Start | None, objection: Situation | None, settings: Settings, now: datetime
) -> Step:
    """Where the current run stands, or the one that must start."""
    subject, run = seen.subject, seen.subject.status.run
    goes_on = run is not None and run.outcome is None
    if subject.job.spec.suspend and (start is not None or goes_on):
        return pause(seen, start)
    if run is not None and goes_on and start is None:
        return go_on(seen, run, settings, now)
    if objection is not None:
        return Step(objection, delete=[job for job in seen.jobs if job.ended is None])
    if start is not None:
        return pursue(seen, begin(subject, start, now), settings, now)
    assert run is not None  # without a run there is a start
    return rest(seen, run, now)


def go_on(seen: Observed, run: RunStatus, settings: Settings, now: datetime) -> Step:
    """Pursue the current run. Its time stands still while it is suspended, also when somebody else did that."""
    if seen.subject.status.phase != "Suspended":
        return pursue(seen, run, settings, now)
    step = pursue(seen, run.model_copy(update={"started_at": now}), settings, now)
    if step.situation.phase != "Suspended" or step.situation.run is None:
        return step
    held = step.situation.run.model_copy(update={"started_at": run.started_at})
    return replace(step, situation=replace(step.situation, run=held))


def begin(subject: Subject, start: Start, now: datetime) -> RunStatus:
    """A new run."""
    digest = spec_digest(subject.job.spec)
    key = run_key(subject.uid, digest, start.token)
    return RunStatus(attempt=1, key=key, spec_digest=digest, trigger=start.trigger, started_at=now)


def pause(seen: Observed, start: Start | None) -> Step:
    """Suspended: stop what runs, start nothing."""
    status, active = seen.subject.status, [job for job in seen.jobs if job.ended is None]
    message = "Suspended by spec.suspend."
    if any(pod.stage != "check" and not pod.over for pod in seen.pods):
        message = "Suspended by spec.suspend; the pod saves its work and stops."
    elif start is not None and status.run is not None:
        message = "Suspended by spec.suspend; the next run starts when it is set to false."
    return Step(stand_still(status, "Suspended", "Suspended", message), delete=active)


def rest(seen: Observed, run: RunStatus, now: datetime) -> Step:
    """Finished: keep what is known; remove what the run left in the cluster when its time has come."""
    assert run.outcome is not None
    assert run.finished_at is not None
    status, ttl = seen.subject.status, seen.subject.job.spec.ttl_seconds_after_finished
    reason = status.failure.reason if run.outcome == "Failed" and status.failure else run.outcome
    situation = stand_still(status, run.outcome, reason, run.message or "", stalled=run.outcome != "Succeeded")
    left = [job for job in seen.jobs if job.stage != "check"]
    expiry = run.finished_at + timedelta(seconds=ttl) if ttl is not None and left else None
    if expiry is not None and now >= expiry:
        return Step(situation, delete=left)
    return Step(situation, delete=[job for job in left if job.ended is None], wake_at=expiry)


def time_limit(subject: Subject, situation: Situation, now: datetime) -> datetime | None:
    """When a run that goes on must have ended."""
    run = situation.run
    if run is None or run.outcome is not None or situation.phase == "Suspended":
        return None
    deadline = deadline_of(subject, run)
    return deadline if deadline and deadline > now else None


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
