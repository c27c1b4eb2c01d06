"""What was seen of a job and its children, reduced to what decisions need: plain objects in, views out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from finetune_api.contract import ATTEMPT_LABEL, JOB_LABEL, REQUEST_ANNOTATION, RUN_LABEL, STAGE_LABEL
from finetune_api.job import FineTuneJob
from finetune_api.run import Progress, RunReport
from finetune_api.status import FineTuneJobStatus

Object = Mapping[str, Any]
StageName = Literal["prepare", "train", "check"]


@dataclass(frozen=True, order=True)
class Key:
    """Which job."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Subject:
    """A FineTuneJob as the API server holds it."""

    key: Key
    uid: str
    generation: int
    created: datetime
    deleted: bool
    requested: str | None
    """Value of the annotation that asks for one more run."""
    job: FineTuneJob

    @property
    def status(self) -> FineTuneJobStatus:
        """What was last said of it."""
        return self.job.status or FineTuneJobStatus()


@dataclass(frozen=True, slots=True)
class StageJob:
    """A batch/v1 Job of a stage."""

    namespace: str
    owner: str
    name: str
    uid: str
    run: str
    stage: StageName
    attempt: int
    created: datetime
    suspended: bool
    ended: Literal["Complete", "Failed"] | None
    reason: str
    """Why it failed, as the Job controller says it."""
    ended_at: datetime | None
    deleted: bool


@dataclass(frozen=True, slots=True)
class StagePod:
    """A pod of a stage."""

    namespace: str
    owner: str
    name: str
    uid: str
    run: str
    stage: StageName
    attempt: int
    created: datetime
    phase: str
    reason: str
    """Why the pod as a whole failed, for instance Evicted."""
    ip: str
    node: str
    unschedulable: str
    """The scheduler's message while no node fits."""
    waiting: str
    """Why the container waits, for instance ImagePullBackOff."""
    waiting_message: str
    running: bool
    disrupted: str
    """What took the pod away, in the words of its DisruptionTarget condition."""
    exit_code: int | None
    ended_reason: str
    """Why the container ended, for instance OOMKilled."""
    last_word: str
    """The termination message: a RunReport, or the end of the log."""
    started_at: datetime | None
    ended_at: datetime | None
    deleted: bool

    @property
    def over(self) -> bool:
        """Whether its container will not write anything any more."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True)
class Observed:
    """Everything that one decision is based on."""

    subject: Subject
    jobs: Sequence[StageJob] = ()
    pods: Sequence[StagePod] = ()
    progress: Progress | None = None
    """What the running pod just said."""
    complaint: str = ""
    """The latest warning about a Job without a pod, or about a pod that does not start."""


def view_job(raw: Object) -> StageJob:
    """The view of a batch/v1 Job made by this operator."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status", {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", []) if entry["status"] == "True"}
    ended = next((name for name in ("Complete", "Failed") if name in conditions), None)
    condition = conditions[ended] if ended else {}
    labels = meta["labels"]
    return StageJob(
        namespace=meta["namespace"],
        owner=labels[JOB_LABEL],
        name=meta["name"],
        uid=meta["uid"],
        run=labels[RUN_LABEL],
        stage=labels[STAGE_LABEL],
        attempt=int(labels[ATTEMPT_LABEL]),
        created=parse_time(meta["creationTimestamp"]),
        suspended=spec.get("suspend", False),
        ended=ended,  # type: ignore[arg-type]
        reason=condition.get("reason", ""),
        ended_at=_maybe_time(condition.get("lastTransitionTime")),
        deleted="deletionTimestamp" in meta,
    )


def view_pod(raw: Object) -> StagePod:
    """The view of a pod made for this operator's Jobs."""
    meta, status, labels = raw["metadata"], raw.get("status", {}), raw["metadata"]["labels"]
    state: Object = next((entry.get("state", {}) for entry in status.get("containerStatuses", [])), {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", [])}
    scheduled, disrupted = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
    ended, waiting = state.get("terminated", {}), state.get("waiting", {})
    return StagePod(
        namespace=meta["namespace"],
        owner=labels[JOB_LABEL],
        name=meta["name"],
        uid=meta["uid"],
        run=labels[RUN_LABEL],
        stage=labels[STAGE_LABEL],
        attempt=int(labels[ATTEMPT_LABEL]),
        created=parse_time(meta["creationTimestamp"]),
        phase=status.get("phase", "Pending"),
        reason=status.get("reason", ""),
        ip=status.get("podIP", ""),
        node=raw["spec"].get("nodeName", ""),
        unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        waiting=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        running="running" in state,
        disrupted=disrupted.get("message", "") if disrupted.get("status") == "True" else "",
        exit_code=ended.get("exitCode"),
        ended_reason=ended.get("reason", ""),
        last_word=ended.get("message", ""),
        started_at=_maybe_time(ended.get("startedAt") or state.get("running", {}).get("startedAt")),
        ended_at=_maybe_time(ended.get("finishedAt")),
        deleted="deletionTimestamp" in meta,
    )


def view_subject(raw: Object) -> Subject:
    """The view of a FineTuneJob. Raises pydantic.ValidationError if its spec is not of this API version."""
    meta = raw["metadata"]
    return Subject(
        key=Key(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        generation=meta["generation"],
        created=parse_time(meta["creationTimestamp"]),
        deleted="deletionTimestamp" in meta,
        requested=meta.get("annotations", {}).get(REQUEST_ANNOTATION),
        job=FineTuneJob.model_validate({**raw, "metadata": {name: meta[name] for name in ("name", "namespace")}}),
    )


def report_of(pod: StagePod) -> RunReport | None:
    """The trainer's last word; None if it had none."""
    try:
        return RunReport.model_validate_json(pod.last_word)
    except ValidationError:
        return None


def parse_time(text: str) -> datetime:
    """A time as Kubernetes writes it."""
    return datetime.fromisoformat(text)


def _maybe_time(text: str | None) -> datetime | None:
    return parse_time(text) if text else None
