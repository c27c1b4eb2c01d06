"""What was seen of a job and its children, reduced to what decisions need: plain objects in, views out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from finetune_api.contract import (
    ATTEMPT_LABEL,
    INDEX_LABEL,
    JOB_LABEL,
    REQUEST_ANNOTATION,
    RUN_LABEL,
    STAGE_LABEL,
    TEMPLATE_ANNOTATION,
)
from finetune_api.job import FineTuneJob
from finetune_api.run import Progress, RunReport
from finetune_api.status import FineTuneJobStatus

Object = Mapping[str, Any]
StageName = Literal["prepare", "train", "check"]
CONTAINER = "trainer"
USUAL_WAITS = ("", "ContainerCreating", "PodInitializing")
TOKENS_FLAG = "--micro-batch-tokens"


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
class StageChild:
    """What was made for one attempt at a stage."""

    namespace: str
    owner: str
    name: str
    uid: str
    run: str
    stage: StageName
    attempt: int
    deleted: bool

    @property
    def key(self) -> tuple[str, StageName, int]:
        """The attempt that it was made for."""
        return self.run, self.stage, self.attempt


@dataclass(frozen=True, slots=True)
class StageJob(StageChild):
    """A batch/v1 Job of a stage."""

    template: str
    """Digest of what its pods are made from."""
    micro_batch_tokens: int | None
    """What its pod was told instead of the manifest's value, if anything."""
    nodes: int
    """How many pods work together."""
    created: datetime
    suspended: bool
    ended: Literal["Complete", "Failed"] | None
    reason: str
    """Why it failed, as the Job controller says it."""
    ended_at: datetime | None

    @property
    def quiet(self) -> bool:
        """Whether it only waits for its pod, which has more to tell."""
        return not (self.ended or self.suspended or self.deleted)


@dataclass(frozen=True, slots=True)
class StagePod(StageChild):
    """A pod of a stage."""

    index: int
    """Its number among pods that work together, from 0; the first speaks for all."""
    created: datetime
    phase: str
    reason: str
    """Why the pod as a whole failed, for instance Evicted."""
    message: str
    """The same in a sentence."""
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

    @property
    def quiet(self) -> bool:
        """Whether it is on its way from being made to running, and nothing is wrong."""
        return not (self.running or self.over or self.unschedulable or self.deleted) and self.waiting in USUAL_WAITS

    @property
    def over(self) -> bool:
        """Whether its container will not write anything any more. A kubelet may say so before it changes the phase."""
        return self.phase in ("Succeeded", "Failed") or self.exit_code is not None


@dataclass(frozen=True, slots=True)
class StageService(StageChild):
    """The Service by which the pods of a Job find each other."""

    @property
    def quiet(self) -> bool:
        """Nothing follows from its being there."""
        return True


@dataclass(frozen=True)
class Observed:
    """Everything that one decision is based on."""

    subject: Subject
    jobs: Sequence[StageJob] = ()
    pods: Sequence[StagePod] = ()
    services: Sequence[StageService] = ()
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
    return StageJob(
        **_child(raw),
        template=meta.get("annotations", {}).get(TEMPLATE_ANNOTATION, ""),
        micro_batch_tokens=_tokens_of(spec),
        nodes=spec.get("completions", 1),
        created=parse_time(meta["creationTimestamp"]),
        suspended=spec.get("suspend", False),
        ended=ended,  # type: ignore[arg-type]
        reason=condition.get("reason", ""),
        ended_at=_maybe_time(condition.get("lastTransitionTime")),
    )


def view_pod(raw: Object) -> StagePod:
    """The view of a pod made for this operator's Jobs."""
    meta, status, labels = raw["metadata"], raw.get("status", {}), raw["metadata"]["labels"]
    # A service mesh may have added containers of its own.
    ours = (entry for entry in status.get("containerStatuses", []) if entry["name"] == CONTAINER)
    state: Object = next((entry.get("state", {}) for entry in ours), {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", [])}
    scheduled, disrupted = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
    ended, waiting = state.get("terminated", {}), state.get("waiting", {})
    return StagePod(
        **_child(raw),
        index=int(labels.get(INDEX_LABEL, 0)),
        created=parse_time(meta["creationTimestamp"]),
        phase=status.get("phase", "Pending"),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
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
        started_at=_start_of(ended.get("startedAt") or state.get("running", {}).get("startedAt")),
        ended_at=_maybe_time(ended.get("finishedAt")),
    )


def view_service(raw: Object) -> StageService:
    """The view of a Service made for this operator's Jobs."""
    return StageService(**_child(raw))


def view_subject(raw: Object) -> Subject:
    """The view of a FineTuneJob. Raises pydantic.ValidationError if its spec is not of this API version."""
    meta = raw["metadata"]
    asked = {"metadata": {name: meta[name] for name in ("name", "namespace")}, "status": None}
    # A later operator may have known more to say; after going back to this one, its jobs must stay readable.
    known = FineTuneJobStatus.model_validate(raw.get("status", {}), extra="ignore")
    return Subject(
        key=Key(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        generation=meta["generation"],
        created=parse_time(meta["creationTimestamp"]),
        deleted="deletionTimestamp" in meta,
        requested=meta.get("annotations", {}).get(REQUEST_ANNOTATION),
        job=FineTuneJob.model_validate({**raw, **asked}).model_copy(update={"status": known}),
    )


def last_report(pods: Sequence[StagePod]) -> RunReport | None:
    """What the pod that succeeded last said; of several that work together, the first speaks."""
    done = [pod for pod in pods if pod.exit_code == 0 and pod.index == 0]
    return report_of(max(done, key=lambda pod: pod.created)) if done else None


def report_of(pod: StagePod) -> RunReport | None:
    """The trainer's last word; None if it had none. What only a later trainer says is left out."""
    try:
        return RunReport.model_validate_json(pod.last_word, extra="ignore")
    except ValidationError:
        return None


def parse_time(text: str) -> datetime:
    """A time as Kubernetes writes it."""
    return datetime.fromisoformat(text)


def _child(raw: Object) -> dict[str, Any]:
    """The fields of a StageChild."""
    meta, labels = raw["metadata"], raw["metadata"]["labels"]
    return {
        "namespace": meta["namespace"],
        "owner": labels[JOB_LABEL],
        "name": meta["name"],
        "uid": meta["uid"],
        "run": labels[RUN_LABEL],
        "stage": labels[STAGE_LABEL],
        "attempt": int(labels[ATTEMPT_LABEL]),
        "deleted": "deletionTimestamp" in meta,
    }


def _tokens_of(job_spec: Object) -> int | None:
    arguments = job_spec["template"]["spec"]["containers"][0].get("args", [])
    return int(arguments[arguments.index(TOKENS_FLAG) + 1]) if TOKENS_FLAG in arguments else None


def _start_of(text: str | None) -> datetime | None:
    """When a container started; for one that never did a kubelet writes 1970."""
    time = _maybe_time(text)
    return time if time and time.year > 1970 else None


def _maybe_time(text: str | None) -> datetime | None:
    return parse_time(text) if text else None
