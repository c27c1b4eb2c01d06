"""What is worth an Event: the story of a job as `kubectl describe` tells it. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from finetune_api.job import API_VERSION, KIND
from finetune_api.status import FineTuneJobStatus, RunStatus
from finetune_operator.observed import Subject
from finetune_operator.orders import Manifest

COMPONENT = "finetune-operator"
LONGEST_MESSAGE = 1000
UNTOLD = ("Starting", "Preparing")


@dataclass(frozen=True)
class Announcement:
    """One line of the story."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


def announce(before: FineTuneJobStatus, after: FineTuneJobStatus) -> list[Announcement]:
    """What changed between two statuses, for people."""
    told = []
    if after.run and _key(before.run) != after.run.key:
        told.append(Announcement("Normal", "RunStarted", f"Run {after.run.key} begins: {_why(after.run)}"))
    if after.run and after.run.id and (before.run is None or before.run.id != after.run.id):
        found = after.run.data or "The data is checked and divided."
        told.append(Announcement("Normal", "DataPrepared", f"Run {after.run.id}: {found}"))
    if after.failure is not None and after.failure != before.failure and after.phase != "Failed":
        told.append(Announcement("Warning", after.failure.reason, f"{after.failure.message} It will be tried again."))
    elif (after.phase, _reason(after)) != (before.phase, _reason(before)) and _reason(after) not in UNTOLD:
        told.append(_of_turn(after))
    return told


def _of_turn(after: FineTuneJobStatus) -> Announcement:
    stalled = any(condition.type == "Stalled" and condition.status == "True" for condition in after.conditions)
    unlucky = stalled or _reason(after) == "Unschedulable"
    return Announcement("Warning" if unlucky else "Normal", _reason(after), after.message or "")


def _reason(status: FineTuneJobStatus) -> str:
    return next((condition.reason for condition in status.conditions if condition.type == "Ready"), "")


def _key(run: RunStatus | None) -> str | None:
    return run.key if run else None


def _why(run: RunStatus) -> str:
    return {
        "Created": "the job was created.",
        "SpecChanged": "the manifest changed in what decides the result.",
        "Schedule": "it was due.",
        "DatasetChanged": "the data changed.",
        "Requested": "it was asked for.",
    }[run.trigger or "Created"]


def build_event(subject: Subject, said: Announcement, now: datetime, replica: str) -> Manifest:
    """The v1 Event of an announcement."""
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{subject.key.name}.", "namespace": subject.key.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": subject.key.namespace,
            "name": subject.key.name,
            "uid": subject.uid,
        },
        "type": said.kind,
        "reason": said.reason,
        "message": said.message[:LONGEST_MESSAGE],
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": replica,
    }
