"""What `kubectl finetune` concludes from what it is told: pure decisions."""

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.identity import spec_digest
from finetune_api.job import FineTuneJobSpec
from finetune_api.problems import parse_job
from finetune_api.status import FineTuneJobStatus, RetrainStatus
from finetune_cli.cluster import LiveJob, Pod, explain
from finetune_cli.job_logs import Choice, choose_pod, has_ended
from finetune_cli.job_plan import changed_settings, foresee
from finetune_cli.job_status import span
from support.manifests import make_manifest
from support.statuses import KEY, NOW, make_status

FORBIDDEN = (
    'Error from server (Forbidden): finetunejobs.finetuning.dev "a" is forbidden: User "jane" cannot get resource '
    '"finetunejobs" in API group "finetuning.dev"'
)


def make_live(status: FineTuneJobStatus | None = None, **spec: Any) -> LiveJob:
    """A job in the cluster whose run, if any, is of its manifest."""
    job = parse_job(make_manifest(**spec))
    if status is not None and status.run is not None:
        run = status.run.model_copy(update={"spec_digest": spec_digest(job.spec)})
        status = status.model_copy(update={"run": run})
    return LiveJob(
        job=job.model_copy(update={"status": status}),
        generation=1,
        created=NOW,
        deleted=False,
        requested=None,
    )


def spec_of(**spec: Any) -> FineTuneJobSpec:
    return parse_job(make_manifest(**spec)).spec


@pytest.mark.parametrize(
    ("complaint", "want"),
    [
        (
            f'{FORBIDDEN} in the namespace "clinic"\n',
            "jane may not get finetunejobs in namespace clinic. Ask whoever runs the cluster for that right.",
        ),
        (
            f"{FORBIDDEN} at the cluster scope\n",
            "jane may not get finetunejobs. Ask whoever runs the cluster for that right.",
        ),
        (
            'error: the server doesn\'t have a resource type "finetunejobs"\n',
            "This cluster has no FineTuneJobs: install the operator, or choose another cluster with --context.",
        ),
        ('error: context "a" does not exist\n', "The kubeconfig has no context a."),
        (
            "E1124 03:00:00 memcache.go:265 couldn't get current server API group list\n"
            "The connection to the server 127.0.0.1:9 was refused - did you specify the right host or port?\n",
            "The cluster does not answer. Choose another with --context. kubectl says: The connection to the server "
            "127.0.0.1:9 was refused - did you specify the right host or port?",
        ),
        ("Error from server (Conflict): try again\n", "try again"),
        ("", "kubectl failed without a word"),
    ],
)
def test_what_kubectl_complains_of_becomes_a_sentence(complaint: str, want: str) -> None:
    assert explain(complaint) == want


def make_pod(stage: str, attempt: int, minute: int, run: str = KEY) -> Pod:
    created = NOW + timedelta(minutes=minute)
    return Pod(created=created, name=f"{stage}-{minute}", run=run, stage=stage, attempt=attempt, phase="Running")


PODS = [
    make_pod("prepare", 1, 0),
    make_pod("train", 1, 1),
    make_pod("train", 1, 2),  # the Job replaced a pod that was evicted
    make_pod("train", 2, 3),
    make_pod("check", 1, 4),
    make_pod("train", 1, 5, run="0ther0ne"),
]


@pytest.mark.parametrize(
    ("choice", "want"),
    [
        (Choice(), "train-3"),
        (Choice(stage="prepare"), "prepare-0"),
        (Choice(previous=True), "train-2"),
        (Choice(attempt=1), "train-2"),
        (Choice(stage="prepare", previous=True), None),
        (Choice(attempt=3), None),
    ],
)
def test_the_pod_is_the_latest_of_what_was_asked_for(choice: Choice, want: str | None) -> None:
    pod = choose_pod(PODS, make_live(make_status("training")), choice)

    assert (pod and pod.name) == want


def test_a_job_without_a_run_has_no_pod() -> None:
    assert choose_pod(PODS, make_live(), Choice()) is None


