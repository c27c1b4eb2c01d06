"""Why a stage waits and why it failed, each as one word and one sentence. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from finetune_api.job import FineTuneJobSpec
from finetune_api.run import PASSING, ExitCode
from finetune_operator.crew import Crew, find_doubtful
from finetune_operator.observed import StageJob, StagePod, report_of

LOG_LINES = 10

REASONS = {
    ExitCode.INVALID_CONFIG: "InvalidConfig",
    ExitCode.DATA_REJECTED: "DataRejected",
    ExitCode.DIVERGED: "Diverged",
    ExitCode.OUT_OF_MEMORY: "OutOfMemory",
    ExitCode.STORAGE: "StorageFailed",
    ExitCode.MODEL_NOT_LOADABLE: "ModelNotLoadable",
    ExitCode.STOPPED: "Stopped",
}
WORDLESS = {
    ExitCode.INVALID_CONFIG: "The trainer refuses the settings of the run.",
    ExitCode.DATA_REJECTED: "The trainer refuses the data.",
    ExitCode.DIVERGED: "The loss is no longer a number.",
    ExitCode.OUT_OF_MEMORY: "A forward or backward pass did not fit the memory.",
    ExitCode.STORAGE: "Reading or writing a store failed.",
    ExitCode.MODEL_NOT_LOADABLE: "The base model cannot be loaded.",
    ExitCode.STOPPED: "The trainer was told to stop.",
}
"""What an exit code alone tells, where no report came with it."""
TELLING = frozenset(REASONS) - {ExitCode.STOPPED}
"""Exit codes that name a cause. Pods that lost another one stop: that is what followed from it."""
POD_LOST = "PodLost"
OUT_OF_MEMORY = ("OutOfMemory", "OOMKilled")
NEVER_RAN = ("StartError", "ContainerCannotRun")
OWN_DISK = ("EmptyDir", "ephemeral")
"""Words of the kubelet when a pod kept more on its node's disk than it may."""
IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")


@dataclass(frozen=True)
class Hindrance:
    """Why a pod does not run yet."""

    reason: str
    message: str
    needs_person: bool
    """Whether somebody must act. All the same it goes on by itself once they have."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed."""

    reason: str
    message: str
    passing: bool
    """Whether another attempt may succeed."""
    exit_code: int | None = None
    log: tuple[str, ...] = ()
    data_version: str | None = None
    """What the data was when it was read, if it was."""


def find_hindrance(pod: StagePod | None, complaint: str) -> Hindrance | None:
    """What keeps a stage from running; None if it runs or is just starting."""
    if pod is None:
        return _of_creation(complaint) if complaint else None
    if pod.unschedulable:
        return _of_scheduling(pod.unschedulable)
    if pod.waiting in IMAGE:
        return Hindrance("ImagePullFailed", f"The trainer image cannot be pulled: {_short(pod.waiting_message)}", True)
    if pod.waiting == "CreateContainerConfigError":
        return _of_container(pod.waiting_message)
    if pod.waiting in ("CreateContainerError", "RunContainerError"):
        return Hindrance("ContainerNotStarted", f"The container cannot be started: {_short(pod.waiting_message)}", True)
    if complaint and not pod.running and not pod.over:
        return Hindrance("PodNotStarted", f"The pod cannot start: {_short(complaint)}", True)
    return None


def hindrance_of(crew: Crew, complaint: str) -> Hindrance | None:
    """What keeps the first of a stage's pods from running that something does; only of the others the index is told."""
    doubtful = find_doubtful(crew)
    for index, pod in enumerate(crew):
        found = None if pod and pod.over else find_hindrance(pod, complaint if index == doubtful else "")
        if found:
            return replace(found, message=_named(index, found.message))
    return None


def _named(index: int, message: str) -> str:
    return f"Pod {index}: {message}" if index else message


def _of_creation(complaint: str) -> Hindrance:
    reason = "QuotaExceeded" if "exceeded quota" in complaint else "PodForbidden"
    return Hindrance(reason, f"The pod cannot be created: {_short(complaint)}", True)


def _of_scheduling(message: str) -> Hindrance:
    claim = re.search(r'persistentvolumeclaim "([^"]+)" not found', message)
    if claim:
        return Hindrance(
            "VolumeClaimMissing",
            f"There is no PersistentVolumeClaim {claim[1]} in this namespace; create it, or change the pvc:// URI.",
            True,
        )
    return Hindrance("Unschedulable", f"No node can take the pod: {_short(message)}", False)


