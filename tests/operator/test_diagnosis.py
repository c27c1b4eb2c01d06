"""What people are told of a stage that waits or failed. Messages are those that real kubelets and schedulers write."""

from datetime import timedelta

import pytest

from finetune_api.run import ExitCode
from finetune_operator.diagnosis import Failure, Hindrance, explain_failure, find_hindrance
from support.objects import (
    START,
    JobObject,
    PodObject,
    failed_report,
    make_job,
    make_order,
    make_pod,
    make_subject,
)

SUBJECT = make_subject(resources={"memory": "24Gi", "storage": "50Gi", "prepare": {"memory": "6Gi"}})
SPEC = SUBJECT.job.spec
PULL = (
    'failed to pull and unpack image "registry.example/finetune-trainer@sha256:feed": failed to resolve reference: '
    "unexpected status from HEAD request: 401 Unauthorized"
)
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 No preemption."


def job_of(stage: str = "train") -> JobObject:
    return make_job(SUBJECT, make_order("prepare" if stage == "prepare" else "train"))


def pod_of(stage: str = "train") -> PodObject:
    return make_pod(job_of(stage))


def hindrance(pod: PodObject | None, complaint: str = "") -> Hindrance | None:
    return find_hindrance(pod.view() if pod else None, complaint)


def failure(*pods: PodObject, job: JobObject | None = None) -> Failure:
    return explain_failure(SPEC, (job or job_of().failed()).view(), [pod.view() for pod in pods])


# A stage that waits.


@pytest.mark.parametrize(
    "pod",
    [
        pod_of(),
        pod_of().scheduled(),
        pod_of().waiting("PodInitializing"),
        pod_of().scheduled().running(),
        pod_of().scheduled().ended(0),
    ],
)
def test_a_pod_that_just_starts_or_runs_is_not_hindered(pod: PodObject) -> None:
    assert hindrance(pod) is None


def test_a_job_whose_pod_is_just_being_made_is_not_hindered() -> None:
    assert hindrance(None) is None


