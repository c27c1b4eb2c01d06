"""Kubernetes objects as the API server holds them, made step by step, and the operator's views of them."""

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Self

from finetune_api.contract import INDEX_LABEL
from finetune_api.run import EvaluationOutcome, ExitCode, MetricResult, RunReport, StoredAdapter, Verdict
from finetune_operator.observed import (
    StageJob,
    StageName,
    StagePod,
    StageService,
    Subject,
    view_job,
    view_pod,
    view_service,
    view_subject,
)
from finetune_operator.orders import StageOrder
from finetune_operator.rendezvous import build_service
from finetune_operator.settings import Settings
from finetune_operator.workloads import build_job
from support.manifests import make_manifest

START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
SETTINGS = Settings(trainer_image="registry.example/finetune-trainer@sha256:feed", retry_base_seconds=10)
UID = "0b5f8a52-6e0f-4d0c-9d39-0f5d1f2d9a11"
RUN = "3f9a1c2b"
RUN_ID = "20261123-3f9a1c2b"
DIGEST = "sha256:" + "3f9a1c2b" * 8

Object = dict[str, Any]


def at(time: datetime) -> str:
    """A time as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def make_object(
    status: Mapping[str, Any] | None = None, annotations: Mapping[str, str] | None = None, generation: int = 1,
    name: str = "clinic-triage", created: datetime = START, **spec: Any,
) -> Object:  # fmt: skip
    """A FineTuneJob as the API server holds it."""
    meta = {"name": name, "namespace": "clinic", "uid": UID, "generation": generation, "resourceVersion": "7"}
    made = make_manifest({**meta, "creationTimestamp": at(created), "annotations": dict(annotations or {})}, **spec)
    return made | ({"status": dict(status)} if status else {})


def make_subject(**parts: Any) -> Subject:
    """The view of a FineTuneJob; takes what `make_object` takes."""
    return view_subject(make_object(**parts))


class JobObject:
    """A batch/v1 Job made by the operator."""

    def __init__(self, raw: Object) -> None:
        self.raw = raw

    def suspended(self, value: bool = True) -> Self:
        """Suspended by somebody, or not any more."""
        self.raw["spec"]["suspend"] = value
        return self

    def complete(self, time: datetime = START) -> Self:
        """Ended well."""
        return self._ended("Complete", "CompletionsReached", time)

    def failed(self, time: datetime = START, reason: str = "BackoffLimitExceeded") -> Self:
        """Ended badly."""
        return self._ended("Failed", reason, time)

    def deleted(self, time: datetime = START) -> Self:
        """On its way out."""
        self.raw["metadata"]["deletionTimestamp"] = at(time)
        return self

    def view(self) -> StageJob:
        """As the operator sees it."""
        return view_job(self.raw)

    def _ended(self, kind: str, reason: str, time: datetime) -> Self:
        condition = {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": at(time)}
        self.raw["status"] = {"conditions": [condition]}
        return self


class PodObject:
    """A pod of such a Job."""

    def __init__(self, raw: Object) -> None:
        self.raw = raw

    def unschedulable(self, message: str) -> Self:
        """No node takes it."""
        return self._condition("PodScheduled", "False", "Unschedulable", message)

    def scheduled(self, node: str = "node-1") -> Self:
        """On a node, its container being created."""
        self.raw["spec"]["nodeName"] = node
        self._condition("PodScheduled", "True")
        return self.waiting("ContainerCreating")

    def waiting(self, reason: str, message: str = "") -> Self:
        """On a node, its container kept from starting."""
        return self._state("Pending", waiting={"reason": reason, **({"message": message} if message else {})})

    def running(self, time: datetime = START, ip: str = "127.64.0.9") -> Self:
        """Its container runs."""
        self.raw["status"]["podIP"] = ip
        return self._state("Running", running={"startedAt": at(time)})

    def ended(self, code: int, message: str = "", reason: str = "", time: datetime = START) -> Self:
        """Its container ended with a code and a termination message."""
        known = self._ours().get("state", {}).get("running", {})
        state = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error"), "finishedAt": at(time)}
        state |= {"startedAt": known.get("startedAt", at(time)), **({"message": message} if message else {})}
        return self._state("Succeeded" if code == 0 else "Failed", terminated=state)

    def reported(self, report: RunReport, time: datetime = START) -> Self:
        """Its container ended and had its last word."""
        return self.ended(report.exit_code, report.model_dump_json(by_alias=True), time=time)

    def failed(self, reason: str, message: str) -> Self:
        """Failed as a whole."""
        self.raw["status"] |= {"phase": "Failed", "reason": reason, "message": message}
        return self

    def disrupted(self, reason: str, message: str) -> Self:
        """Being taken away by Kubernetes itself."""
        return self._condition("DisruptionTarget", "True", reason, message)

    def deleted(self, time: datetime = START) -> Self:
        """On its way out."""
        self.raw["metadata"]["deletionTimestamp"] = at(time)
        return self

    def view(self) -> StagePod:
        """As the operator sees it."""
        return view_pod(self.raw)

    def _ours(self) -> Object:
        states: list[Object] = self.raw["status"].get("containerStatuses", [])
        return next((entry for entry in states if entry["name"] == "trainer"), {})

    def _state(self, phase: str, **state: Object) -> Self:
        self.raw["status"] |= {"phase": phase, "containerStatuses": [{"name": "trainer", "state": state}]}
        return self

    def _condition(self, kind: str, status: str, reason: str = "", message: str = "") -> Self:
        others = [entry for entry in self.raw["status"].get("conditions", []) if entry["type"] != kind]
        condition = {"type": kind, "status": status, "reason": reason, "message": message}
        self.raw["status"]["conditions"] = [*others, condition]
        return self


def make_order(stage: StageName = "train", attempt: int = 1, **parts: Any) -> StageOrder:
    """One attempt at a stage of the run RUN; training knows the run's name by then."""
    known = {"run_id": RUN_ID, "digest": DIGEST} if stage == "train" else {}
    return StageOrder(**{"run": RUN, "stage": stage, "attempt": attempt, **known, **parts})