def _of_container(message: str) -> Hindrance:
    secret = re.search(r'secret "([^"]+)" not found', message)
    if secret:
        return Hindrance(
            "SecretMissing", f"There is no Secret {secret[1]} in this namespace; create it, or change secretRef.", True
        )
    return Hindrance("ContainerNotStarted", f"The container cannot be set up: {_short(message)}", True)


def explain_failure(spec: FineTuneJobSpec, job: StageJob, pods: Sequence[StagePod]) -> Failure:
    """Why the Job of an attempt failed: from how the most telling pod ended, or from what the Job controller says."""
    if job.reason == "DeadlineExceeded":
        # The run itself still has time, else it would have been ended for that: its deadline was raised meanwhile.
        return Failure("DeadlineExceeded", "The Job reached the deadline that it was started with.", passing=True)
    pod = find_culprit(job, pods)
    if pod is None:
        return Failure(POD_LOST, "The pod was deleted before it could finish.", passing=True)
    failure = _of_pod(spec, pod)
    return replace(failure, message=_named(pod.index, failure.message))


def find_culprit(job: StageJob, pods: Sequence[StagePod]) -> StagePod | None:
    """The pod that tells why a Job failed: of those that were last at their index, the first of the most telling."""
    last = {pod.index: pod for pod in sorted(pods, key=lambda pod: pod.created) if pod.over}
    if job.ended == "Complete":
        return last.get(0)
    never = datetime.max.replace(tzinfo=UTC)
    ends = sorted(last.values(), key=lambda pod: (_vagueness(pod), pod.ended_at or never, pod.index))
    return ends[0] if ends else None


def _vagueness(pod: StagePod) -> int:
    """How little the end of a pod says about why others ended."""
    report = report_of(pod)
    if pod.index == 0 and report is not None and report.exit_code in TELLING:
        return 0
    if pod.exit_code in TELLING:
        return 1
    if pod.exit_code == ExitCode.DONE:
        return 4
    return 3 if pod.exit_code == ExitCode.STOPPED or pod.disrupted else 2


def _of_pod(spec: FineTuneJobSpec, pod: StagePod) -> Failure:
    report = report_of(pod)
    if report is not None and report.exit_code in REASONS:
        code = report.exit_code
        return Failure(
            REASONS[code], report.message, code in PASSING, code.value, tuple(report.log), report.data_version
        )
    log = tuple(pod.last_word.splitlines()[-LOG_LINES:])
    if pod.ended_reason == "OOMKilled":
        return Failure("OOMKilled", _memory_message(spec, pod), True, pod.exit_code, log)
    if pod.reason == "Evicted" and any(word in pod.message for word in OWN_DISK):
        return Failure("StorageExceeded", _storage_message(spec, pod), False, pod.exit_code, log)
    if pod.reason == "Evicted" or pod.disrupted:
        why = pod.disrupted or pod.message or pod.reason
        return Failure("Evicted", f"The pod was evicted: {_short(why)}", True, pod.exit_code, log)
    if pod.ended_reason in NEVER_RAN:
        message = f"The container could not be started: {_short(pod.last_word)}"
        return Failure("ContainerNotStarted", message, True, pod.exit_code)
    if pod.exit_code == 0:
        return Failure("NoReport", "The trainer ended without saying how the run stands.", True, 0, log)
    if pod.exit_code is None:
        return Failure(POD_LOST, "The pod ended before its container did; its node may be gone.", True, None, log)
    if pod.exit_code in REASONS:
        code = ExitCode(pod.exit_code)
        return Failure(REASONS[code], WORDLESS[code], code in PASSING, pod.exit_code, log)
    return Failure(
        "Crashed", f"The trainer ended unexpectedly with exit code {pod.exit_code}.", True, pod.exit_code, log
    )


def _memory_message(spec: FineTuneJobSpec, pod: StagePod) -> str:
    train = pod.stage == "train"
    limit, field = (spec.resources.memory, "") if train else (spec.resources.prepare.memory, ".prepare")
    return (
        f"The pod needed more than its memory limit of {limit} and was killed; raise spec.resources{field}.memory"
        + (" or lower spec.training.microBatchTokens." if train else ".")
    )


def _storage_message(spec: FineTuneJobSpec, pod: StagePod) -> str:
    return (
        f"The pod kept more on its node's disk than spec.resources.storage ({spec.resources.storage}); raise it. "
        f"Kubernetes says: {_short(pod.message)}"
    )


def _short(message: str) -> str:
    """The first sentences of a message of Kubernetes, without its line breaks."""
    text = " ".join(message.split())
    return f"{text.rstrip('.')}." if len(text) <= 300 else f"{text[:297]}..."
