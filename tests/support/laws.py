"""What holds for every look of the operator at any job, whatever has happened to it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from finetune_api.crd import job_schema
from finetune_api.identity import spec_digest
from finetune_api.job import FineTuneJob
from finetune_api.status import FineTuneJobStatus, RetrainStatus
from finetune_operator.decision import Plan, decide
from finetune_operator.observed import Observed, Subject
from finetune_operator.orders import name_of, nodes_of
from finetune_operator.settings import Settings
from finetune_operator.status import status_patch
from support.objects import make_job, make_service
from support.structure import find_faults

STATUS_SCHEMA = job_schema()["properties"]["status"]
LATER = timedelta(days=400)


@dataclass(frozen=True)
class Look:
    """One decision and what it was based on."""

    seen: Observed
    plan: Plan
    settings: Settings
    now: datetime

    @property
    def subject(self) -> Subject:
        return self.seen.subject

    @property
    def before(self) -> FineTuneJobStatus:
        return self.seen.subject.status

    @property
    def after(self) -> FineTuneJobStatus:
        return self.plan.status


def check_look(look: Look) -> None:
    """Every law."""
    for law in (
        the_status_fits_the_crd,
        the_conditions_follow_kstatus,
        conditions_keep_their_time_while_they_stay,
        a_run_has_a_reason_to_start,
        the_adapter_in_use_only_moves_to_one_that_passed,
        nothing_starts_that_must_not,
        only_one_stage_is_active,
        pods_that_train_together_can_meet,
        the_history_is_bounded,
        nothing_changes_before_the_operator_looks_again,
    ):
        law(look)


def the_status_fits_the_crd(look: Look) -> None:
    plain = look.after.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert find_faults(plain, STATUS_SCHEMA, "status") == []
    assert FineTuneJobStatus.model_validate(plain) == look.after, "the status does not survive being stored"
    assert look.after.observed_generation == look.subject.generation


def the_conditions_follow_kstatus(look: Look) -> None:
    truth: dict[str, str] = {condition.type: condition.status for condition in look.after.conditions}
    kinds = ("Ready", "Reconciling", "Stalled", "DataPrepared", "Trained", "Evaluated", "Promoted")
    assert tuple(truth) == kinds
    wanted = {"Succeeded": "Ready", "Rejected": "Stalled", "Failed": "Stalled", "Suspended": None}
    phase, true = str(look.after.phase), [kind for kind in kinds[:3] if truth[kind] == "True"]
    if phase in wanted:
        assert true == [wanted[phase]] * (wanted[phase] is not None)
    else:
        assert true in (["Reconciling"], ["Stalled"])
    for condition in look.after.conditions:
        assert condition.observed_generation == look.subject.generation
        assert condition.reason.isalpha()
        assert condition.message.endswith((".", "!", "?"))


def conditions_keep_their_time_while_they_stay(look: Look) -> None:
    before = {condition.type: condition for condition in look.before.conditions}
    for condition in look.after.conditions:
        known = before.get(condition.type)
        stays = known is not None and known.status == condition.status
        assert condition.last_transition_time == (known.last_transition_time if known and stays else look.now)


def a_run_has_a_reason_to_start(look: Look) -> None:
    before, after, spec = look.before.run, look.after.run, look.subject.job.spec
    if after is None or (before is not None and before.key == after.key):
        return
    known = look.before.retrain or RetrainStatus()
    changed = before is not None and before.spec_digest != spec_digest(spec)
    due = known.next_schedule_time is not None and known.next_schedule_time <= look.now
    reasons = {
        "Created": before is None,
        "SpecChanged": changed,
        "Requested": look.subject.requested not in (None, known.handled_request),
        "Schedule": spec.retrain.schedule is not None and due,
        "DatasetChanged": spec.retrain.on_dataset_change,
    }
    assert reasons[str(after.trigger)]
    assert not spec.suspend
    free = before is None or before.outcome is not None or spec.retrain.concurrency_policy == "Replace"
    assert free or changed, "a run was replaced that should have been left to finish"


def the_adapter_in_use_only_moves_to_one_that_passed(look: Look) -> None:
    if look.after.current != look.before.current:
        assert look.after.phase == "Succeeded"
        assert look.after.current is not None
        assert look.after.run is not None
        assert look.after.adapter is not None
        assert (look.after.current.run_id, look.after.current.uri) == (look.after.run.id, look.after.adapter.uri)
    if look.after.phase == "Succeeded":
        assert look.after.current is not None


def nothing_starts_that_must_not(look: Look) -> None:
    run, stages = look.after.run, [order for order in look.plan.create if order.stage != "check"]
    if look.subject.job.spec.suspend:
        assert not look.plan.create
    assert run is not None or not look.plan.create
    if run is not None and run.outcome is not None:
        assert not stages, "a finished run was started again"
    for order in stages:
        assert run is not None
        assert (order.run, order.attempt) == (run.key, run.attempt)
        writing = [pod.name for pod in look.seen.pods if pod.stage != "check" and not pod.over]
        assert not writing, "two pods would write to one run"


def only_one_stage_is_active(look: Look) -> None:
    doomed = {job.uid for job in look.plan.delete}
    kept = [job for job in look.seen.jobs if job.stage != "check" and not job.ended and job.uid not in doomed]
    kept = [job for job in kept if not job.deleted]
    made = [order for order in look.plan.create if order.stage != "check"]
    assert len(kept) + len(made) <= 1
    assert len({job.uid for job in look.plan.delete}) == len(look.plan.delete)


def pods_that_train_together_can_meet(look: Look) -> None:
    """Each Job of several pods has its Service, and no Service outlives its Job."""
    doomed = {child.uid for child in look.plan.delete}
    going = {order for order in look.plan.create if nodes_of(look.subject.job.spec, order) > 1}
    wanted = {name_of(look.subject, order) for order in (*going, *look.plan.let_meet)}
    jobs = [job for job in look.seen.jobs if job.uid not in doomed]
    kept = {service.name for service in look.seen.services if service.uid not in doomed} | wanted
    assert {job.name for job in jobs if job.nodes > 1 and not job.ended} <= kept
    assert kept - wanted <= {job.name for job in jobs} | {name_of(look.subject, order) for order in look.plan.create}


def the_history_is_bounded(look: Look) -> None:
    assert len(look.after.history) <= look.subject.job.spec.history_limit


def nothing_changes_before_the_operator_looks_again(look: Look) -> None:
    """Given what was done and written, and no news, looking earlier changes nothing; without a time, looking ever.

    The operator does not hear of its own writes. Jobs that it deletes are news.
    """
    plan, changed = look.plan, look.plan.create or look.plan.delete or look.after != look.before
    if plan.delete or (changed and plan.wake_at == look.now):
        return
    assert plan.wake_at is None or plan.wake_at > look.now, f"it would spin at {look.now}: {plan}"
    moment = plan.wake_at - timedelta(seconds=1) if plan.wake_at else look.now + LATER
    subject = stored(look.subject, look.after)
    new = [make_job(look.subject, order, look.settings, look.now).view() for order in plan.create]
    meeting = [*plan.let_meet, *(order for order in plan.create if nodes_of(look.subject.job.spec, order) > 1)]
    services = [*look.seen.services, *(make_service(look.subject, order).view() for order in meeting)]
    seen = replace(look.seen, subject=subject, jobs=[*look.seen.jobs, *new], services=services)
    again = decide(seen, look.settings, max(moment, look.now))
    # What the data was, and so whether to look at it, may only now be known; that may wait for the next look.
    made = [order for order in again.create if order.stage != "check" or not changed]
    assert not made, f"{look.after.message} -> {made}"
    assert plan.wake_at or not again.create
    assert [*again.delete, *again.let_meet] == [], f"{look.after.message} -> {again.delete} {again.let_meet}"
    assert _changes(look.after, again.status) == {}


def _changes(before: FineTuneJobStatus, after: FineTuneJobStatus) -> dict[str, object]:
    plain = (status.model_dump(mode="json", by_alias=True, exclude_none=True) for status in (before, after))
    return status_patch(*plain)


def stored(subject: Subject, status: FineTuneJobStatus) -> Subject:
    """A job after its status was written and read back."""
    written = subject.job.model_dump(mode="json", by_alias=True, exclude_unset=True)
    plain = {**written, "status": status.model_dump(mode="json", by_alias=True, exclude_none=True)}
    return replace(subject, job=FineTuneJob.model_validate(plain))