def make_job(
    subject: Subject, order: StageOrder | None = None, settings: Settings = SETTINGS, created: datetime = START
) -> JobObject:
    """The Job that the operator makes, as the API server holds it."""
    raw = deepcopy(build_job(subject, order or make_order(), settings))
    raw["metadata"] |= {"uid": f"uid-of-{raw['metadata']['name']}", "creationTimestamp": at(created)}
    return JobObject(raw)


class ServiceObject:
    """A Service made by the operator."""

    def __init__(self, raw: Object) -> None:
        self.raw = raw

    def view(self) -> StageService:
        """As the operator sees it."""
        return view_service(self.raw)


def make_service(subject: Subject, order: StageOrder | None = None) -> ServiceObject:
    """The Service that the operator makes, as the API server holds it."""
    raw = deepcopy(build_service(subject, order or make_order()))
    raw["metadata"] |= {"uid": f"uid-of-service-{raw['metadata']['name']}"}
    return ServiceObject(raw)


def make_pod(job: JobObject, number: int = 1, created: datetime = START, index: int = 0) -> PodObject:
    """A pod that the Job controller made for a Job, not yet on a node."""
    template, name = deepcopy(job.raw["spec"]["template"]), f"{job.raw['metadata']['name']}-{number:05d}"
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.raw["metadata"]["name"], "controller": True}
    meta = {"name": name, "namespace": job.raw["metadata"]["namespace"], "uid": f"uid-of-{name}"}
    meta |= {"creationTimestamp": at(created), "ownerReferences": [owner]}
    if job.raw["spec"].get("completionMode") == "Indexed":
        template["metadata"]["labels"][INDEX_LABEL] = str(index)
    return PodObject(
        {"metadata": {**template["metadata"], **meta}, "spec": template["spec"], "status": {"phase": "Pending"}}
    )


def make_adapter(run_id: str = RUN_ID) -> StoredAdapter:
    """A published adapter."""
    uri = f"s3://adapters/clinic/clinic/clinic-triage/runs/{run_id}/adapter"
    return StoredAdapter(uri=uri, digest=f"sha256:{run_id}", size_bytes=9_240_000)


def make_evaluation(verdict: Verdict = "Passed") -> EvaluationOutcome:
    """A comparison with a verdict."""
    metric = MetricResult(
        name="tokenF1",
        higher_is_better=True,
        base=0.41,
        adapter=0.63,
        difference=0.22,
        ci=(0.17, 0.27),
        n=120,
        groups=96,
    )
    return EvaluationOutcome(verdict=verdict, primary_metric="tokenF1", metrics=[metric])


def prepared_report(run_id: str = RUN_ID, digest: str = DIGEST, data_version: str = "v1") -> RunReport:
    """The last word of a preparation."""
    return RunReport(
        run_id=run_id, digest=digest, attempt=1, exit_code=ExitCode.DONE, stage="prepare", message="Rows are ready.",
        data_version=data_version,
    )  # fmt: skip


def published_report(
    run_id: str = RUN_ID, digest: str = DIGEST, verdict: Verdict = "Passed", data_version: str | None = None
) -> RunReport:
    """The last word of a complete run."""
    return RunReport(
        run_id=run_id, digest=digest, attempt=1, exit_code=ExitCode.DONE, stage="publish",
        message=f"The verdict is {verdict}.", adapter=make_adapter(run_id), evaluation=make_evaluation(verdict),
        data_version=data_version,
    )  # fmt: skip


def failed_report(code: ExitCode, message: str = "It went wrong.", data_version: str | None = None) -> RunReport:
    """The last word of a stage that failed."""
    return RunReport(exit_code=code, stage="train", message=message, data_version=data_version, log=["one", "two"])
