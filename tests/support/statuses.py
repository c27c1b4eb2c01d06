"""Statuses of jobs as the operator writes them, one for each situation that people and tools must tell apart."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from finetune_api.run import Progress, StoredAdapter
from finetune_api.status import (
    Condition,
    ConditionType,
    CurrentAdapter,
    FailureStatus,
    FineTuneJobStatus,
    PastRun,
    Phase,
    RunStatus,
)
from support.manifests import make_manifest
from support.reports import DIGEST, RUN_ID, make_evaluation, make_metric

NOW = datetime(2026, 11, 23, 14, 2, 51, tzinfo=UTC)
STARTED = datetime(2026, 11, 23, 12, 30, 0, tzinfo=UTC)
KEY = "5b1d0c77"
FOLDER = "s3://adapters/clinic/clinic/clinic-triage/runs"


@dataclass(frozen=True)
class Situation:
    """What a job looks like from outside, and what the tools that watch it must make of it."""

    name: str
    phase: Phase
    reason: str
    message: str
    kstatus: str
    """InProgress, Current or Failed, by the plain rules."""
    flux: str
    """The same, by the expressions shipped for Flux."""
    argo: str
    """Progressing, Healthy, Degraded or Suspended."""
    stalled: bool = False
    generation: int = 1


def _going(name: str, phase: Phase, reason: str, message: str) -> Situation:
    return Situation(name, phase, reason, message, "InProgress", "InProgress", "Progressing")


def _broken(name: str, phase: Phase, reason: str, message: str) -> Situation:
    return Situation(name, phase, reason, message, "Failed", "Failed", "Degraded", stalled=True)


def _changed(name: str, before: Situation) -> Situation:
    """The same status after the manifest has changed: nobody has looked at it yet."""
    return replace(before, name=name, kstatus="InProgress", flux="InProgress", argo="Progressing", generation=2)


SUCCEEDED = Situation("succeeded", "Succeeded", "Succeeded", "The adapter is better.", "Current", "Current", "Healthy")
FAILED = _broken("failed", "Failed", "DataRejected", "Row 17 has no answer. Mend it.")
SITUATIONS = (
    _going("pending", "Pending", "Pending", "The run is about to start."),
    _going("preparing", "Preparing", "Preparing", "Preparing the data."),
    _going("queued", "Queued", "Queued", "Waiting for queue team-a to admit the Job."),
    _going("no-node", "Pending", "Unschedulable", "No node can take the pod: 0/3 nodes are available."),
    _going("training", "Training", "Training", "Training."),
    _going("retrying", "Pending", "OutOfMemory", "A forward pass did not fit the GPU. Attempt 3 follows."),
    _going("evaluating", "Evaluating", "Evaluating", "Comparing base and adapter."),
    SUCCEEDED,
    _broken("rejected", "Rejected", "Rejected", "The difference may be chance."),
    FAILED,
    _broken("no-secret", "Pending", "SecretMissing", "There is no Secret s3 in this namespace."),
    _broken("no-image", "Pending", "ImagePullFailed", "The trainer image cannot be pulled."),
    _broken("bad-schedule", "Pending", "InvalidSchedule", "spec.retrain.timeZone Mars is not known."),
    Situation(
        "suspended", "Suspended", "Suspended", "Suspended by spec.suspend.", "InProgress", "Current", "Suspended"
    ),
    _changed("changed-after-success", SUCCEEDED),
    _changed("changed-after-failure", FAILED),
)
"""Every situation was seen with generation 1; one of generation 2 has a manifest that nobody looked at yet."""


def make_object(situation: Situation, status: FineTuneJobStatus | None = None) -> dict[str, Any]:
    """The FineTuneJob in a situation, as the API server shows it."""
    status = status or FineTuneJobStatus(
        observed_generation=1,
        phase=situation.phase,
        message=situation.message,
        conditions=make_conditions(situation),
    )
    manifest = make_manifest({"namespace": "clinic", "generation": situation.generation})
    return {**manifest, "status": dump_status(status)}


def make_conditions(situation: Situation) -> list[Condition]:
    """Ready, Reconciling and Stalled: exactly one is true, none while suspended."""
    ready = situation.phase == "Succeeded"
    going = not ready and not situation.stalled and situation.phase != "Suspended"
    aspects: dict[ConditionType, bool] = {"Ready": ready, "Reconciling": going, "Stalled": situation.stalled}
    return [
        Condition(
            type=kind,
            status="True" if holds else "False",
            reason=situation.reason,
            message=situation.message,
            last_transition_time=NOW,
            observed_generation=1,
        )
        for kind, holds in aspects.items()
    ]


def make_status(name: str, **changes: Any) -> FineTuneJobStatus:
    """A complete status in one of SITUATIONS, with everything that is known by then; `changes` replace its fields."""
    situation = next(found for found in SITUATIONS if found.name == name)
    over = situation.phase in ("Succeeded", "Rejected", "Failed")
    fields: dict[str, Any] = {
        "observed_generation": 1,
        "phase": situation.phase,
        "message": situation.message,
        "conditions": make_conditions(situation),
        "run": make_run(finished_at=NOW if over else None, outcome=situation.phase if over else None),
        "history": [make_past_run()],
    }
    return FineTuneJobStatus(**{**fields, **_DETAILS.get(name, {}), **changes})


def make_run(**changes: Any) -> RunStatus:
    """The current run, at its second attempt."""
    fields: dict[str, Any] = {
        "id": RUN_ID,
        "digest": DIGEST,
        "data": "2,400 rows prepared. A card needs at least 7.2 GiB.",
        "attempt": 2,
        "key": KEY,
        "spec_digest": "sha256:" + "5b1d0c77" * 8,
        "trigger": "SpecChanged",
        "started_at": STARTED,
    }
    return RunStatus(**{**fields, **changes})


def make_past_run(**changes: Any) -> PastRun:
    """An earlier run that passed."""
    fields: dict[str, Any] = {
        "id": "20261120-11aa22bb",
        "trigger": "Created",
        "outcome": "Succeeded",
        "message": "The adapter is better than the base model on the held-out rows.",
        "adapter_uri": f"{FOLDER}/20261120-11aa22bb/adapter",
        "finished_at": datetime(2026, 11, 20, 9, 15, 0, tzinfo=UTC),
    }
    return PastRun(**{**fields, **changes})


def dump_status(status: FineTuneJobStatus) -> dict[str, Any]:
    """A status as plain data, with the lists that the API server fills in."""
    plain = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"conditions": [], "history": [], **plain}


_CURRENT = CurrentAdapter(
    run_id="20261120-11aa22bb", uri=f"{FOLDER}/20261120-11aa22bb/adapter", digest="sha256:" + "7c" * 32
)
_ADAPTER = StoredAdapter(uri=f"{FOLDER}/{RUN_ID}/adapter", digest="sha256:" + "9b" * 32, size_bytes=23_068_672)
_DETAILS: dict[str, dict[str, Any]] = {
    "training": {
        "progress": Progress(
            stage="train", step=310, total_steps=940, epoch=0.99, train_loss=1.213, validation_loss=1.342,
            tokens_per_second=15_100.0, eta_seconds=2_535.0, checkpoint_step=300,
        ),
        "current": _CURRENT,
    },
    "retrying": {
        "failure": FailureStatus(
            reason="OutOfMemory",
            message="A forward pass did not fit the GPU.",
            exit_code=5,
            will_retry=True,
            retry_at=datetime(2026, 11, 23, 14, 4, 11, tzinfo=UTC),
            log=["14:02:40 INFO step 300 of 940", "14:02:51 ERROR CUDA out of memory: tried to allocate 2.1 GiB"],
        ),
        "current": _CURRENT,
    },
    "succeeded": {
        "adapter": _ADAPTER,
        "evaluation": make_evaluation(),
        "current": CurrentAdapter(run_id=RUN_ID, uri=_ADAPTER.uri, digest=_ADAPTER.digest),
    },
    "rejected": {
        "adapter": _ADAPTER,
        "evaluation": make_evaluation(
            verdict="Inconclusive",
            metrics=[make_metric(base=0.5, adapter=0.5556, difference=0.0556, ci=(-0.0833, 0.1944))],
        ),
        "current": _CURRENT,
    },
    "failed": {
        "failure": FailureStatus(
            reason="DataRejected",
            message="Row 17 has no answer. Mend it.",
            exit_code=3,
            will_retry=False,
            log=["14:02:51 ERROR row 17: the last message is not from the assistant"],
        ),
        "current": _CURRENT,
    },
}  # fmt: skip