def test_a_run_has_ended_only_if_it_is_of_the_manifest_as_it_is_now() -> None:
    ended = make_live(make_status("rejected"))

    assert has_ended(ended)
    assert not has_ended(replace(ended, generation=2))
    assert not has_ended(make_live(make_status("training")))
    assert not has_ended(make_live())


@pytest.mark.parametrize(
    ("live", "starts", "want"),
    [
        (make_live(), True, "A run starts: the job is new."),
        (
            make_live(make_status("training")),
            False,
            "Nothing new starts: run 20261123-3f9a1c2b is of this manifest and goes on.",
        ),
        (
            make_live(make_status("failed")),
            False,
            "Nothing starts: run 20261123-3f9a1c2b is of this manifest and has ended (Failed).",
        ),
        (
            replace(make_live(make_status("succeeded")), requested="again"),
            True,
            "A run starts: the annotation finetuning.dev/requested-at asks for it.",
        ),
        (
            replace(make_live(make_status("succeeded", retrain=RetrainStatus(handled_request="a"))), requested="a"),
            False,
            "Nothing starts: run 20261123-3f9a1c2b is of this manifest and has ended (Succeeded).",
        ),
        (
            replace(make_live(make_status("training")), requested="again"),
            False,
            "Nothing new starts: run 20261123-3f9a1c2b is of this manifest and goes on.",
        ),
        (
            make_live(
                make_status("succeeded", retrain=RetrainStatus(next_schedule_time=NOW)), retrain={"schedule": "@daily"}
            ),
            True,
            "A run starts: its schedule has come due.",
        ),
        (
            make_live(
                make_status("succeeded", retrain=RetrainStatus(next_schedule_time=NOW + timedelta(hours=1))),
                retrain={"schedule": "@daily"},
            ),
            False,
            "Nothing starts: run 20261123-3f9a1c2b is of this manifest and has ended (Succeeded).",
        ),
        (replace(make_live(), deleted=True), False, "Nothing starts: the job is being deleted."),
        (
            make_live(output={"uri": "file:///adapters"}),
            False,
            "Nothing starts: a file:// output is a folder inside the pod. Use pvc:// or a bucket.",
        ),
        (
            make_live(suspend=True),
            False,
            "Nothing starts while spec.suspend is true. Once it is false, a run starts: the job is new.",
        ),
        (make_live(make_status("failed"), suspend=True), False, "Nothing starts while spec.suspend is true."),
    ],
)
def test_whether_a_run_starts_is_told_with_the_reason(live: LiveJob, starts: bool, want: str) -> None:
    forecast = foresee(live, live.job.spec, NOW)

    assert (forecast.starts, forecast.sentence) == (starts, want)


def test_a_changed_manifest_replaces_a_run_that_goes_on() -> None:
    forecast = foresee(make_live(make_status("training")), spec_of(training={"seed": 7}), NOW)

    assert forecast.starts
    assert forecast.sentence.endswith("It takes the place of run 20261123-3f9a1c2b, which goes on.")


def test_only_settings_that_differ_are_listed_as_changes() -> None:
    before, after = spec_of(retries=1), spec_of(training={"epochs": 9}, method={"quantization": "none"}, retries=2)

    assert changed_settings(before, after) == [
        ("method.quantization", "nf4", "none"),
        ("training.epochs", "3", "9"),
        ("training.maxEpochs", "5", "9"),
    ]


@pytest.mark.parametrize(
    ("seconds", "want"),
    [(-5, "0.0 s"), (31, "31 s"), (7_500, "2 h 5 min"), (172_799, "47 h 59 min"), (259_200, "3 days")],
)
def test_spans_are_short(seconds: int, want: str) -> None:
    assert span(NOW, NOW + timedelta(seconds=seconds)) == want


def test_the_plugin_needs_neither_torch_nor_a_kubernetes_client() -> None:
    script = (
        "import sys, finetune_cli.kubectl, finetune_cli.job_logs, finetune_cli.job_plan, finetune_cli.job_report, "
        "finetune_cli.job_status; print({'torch', 'kubernetes', 'kopf', 'obstore', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "set()\n"