@pytest.mark.parametrize(
    ("pod", "complaint", "want"),
    [
        (
            pod_of().unschedulable(NO_GPU),
            "",
            Hindrance("Unschedulable", f"No node can take the pod: {NO_GPU}", False),
        ),
        (
            pod_of().unschedulable('0/1 nodes are available: persistentvolumeclaim "models" not found. not found'),
            "",
            Hindrance(
                "VolumeClaimMissing",
                "There is no PersistentVolumeClaim models in this namespace; create it, or change the pvc:// URI.",
                True,
            ),
        ),
        (
            pod_of().unschedulable("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
            "",
            Hindrance(
                "Unschedulable",
                "No node can take the pod: 0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
                False,
            ),
        ),
        (
            pod_of().scheduled().waiting("ErrImagePull", PULL),
            "",
            Hindrance("ImagePullFailed", f"The trainer image cannot be pulled: {PULL}.", True),
        ),
        (
            pod_of().scheduled().waiting("ImagePullBackOff", f'Back-off pulling image "x": ErrImagePull:\n  {PULL}'),
            "",
            Hindrance(
                "ImagePullFailed",
                f'The trainer image cannot be pulled: Back-off pulling image "x": ErrImagePull: {PULL}.',
                True,
            ),
        ),
        (
            pod_of().scheduled().waiting("InvalidImageName", 'Failed to apply default image tag "UPPER"'),
            "",
            Hindrance(
                "ImagePullFailed",
                'The trainer image cannot be pulled: Failed to apply default image tag "UPPER".',
                True,
            ),
        ),
        (
            pod_of().scheduled().waiting("CreateContainerConfigError", 'secret "s3-write" not found'),
            "",
            Hindrance(
                "SecretMissing",
                "There is no Secret s3-write in this namespace; create it, or change secretRef.",
                True,
            ),
        ),
        (
            pod_of().scheduled().waiting("CreateContainerConfigError", "failed to sync secret cache: timed out"),
            "",
            Hindrance(
                "ContainerNotStarted",
                "The container cannot be set up: failed to sync secret cache: timed out.",
                True,
            ),
        ),
        (
            pod_of().scheduled().waiting("RunContainerError", "nvidia-container-cli: initialization error"),
            "",
            Hindrance(
                "ContainerNotStarted",
                "The container cannot be started: nvidia-container-cli: initialization error.",
                True,
            ),
        ),
        (
            pod_of().scheduled(),
            'MountVolume.SetUp failed for volume "ca" : configmap "company-ca" not found',
            Hindrance(
                "PodNotStarted",
                'The pod cannot start: MountVolume.SetUp failed for volume "ca" : configmap "company-ca" not found.',
                True,
            ),
        ),
        (
            None,
            'Error creating: pods "clinic-triage-3f9a1c2b-train-1-" is forbidden: exceeded quota: team, requested: '
            "requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=8, limited: requests.nvidia.com/gpu=8",
            Hindrance(
                "QuotaExceeded",
                'The pod cannot be created: Error creating: pods "clinic-triage-3f9a1c2b-train-1-" is forbidden: '
                "exceeded quota: team, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=8, limited: "
                "requests.nvidia.com/gpu=8.",
                True,
            ),
        ),
        (
            None,
            'Error creating: pods "x" is forbidden: error looking up service account clinic/s3-writer: '
            'serviceaccount "s3-writer" not found',
            Hindrance(
                "PodForbidden",
                'The pod cannot be created: Error creating: pods "x" is forbidden: error looking up service account '
                'clinic/s3-writer: serviceaccount "s3-writer" not found.',
                True,
            ),
        ),
    ],
)
def test_what_keeps_a_pod_from_running_is_said_in_a_sentence(
    pod: PodObject | None, complaint: str, want: Hindrance
) -> None:
    assert hindrance(pod, complaint) == want


def test_a_complaint_about_a_pod_that_runs_by_now_is_old() -> None:
    assert hindrance(pod_of().scheduled().running(), "MountVolume.SetUp failed") is None


def test_a_long_message_is_cut() -> None:
    found = hindrance(pod_of().unschedulable("0/900 nodes are available: " + "taint, " * 200))

    assert found is not None
    assert len(found.message) < 350
    assert found.message.endswith("...")


# A stage that failed.


@pytest.mark.parametrize(
    ("code", "reason", "passing"),
    [
        (ExitCode.INVALID_CONFIG, "InvalidConfig", False),
        (ExitCode.DATA_REJECTED, "DataRejected", False),
        (ExitCode.DIVERGED, "Diverged", False),
        (ExitCode.OUT_OF_MEMORY, "OutOfMemory", True),
        (ExitCode.STORAGE, "StorageFailed", True),
        (ExitCode.MODEL_NOT_LOADABLE, "ModelNotLoadable", False),
        (ExitCode.STOPPED, "Stopped", True),
    ],
)
def test_the_trainers_own_word_is_the_cause(code: ExitCode, reason: str, passing: bool) -> None:
    pod = pod_of().scheduled().running().reported(failed_report(code, "Row 17 has no answer.", "v2"))

    assert failure(pod) == Failure(reason, "Row 17 has no answer.", passing, int(code), ("one", "two"), "v2")


def test_every_exit_code_but_done_has_a_reason() -> None:
    for code in set(ExitCode) - {ExitCode.DONE}:
        assert failure(pod_of().reported(failed_report(code))).reason not in ("Crashed", "NoReport")


LOG = "\n".join(f"line {number}" for number in range(30))
TAIL = tuple(f"line {number}" for number in range(20, 30))


@pytest.mark.parametrize(
    ("pod", "want"),
    [
        (
            pod_of().running().ended(137, LOG, "OOMKilled"),
            Failure(
                "OOMKilled",
                "The pod needed more than its memory limit of 24Gi and was killed; raise spec.resources.memory or "
                "lower spec.training.microBatchTokens.",
                True,
                137,
                TAIL,
            ),
        ),
        (
            pod_of("prepare").running().ended(137, "", "OOMKilled"),
            Failure(
                "OOMKilled",
                "The pod needed more than its memory limit of 6Gi and was killed; raise spec.resources.prepare.memory.",
                True,
                137,
            ),
        ),
        (
            pod_of().running().ended(1, "Traceback (most recent call last):\nKeyError: 1"),
            Failure(
                "Crashed",
                "The trainer ended unexpectedly with exit code 1.",
                True,
                1,
                ("Traceback (most recent call last):", "KeyError: 1"),
            ),
        ),
        (
            pod_of().running().ended(0, "bye"),
            Failure("NoReport", "The trainer ended without saying how the run stands.", True, 0, ("bye",)),
        ),
        (
            pod_of().running().failed("Evicted", "The node was low on resource: memory. Threshold quantity: 100Mi. "),
            Failure(
                "Evicted",
                "The pod was evicted: The node was low on resource: memory. Threshold quantity: 100Mi.",
                True,
            ),
        ),
        (
            pod_of().running().failed("Evicted", 'Usage of EmptyDir volume "cache" exceeds the limit "50Gi". '),
            Failure(
                "StorageExceeded",
                "The pod kept more on its node's disk than spec.resources.storage (50Gi); raise it. Kubernetes says: "
                'Usage of EmptyDir volume "cache" exceeds the limit "50Gi".',
                False,
            ),
        ),
        (
            pod_of().scheduled().failed("Evicted", "Pod ephemeral local storage usage exceeds the total limit. "),
            Failure(
                "StorageExceeded",
                "The pod kept more on its node's disk than spec.resources.storage (50Gi); raise it. Kubernetes says: "
                "Pod ephemeral local storage usage exceeds the total limit.",
                False,
            ),
        ),
        (
            pod_of()
            .running()
            .ended(137)
            .disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
            Failure("Evicted", "The pod was evicted: Taint manager: deleting due to NoExecute taint.", True, 137),
        ),
        (
            pod_of().scheduled().ended(128, 'exec: "finetune": executable file not found in $PATH', "StartError"),
            Failure(
                "ContainerNotStarted",
                'The container could not be started: exec: "finetune": executable file not found in $PATH.',
                True,
                128,
            ),
        ),
        (
            pod_of().scheduled().failed("NodeLost", ""),
            Failure("PodLost", "The pod ended before its container did; its node may be gone.", True),
        ),
    ],
)
def test_the_cause_of_a_failure_is_said_in_a_sentence(pod: PodObject, want: Failure) -> None:
    assert failure(pod) == want


def test_a_pod_that_is_gone_left_no_cause() -> None:
    assert failure() == Failure("PodLost", "The pod was deleted before it could finish.", True)


def test_the_last_of_several_pods_decides() -> None:
    first = make_pod(job_of(), 1, START).running().reported(failed_report(ExitCode.DIVERGED))
    second = make_pod(job_of(), 2, START + timedelta(hours=1)).running().ended(137, reason="OOMKilled")

    assert failure(second, first).reason == failure(first, second).reason == "OOMKilled"


def test_a_job_that_reached_a_deadline_of_its_own_may_be_tried_again() -> None:
    """A run that is out of time is ended for that; a Job only ends so if the deadline was raised after its start."""
    job = job_of().failed(reason="DeadlineExceeded")

    assert failure(pod_of().running().ended(143), job=job) == Failure(
        "DeadlineExceeded", "The Job reached the deadline that it was started with.", True
    )


@pytest.mark.parametrize("last_word", ["{}", '{"exitCode": 3', "null", '{"exitCode": 99, "stage": "train"}'])
def test_a_last_word_that_cannot_be_read_counts_as_log(last_word: str) -> None:
    assert failure(pod_of().running().ended(3, last_word)).log == (last_word,)
