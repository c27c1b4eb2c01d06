"""What the commands ask of a cluster, through the user's own kubectl and its credentials."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from finetune_api.contract import ATTEMPT_LABEL, JOB_LABEL, REQUEST_ANNOTATION, RUN_LABEL, STAGE_LABEL
from finetune_api.crd import PLURAL
from finetune_api.job import GROUP, FineTuneJob
from finetune_api.status import FineTuneJobStatus

KUBECTL_VARIABLE = "KUBECTL"
"""Environment variable that names another kubectl than the one on PATH."""
RESOURCE = f"{PLURAL}.{GROUP}"

WATCH_FLAGS = ("--watch", "--output-watch-events", "--output=json")


class ClusterError(Exception):
    """The cluster did not give what was asked for. The message is a sentence for the person who asked."""


@dataclass(frozen=True)
class Target:
    """Which cluster and namespace; what is None is left to the kubeconfig."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None

    def flags(self) -> list[str]:
        """The same for kubectl."""
        chosen = {"--namespace": self.namespace, "--context": self.context, "--kubeconfig": self.kubeconfig}
        return [f"{flag}={value}" for flag, value in chosen.items() if value is not None]


@dataclass(frozen=True)
class LiveJob:
    """A FineTuneJob as the cluster has it."""

    job: FineTuneJob
    generation: int
    created: datetime
    deleted: bool
    requested: str | None
    """Value of the annotation that asks for one more run."""

    @property
    def status(self) -> FineTuneJobStatus:
        """What the operator says; all empty if it has said nothing yet."""
        return self.job.status or FineTuneJobStatus()

    @property
    def standing(self) -> str:
        """Phase and message as the end of a sentence."""
        phase, message = self.status.phase or "Pending", self.status.message or "waiting for the operator."
        return message if message.startswith(phase) else f"{phase}: {message}"


@dataclass(frozen=True, order=True)
class Pod:
    """A pod of a run; they sort by age."""

    created: datetime
    name: str
    run: str
    stage: str
    attempt: int
    phase: str


def get_job(target: Target, name: str) -> LiveJob:
    """The job of that name. Raises ClusterError."""
    found = find_job(target, name)
    if found is None:
        where = f"namespace {target.namespace}" if target.namespace else "this namespace"
        raise ClusterError(f"There is no FineTuneJob {name} in {where}. `kubectl get ftj -A` lists those of all.")
    return found


def find_job(target: Target, name: str) -> LiveJob | None:
    """The job of that name, None if there is none. Raises ClusterError."""
    answer = ask(target, "get", RESOURCE, name, "--ignore-not-found", "--output=json")
    return read_job(json.loads(answer)) if answer else None


def watch_job(target: Target, name: str) -> Iterator[LiveJob]:
    """The job as it is, and again whenever it changes, until the caller stops. Raises ClusterError, also if it goes."""
    while get_job(target, name):  # the API server ends a watch after some time
        with _started(_command(target, "get", RESOURCE, name, *WATCH_FLAGS)) as process:
            assert process.stdout is not None
            try:
                for event in map(json.loads, process.stdout):
                    if event["type"] == "DELETED":
                        raise ClusterError(f"FineTuneJob {name} was deleted.")
                    yield read_job(event["object"])
            finally:
                process.terminate()


def get_pods(target: Target, name: str) -> list[Pod]:
    """The pods of a job that are still there, the oldest first. Raises ClusterError."""
    listed = json.loads(ask(target, "get", "pods", f"--selector={JOB_LABEL}={name},{RUN_LABEL}", "--output=json"))
    return sorted(_read_pod(raw) for raw in listed["items"])


def print_logs(target: Target, pod: str, follow: bool) -> None:
    """Pass the log of a pod on to standard output. Raises ClusterError."""
    command = _command(target, "logs", pod, *(["--follow"] if follow else []))
    with _started(command, stdout=None) as process:
        assert process.stderr is not None
        complaint = process.stderr.read()
    if process.returncode != 0:
        raise ClusterError(explain(complaint))


def ask(target: Target, *arguments: str) -> str:
    """What kubectl prints. Raises ClusterError."""
    with _started(_command(target, *arguments)) as process:
        answer, complaint = process.communicate()
    if process.returncode != 0:
        raise ClusterError(explain(complaint))
    return answer


def explain(complaint: str) -> str:
    """What kubectl complains of, as a sentence that says what to do."""
    last = (complaint.strip().splitlines() or ["kubectl failed without a word"])[-1]
    if "have a resource type" in last:
        return "This cluster has no FineTuneJobs: install the operator, or choose another cluster with --context."
    forbidden = re.search(r'User "([^"]+)" cannot (\S+) resource "([^"]+)".*?(?:in the namespace "([^"]+)")?$', last)
    if forbidden:
        where = f" in namespace {forbidden[4]}" if forbidden[4] else ""
        right = f"{forbidden[1]} may not {forbidden[2]} {forbidden[3]}{where}"
        return f"{right}. Ask whoever runs the cluster for that right."
    context = re.search(r'context "([^"]+)" does not exist|not found for specified context: (\S+)', last)
    if context:
        return f"The kubeconfig has no context {context[1] or context[2]}."
    if "was refused" in last or "Unable to connect" in last:
        return f"The cluster does not answer. Choose another with --context. kubectl says: {last}"
    return re.sub(r"^(error|Error from server \(\w+\)): ", "", last)


def read_job(raw: dict[str, Any]) -> LiveJob:
    """A job from what kubectl prints. Raises ClusterError if it is of another version of this program."""
    metadata = raw["metadata"]
    annotations = metadata.get("annotations", {})
    try:
        job = FineTuneJob.model_validate(raw)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        message = f"The cluster's FineTuneJob is of another version; update this program. It does not know: {places}."
        raise ClusterError(message) from error
    return LiveJob(
        job=job,
        generation=metadata["generation"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        deleted="deletionTimestamp" in metadata,
        requested=annotations.get(REQUEST_ANNOTATION),
    )


def _read_pod(raw: dict[str, Any]) -> Pod:
    metadata = raw["metadata"]
    labels = metadata["labels"]
    return Pod(
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        name=metadata["name"],
        run=labels[RUN_LABEL],
        stage=labels[STAGE_LABEL],
        attempt=int(labels[ATTEMPT_LABEL]),
        phase=raw["status"].get("phase", "Pending"),
    )


def _command(target: Target, *arguments: str) -> list[str]:
    return [os.environ.get(KUBECTL_VARIABLE) or "kubectl", *arguments, *target.flags()]


def _started(command: list[str], stdout: int | None = subprocess.PIPE) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        remedy = f"Install kubectl, or set {KUBECTL_VARIABLE} to its path."
        raise ClusterError(f"{command[0]} cannot be run: {error.strerror}. {remedy}") from error
