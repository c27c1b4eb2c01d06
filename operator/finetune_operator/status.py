"""From where a run stands to the status of its job: phase, conditions as kstatus reads them, history. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from finetune_api.problems import explain
from finetune_api.run import EvaluationOutcome, Progress, StoredAdapter
from finetune_api.status import (
    Condition,
    ConditionType,
    CurrentAdapter,
    FailureStatus,
    FineTuneJobStatus,
    PastRun,
    Phase,
    RetrainStatus,
    RunStatus,
)
from finetune_operator.observed import Subject

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Situation:
    """Where a job stands: what the status is made from."""

    phase: Phase
    reason: str
    """The phase, or what hinders it, in one word."""
    message: str
    run: RunStatus | None
    stalled: bool = False
    """Whether nothing goes on until somebody acts."""
    progress: Progress | None = None
    failure: FailureStatus | None = None
    adapter: StoredAdapter | None = None
    evaluation: EvaluationOutcome | None = None
    current: CurrentAdapter | None = None
    """The adapter in use, if this situation knows of a new one."""
    data_version: str | None = None


def stand_still(
    status: FineTuneJobStatus, phase: Phase, reason: str, message: str, *, stalled: bool = False
) -> Situation:
    """A situation in which the run does not get any further: all that is known of it stays."""
    return Situation(
        phase, reason, message, status.run, stalled, status.progress, status.failure, status.adapter, status.evaluation
    )


def compose_status(
    subject: Subject, situation: Situation, retrain: RetrainStatus | None, now: datetime
) -> FineTuneJobStatus:
    """The whole status. It equals the one before unless something is different."""
    before = subject.status
    return FineTuneJobStatus(
        observed_generation=subject.generation,
        phase=situation.phase,
        message=situation.message,
        conditions=compose_conditions(subject, situation, now),
        run=situation.run,
        progress=situation.progress,
        failure=situation.failure,
        adapter=situation.adapter,
        evaluation=situation.evaluation,
        current=situation.current or before.current,
        retrain=retrain if retrain != RetrainStatus() else None,
        history=compose_history(subject, situation.run),
    )


def compose_history(subject: Subject, run: RunStatus | None) -> list[PastRun]:
    """Earlier runs, the latest first, with the run before if this one took its place."""
    before, previous = subject.status, subject.status.run
    history = before.history
    if previous is not None and run is not None and previous.key != run.key:
        past = PastRun(
            id=previous.id,
            trigger=previous.trigger,
            outcome=previous.outcome,
            message=previous.message,
            adapter_uri=before.adapter.uri if before.adapter else None,
            finished_at=previous.finished_at,
        )
        history = [past, *history]
    return history[: subject.job.spec.history_limit]


def compose_conditions(subject: Subject, situation: Situation, now: datetime) -> list[Condition]:
    """Ready, Reconciling and Stalled by the rules of kstatus, then the steps of the run."""
    known = {condition.type: condition for condition in subject.status.conditions}
    aspects = {**_kstatus(situation), **_steps(situation)}
    return [
        _condition(
            kind, truth, situation.reason if kind in KSTATUS else _step_reason(truth), message, subject, known, now
        )
        for kind, (truth, message) in aspects.items()
    ]


STEP_OPEN: dict[Truth, str] = {"False": "This run ended before.", "Unknown": "Not yet."}
KSTATUS: tuple[ConditionType, ...] = ("Ready", "Reconciling", "Stalled")
Aspects = dict[ConditionType, tuple[Truth, str]]


def _kstatus(situation: Situation) -> Aspects:
    ready = situation.phase == "Succeeded"
    going = not ready and not situation.stalled and situation.phase != "Suspended"
    return {
        "Ready": (_truth(ready), situation.message),
        "Reconciling": (_truth(going), situation.message if going else "Nothing is going on."),
        "Stalled": (_truth(situation.stalled), situation.message if situation.stalled else "Nothing is in the way."),
    }


def _steps(situation: Situation) -> Aspects:
    run, failed = situation.run, situation.phase == "Failed"
    evaluation = situation.evaluation
    prepared = run is not None and run.id is not None
    return {
        "DataPrepared": (_reached(prepared, failed), (run and run.data) or "The data was read, checked and divided."),
        "Trained": (_reached(evaluation is not None or situation.phase == "Evaluating", failed), "Training has ended."),
        "Evaluated": (_reached(evaluation is not None, failed), "Base and adapter answered the held-out rows."),
        "Promoted": (
            _reached(situation.phase == "Succeeded", failed or situation.phase == "Rejected"),
            "The adapter of this run is in use.",
        ),
    }


def _truth(value: bool) -> Truth:
    return "True" if value else "False"


def _reached(reached: bool, over: bool) -> Truth:
    """Unknown as long as it may still happen."""
    return "True" if reached else "False" if over else "Unknown"


def _step_reason(truth: Truth) -> str:
    return {"True": "Done", "False": "NotReached", "Unknown": "Pending"}[truth]


def _condition(
    kind: ConditionType, truth: Truth, reason: str, message: str, subject: Subject,
    known: dict[ConditionType, Condition], now: datetime,
) -> Condition:  # fmt: skip
    """A condition keeps the time of its last transition as long as its status stays."""
    before = known.get(kind)
    kept = before is not None and before.status == truth
    return Condition(
        type=kind,
        status=truth,
        reason=reason,
        message=message if truth == "True" or kind in KSTATUS else STEP_OPEN[truth],
        last_transition_time=before.last_transition_time if kept and before else now.replace(microsecond=0),
        observed_generation=subject.generation,
    )


def status_patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) from one status to another; empty if they are equal."""
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        known = before.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            value = status_patch(known, value)
            if value:
                patch[name] = value
        elif value != known:
            patch[name] = value
    return patch


def unreadable_status(raw: Mapping[str, Any], error: ValidationError, now: datetime) -> dict[str, Any]:
    """The status of a job that this version of the operator cannot read; what was known of its run stays."""
    problems = "; ".join(f"{problem.path}: {problem.message}" for problem in explain(error, raw))
    message = f"This version of the operator cannot read the job: {problems}."
    generation, before = raw["metadata"]["generation"], raw.get("status", {})
    known = before.get("conditions", [])
    times = {(entry["type"], entry["status"]): entry["lastTransitionTime"] for entry in known}
    conditions = [
        {
            "type": kind,
            "status": truth,
            "reason": "InvalidSpec",
            "message": message,
            "lastTransitionTime": times.get((kind, truth), f"{now:%Y-%m-%dT%H:%M:%SZ}"),
            "observedGeneration": generation,
        }
        for kind, truth in (("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True"))
    ]
    steps = [entry for entry in known if entry["type"] not in KSTATUS]
    return {**before, "observedGeneration": generation, "message": message, "conditions": [*conditions, *steps]}
