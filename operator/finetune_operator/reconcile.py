"""One look at one job: observe, decide, execute, say. Any event leads here; doing it twice does no harm."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from finetune_api.status import FineTuneJobStatus
from finetune_operator.announcements import announce
from finetune_operator.cluster import JOBS, SERVICES, Cluster, ClusterError, ignoring
from finetune_operator.crew import crew_of, find_doubtful, pods_of
from finetune_operator.decision import Plan, decide
from finetune_operator.herald import Herald
from finetune_operator.informer import Informer
from finetune_operator.observed import (
    Key,
    Observed,
    StageJob,
    StagePod,
    StageService,
    Subject,
    view_job,
    view_service,
    view_subject,
)
from finetune_operator.orders import StageOrder, name_of, nodes_of
from finetune_operator.progress import ProgressReader
from finetune_operator.rendezvous import build_service
from finetune_operator.settings import Settings
from finetune_operator.shelf import Shelf
from finetune_operator.status import Situation, compose_status, status_patch, unreadable_status
from finetune_operator.telemetry import Telemetry
from finetune_operator.workloads import build_job

SOON = timedelta(seconds=2)
NO_POD_YET = timedelta(seconds=10)
"""How long a Job's pod, or a pod's container, may take before its Events are searched for the reason."""
REFUSED_AGAIN = timedelta(seconds=30)
REFUSALS = (400, 403, 404, 422)
"""Answers to a create that stay the same until somebody changes something."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dependencies:
    """Everything that reaches outside, made once at the start."""

    cluster: Cluster
    shelf: Shelf
    jobs: Informer[StageJob]
    pods: Informer[StagePod]
    services: Informer[StageService]
    progress: ProgressReader
    herald: Herald
    telemetry: Telemetry
    settings: Settings
    now: Callable[[], datetime]
    """UTC, whole seconds."""
    unwritable: dict[Key, dict[str, Any]] = field(default_factory=dict)
    """Statuses that the API server did not keep whole."""


async def reconcile(key: Key, deps: Dependencies) -> datetime | None:
    """Bring one job a step further. Returns when to look again. Raises ClusterError."""
    raw = deps.shelf.get(key)
    if raw is None:
        return None
    try:
        subject = view_subject(raw)
    except ValidationError as error:
        await write_status(key, raw, unreadable_status(raw, error, deps.now()), deps)
        return None
    seen = await observe(subject, deps)
    decided = decide(seen, deps.settings, deps.now())
    plan = await execute(seen, decided, deps)
    if plan is decided and passes_by(subject.status, plan):
        return None  # the new Job, or its pod, tells more in a moment
    after = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    if await write_status(key, raw, after, deps):
        deps.telemetry.note_turn(seen, plan.status)
        deps.herald.tell(subject, announce(subject.status, plan.status))
    return plan.wake_at


def passes_by(before: FineTuneJobStatus, plan: Plan) -> bool:
    """Whether a status only says that the first Job, or the next stage's, was created: the next status takes it in."""
    if not plan.create or plan.status.failure is not None:
        return False
    return before.phase is None or (before.phase == "Preparing" and {order.stage for order in plan.create} == {"train"})


async def observe(subject: Subject, deps: Dependencies) -> Observed:
    """Everything known about a job and its children."""
    jobs, pods = deps.jobs.of(subject.key), deps.pods.of(subject.key)
    deps.progress.forget(pods)
    progress = await deps.progress.read(pods)
    seen = Observed(subject, jobs, pods, deps.services.of(subject.key), progress)
    about = object_to_ask_about(seen, deps.now())
    return replace(seen, complaint=await deps.cluster.warnings_about(*about)) if about else seen


def object_to_ask_about(seen: Observed, now: datetime) -> tuple[str, str] | None:
    """Namespace and uid of a Job whose pod cannot be made, or of a pod that does not start though it has a node."""
    waiting = [job for job in seen.jobs if job.ended is None and not job.suspended and now - job.created >= NO_POD_YET]
    for job in waiting:
        crew = crew_of(job, pods_of(seen, job))
        index = find_doubtful(crew)
        if index is not None:
            return job.namespace, (crew[index] or job).uid
    return None


async def execute(seen: Observed, plan: Plan, deps: Dependencies) -> Plan:
    """Delete and create what the plan says. Returns the plan, or what the API server made of it."""
    for child in plan.delete:
        await deps.cluster.delete(child)
    for order in plan.let_meet:
        with ignoring(*REFUSALS):  # the pods that go on know where the others are
            await let_meet(seen.subject, order, deps)
    for order in plan.create:
        plan = await start(seen.subject, order, plan, deps)
    return plan


async def start(subject: Subject, order: StageOrder, plan: Plan, deps: Dependencies) -> Plan:
    """Create a stage's Job. One that is there already is as good, unless it is on its way out: look again soon."""
    try:
        if nodes_of(subject.job.spec, order) > 1:
            await let_meet(subject, order, deps)
        deps.jobs.put(view_job(await deps.cluster.create(JOBS, build_job(subject, order, deps.settings))))
        return plan
    except ClusterError as error:
        if error.code == 409:
            return replace(plan, wake_at=deps.now() + SOON)
        if error.code not in REFUSALS:
            raise
        message = f"The Job {name_of(subject, order)} cannot be created: {error}"
        refused = Situation(
            "Pending", "JobRefused", message, plan.status.run, stalled=True, failure=plan.status.failure
        )
        status = compose_status(subject, refused, plan.status.retrain, deps.now())
        return replace(plan, status=status, wake_at=deps.now() + REFUSED_AGAIN)


async def let_meet(subject: Subject, order: StageOrder, deps: Dependencies) -> None:
    """Create the Service by which the pods of an attempt find each other. One that is there already is as good."""
    with ignoring(409):
        deps.services.put(view_service(await deps.cluster.create(SERVICES, build_service(subject, order))))


async def write_status(key: Key, raw: dict[str, Any], after: dict[str, Any], deps: Dependencies) -> bool:
    """Write the status if it differs. Returns whether it did."""
    patch = status_patch(raw.get("status", {}), after)
    if not patch:
        return False
    if deps.unwritable.get(key) == after:
        return False
    with ignoring(404):
        answer = await deps.cluster.patch_status(key, {"status": patch})
        deps.shelf.put(answer)
        note_unwritable(key, answer.get("status", {}), after, deps)
    return True


def note_unwritable(key: Key, written: dict[str, Any], after: dict[str, Any], deps: Dependencies) -> None:
    """Remember a status that the API server cut: fields that an older CRD does not know would be written for ever."""
    deps.unwritable.pop(key, None)
    cut = status_patch(written, after)
    if cut:
        deps.unwritable[key] = after
        log.error("The CRD in the cluster is older than this operator: it does not keep status.%s.", ", ".join(cut))
