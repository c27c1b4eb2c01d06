"""What people see of a job: `kubectl get`, `kubectl wait`, and the plugin `kubectl finetune`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.binaries import find_binary
from cluster.control_plane import ControlPlane
from finetune_api.contract import ATTEMPT_LABEL, JOB_LABEL, RUN_LABEL, STAGE_LABEL
from finetune_api.documents import dump_yaml
from finetune_api.identity import spec_digest
from finetune_api.problems import parse_job
from finetune_api.retrain import RetrainSpec
from finetune_api.status import FineTuneJobStatus, RetrainStatus
from finetune_trainer.charts import MINUS
from support.cli import Ended, write_job
from support.custom_resource import apply_job, install_crd, jobs_without_operator, write_status
from support.kubelet import NODE, Kubelet, serving_logs
from support.manifests import make_manifest
from support.s3_server import S3Server
from support.statuses import KEY, NOW, make_run, make_status
from support.waiting import wait_until

NAMESPACE = "plugin"
SECONDS = 60
PAGE = b"<!doctype html><title>clinic-triage</title>"


@dataclass(frozen=True)
class Person:
    """Somebody with kubectl, the plugin on PATH, and a terminal of 80 columns."""

    folder: Path
    kubeconfig: Path

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(find_binary("kubectl")), "finetune", *map(str, arguments)]

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECTL": str(find_binary("kubectl")),
            "COLUMNS": "80",
            **more,
        }

    def finetune(self, *arguments: str | Path, **more: str) -> Ended:
        """Run `kubectl finetune`."""
        done = subprocess.run(
            self.command(*arguments), env=self.environment(**more), capture_output=True, text=True, timeout=SECONDS
        )
        return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server of this module's own: the others' has an operator."""
    with jobs_without_operator(tmp_path_factory.mktemp("plane")) as plane:
        plane.make_namespace(NAMESPACE)
        yield plane


@pytest.fixture(scope="module")
def person(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """The administrator."""
    folder = tmp_path_factory.mktemp("plugins")
    return Person(write_plugin(folder), plane.kubeconfig)


@pytest.fixture(scope="module")
def kubelet(plane: ControlPlane) -> Iterator[Kubelet]:
    """A node whose pods have logs."""
    with serving_logs(plane) as running:
        yield running


def write_plugin(folder: Path) -> Path:
    """An executable kubectl-finetune in a folder for PATH."""
    plugin = folder / "kubectl-finetune"
    plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m finetune_cli.kubectl "$@"\n')
    plugin.chmod(0o755)
    return folder


def make_job(plane: ControlPlane, name: str, status: FineTuneJobStatus | None = None, **spec: Any) -> None:
    """A job whose latest run, if it has one, is of its manifest."""
    manifest = make_manifest({"name": name}, **spec)
    apply_job(plane, NAMESPACE, manifest)
    if status is not None:
        write_status(plane, NAMESPACE, name, of_manifest(status, manifest))


def of_manifest(status: FineTuneJobStatus, manifest: dict[str, Any]) -> FineTuneJobStatus:
    """The status of a run that was started by this manifest."""
    assert status.run is not None
    run = status.run.model_copy(update={"spec_digest": spec_digest(parse_job(manifest).spec)})
    return status.model_copy(update={"run": run})


def make_pod(plane: ControlPlane, job: str, stage: str, attempt: int, run: str = KEY) -> str:
    """A pod of a stage on the node with the logs."""
    name = f"{job}-{run}-{stage}-{attempt}"
    labels = {JOB_LABEL: job, RUN_LABEL: run, STAGE_LABEL: stage, ATTEMPT_LABEL: str(attempt)}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": NODE, "containers": [{"name": "trainer", "image": "none"}]},
    }
    plane.kubectl("apply", "--namespace", NAMESPACE, "--filename", "-", input=dump_yaml(pod))
    return name


def start_pod(plane: ControlPlane, name: str, phase: str = "Running") -> None:
    patch = f'{{"status": {{"phase": "{phase}"}}}}'
    plane.kubectl("patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "--patch", patch)


def test_get_shows_phase_progress_verdict_and_adapter(plane: ControlPlane) -> None:
    for name in ("training", "succeeded", "rejected", "no-secret"):
        make_job(plane, f"get-{name}", make_status(name))
    make_job(plane, "get-new")

    header, *lines = plane.kubectl("get", "ftj", "-n", NAMESPACE).splitlines()
    rows = {line.split()[0]: line.split()[1:-1] for line in lines}

    assert header.split() == ["NAME", "PHASE", "STEP", "OF", "VERDICT", "ADAPTER", "AGE"]
    assert rows["get-training"] == ["Training", "310", "940", "20261120-11aa22bb"]
    assert rows["get-succeeded"] == ["Succeeded", "Passed", "20261123-3f9a1c2b"]
    assert rows["get-rejected"] == ["Rejected", "Inconclusive", "20261120-11aa22bb"]
    assert rows["get-no-secret"] == ["Pending"]
    assert rows["get-new"] == []
    wide = plane.kubectl("get", "ftj", "get-no-secret", "-n", NAMESPACE, "-o", "wide")
    assert "SecretMissing" in wide
    assert "There is no Secret s3 in this namespace." in wide


def test_wait_ends_when_the_job_is_ready(plane: ControlPlane) -> None:
    make_job(plane, "waited", make_status("training"))
    waiting = subprocess.Popen(
        [
            find_binary("kubectl"),
            "wait",
            "--for=condition=Ready",
            "ftj/waited",
            "-n",
            NAMESPACE,
            f"--timeout={SECONDS}s",
        ],
        env={**os.environ, "KUBECONFIG": str(plane.kubeconfig)},
        stdout=subprocess.PIPE,
        text=True,
    )
    write_status(plane, NAMESPACE, "waited", make_status("succeeded"))

    assert waiting.communicate(timeout=SECONDS)[0] == "finetunejob.finetuning.dev/waited condition met\n"
    assert waiting.returncode == 0


def test_status_of_a_run_shows_how_far_it_is(plane: ControlPlane, person: Person) -> None:
    make_job(plane, "running", make_status("training"))
    shown = person.finetune("status", "running", "-n", NAMESPACE)

    assert shown.code == 0
    assert shown.out.startswith("plugin/running  Training\nTraining.\n")
    assert "run       20261123-3f9a1c2b, attempt 2" in shown.out
    assert "because the manifest changed" in shown.out
    assert "310/940  32 %" in shown.out
    assert "loss 1.213  validation 1.342  42:15 left" in shown.out
    assert "in use    the adapter of run 20261120-11aa22bb" in shown.out
    assert "data      2,400 rows prepared. A card needs at least 7.2 GiB." in shown.out
    assert words_of(shown.out, "Reconciling")[1] == "yes"
    assert words_of(shown.out, "Ready")[1] == "no"
    assert max(map(len, shown.out.splitlines())) <= 82  # only a URI may be longer than the terminal


def flat(page: str) -> str:
    """A page without its line breaks."""
    return " ".join(page.split())


def words_of(page: str, name: str) -> list[str]:
    """The words of the line that begins with a name."""
    [line] = [line for line in page.splitlines() if line.strip().startswith(name)]
    return line.split()


def test_status_of_a_finished_run_shows_what_it_found(plane: ControlPlane, person: Person) -> None:
    make_job(plane, "done", make_status("succeeded"))
    shown = person.finetune("status", "done", "-n", NAMESPACE)

    assert "plugin/done  Succeeded" in shown.out
    assert "ago, after 1 h 32 min" in shown.out
    assert "36 held-out rows in 12 independent groups" in shown.out
    assert words_of(shown.out, "exactMatch")[-2:] == ["[+72.2,", "+97.2]"]
    assert "Passed. The adapter answers 31 of 36 held-out rows exactly" in shown.out
    assert words_of(shown.out, "20261120-11aa22bb")[1] == "Succeeded"
    assert "train " not in shown.out


def test_status_of_a_failure_shows_the_cause_the_log_and_what_follows(plane: ControlPlane, person: Person) -> None:
    make_job(plane, "again", make_status("retrying"))
    make_job(plane, "over", make_status("failed"))

    again = person.finetune("status", "again", "-n", NAMESPACE).out
    assert "plugin/again  Pending\nA forward pass did not fit the GPU. Attempt 3 follows.\n" in again
    assert "OutOfMemory, exit code 5. It is tried again." in again
    assert "  14:02:51 ERROR CUDA out of memory: tried to allocate 2.1 GiB" in again
    over = person.finetune("status", "over", "-n", NAMESPACE).out
    assert "DataRejected, exit code 3. It is not tried again by itself." in over
    assert over.count("Row 17 has no answer.") == 1


def test_status_of_a_new_or_changed_job_says_that_nobody_has_looked_yet(plane: ControlPlane, person: Person) -> None:
    make_job(plane, "unseen")
    assert "The operator has not looked at this job yet." in person.finetune("status", "unseen", "-n", NAMESPACE).out

    make_job(plane, "changed", make_status("succeeded"))
    make_job(plane, "changed", training={"epochs": 2})
    shown = person.finetune("status", "changed", "-n", NAMESPACE).out
    assert "The manifest has changed since; this is how the one before stood." in shown


@pytest.mark.parametrize(("ending", "code"), [("succeeded", 0), ("rejected", 1), ("failed", 1)])
def test_watching_ends_with_the_run_and_tells_by_the_exit_code(
    plane: ControlPlane, person: Person, tmp_path: Path, ending: str, code: int
) -> None:
    name = f"watched-{ending}"
    make_job(plane, name, make_status("training"))
    out = tmp_path / "out"
    with out.open("w") as file:
        watching = subprocess.Popen(
            person.command("status", name, "-n", NAMESPACE, "--watch"), env=person.environment(), stdout=file
        )
    wait_until(lambda: "310/940" in out.read_text(), SECONDS)
    write_status(plane, NAMESPACE, name, make_status(ending))

    assert watching.wait(timeout=SECONDS) == code
    assert f"plugin/{name}  {ending.capitalize()}" in out.read_text()


def test_watching_a_job_that_is_deleted_says_so(plane: ControlPlane, person: Person, tmp_path: Path) -> None:
    make_job(plane, "deleted", make_status("training"))
    out = tmp_path / "out"
    with out.open("w") as file:
        watching = subprocess.Popen(
            person.command("status", "deleted", "-n", NAMESPACE, "--watch"),
            env=person.environment(),
            stdout=file,
            stderr=file,
        )
    wait_until(lambda: "310/940" in out.read_text(), SECONDS)
    plane.kubectl("delete", "ftj", "deleted", "-n", NAMESPACE)

    assert watching.wait(timeout=SECONDS) == 1
    assert out.read_text().endswith("kubectl finetune: FineTuneJob deleted was deleted.\n")


def test_logs_come_from_the_pod_of_the_current_stage(plane: ControlPlane, person: Person, kubelet: Kubelet) -> None:
    make_job(plane, "logged", make_status("training"))
    for stage, attempt in (("prepare", 1), ("train", 1), ("train", 2)):
        pod = make_pod(plane, "logged", stage, attempt)
        start_pod(plane, pod, "Running" if attempt == 2 else "Failed")
        kubelet.logs[pod] = f"{stage} {attempt}\n"
    kubelet.logs[make_pod(plane, "logged", "check", 7)] = "not this\n"
    kubelet.logs[make_pod(plane, "logged", "train", 9, run="0ther0ne")] = "nor this\n"

    def logs(*arguments: str) -> Ended:
        return person.finetune("logs", "logged", "-n", NAMESPACE, *arguments)

    assert logs() == Ended(0, "train 2\n", f"logged-{KEY}-train-2: stage train, attempt 2\n")
    assert logs("--previous").out == "train 1\n"
    assert logs("--stage", "prepare").out == "prepare 1\n"
    assert logs("--attempt", "1", "--stage", "train").out == "train 1\n"
    assert logs("--stage", "train", "--follow").out == "train 2\n"
    missing = logs("--attempt", "5")
    assert (missing.code, missing.out) == (1, "")
    assert "The current run has no pod of attempt 5. The job is Training." in missing.err


def test_following_goes_from_pod_to_pod_until_the_run_has_ended(
    plane: ControlPlane, person: Person, kubelet: Kubelet, tmp_path: Path
) -> None:
    make_job(plane, "followed", make_status("training"))
    first = make_pod(plane, "followed", "prepare", 1)
    kubelet.logs[first] = "rows are fine\n"
    out = tmp_path / "out"
    with out.open("w") as file:
        following = subprocess.Popen(
            person.command("logs", "followed", "-n", NAMESPACE, "-f"),
            env=person.environment(),
            stdout=file,
            stderr=subprocess.DEVNULL,
        )
    start_pod(plane, first)
    wait_until(lambda: out.read_text() == "rows are fine\n", SECONDS)
    second = make_pod(plane, "followed", "train", 1)
    kubelet.logs[second] = "step 1\n"
    start_pod(plane, second)
    wait_until(lambda: out.read_text() == "rows are fine\nstep 1\n", SECONDS)
    write_status(plane, NAMESPACE, "followed", make_status("succeeded"))

    assert following.wait(timeout=SECONDS) == 0
    assert out.read_text() == "rows are fine\nstep 1\n"


def test_logs_of_a_pod_that_is_gone_are_the_last_lines_of_the_status(plane: ControlPlane, person: Person) -> None:
    make_job(plane, "gone", make_status("failed"))
    shown = person.finetune("logs", "gone", "-n", NAMESPACE)

    assert shown.out == "14:02:51 ERROR row 17: the last message is not from the assistant\n"
    assert "The pod is gone" in shown.err


def test_logs_of_a_pod_that_has_not_started_say_why(plane: ControlPlane, person: Person) -> None:
    make_job(plane, "starting", make_status("no-node"))
    pod = make_pod(plane, "starting", "train", 1)
    shown = person.finetune("logs", "starting", "-n", NAMESPACE)

    assert shown.code == 1
    want = f"Pod {pod} has not started yet. No node can take the pod: 0/3 nodes are available."
    assert want in shown.err


def test_a_report_shows_metrics_and_places(plane: ControlPlane, person: Person) -> None:
    make_job(plane, "reported", make_status("rejected"))
    shown = person.finetune("report", "reported", "-n", NAMESPACE).out

    assert words_of(shown, "exactMatch") == ["exactMatch", "50.0", "%", "55.6", "%", "+5.6", f"[{MINUS}8.3,", "+19.4]"]
    assert "Inconclusive. " in shown
    assert "Report:  s3://adapters/clinic/plugin/reported/runs/20261123-3f9a1c2b/report.html\n" in shown
    assert "of the earlier run 20261120-11aa22bb" in shown


def test_a_report_is_downloaded_with_the_credentials_of_the_machine(
    plane: ControlPlane, person: Person, s3_server: S3Server, tmp_path: Path
) -> None:
    bucket = s3_server.make_bucket("plugin-reports")
    page = s3_server.folder / "plugin-reports" / "plugin" / "saved" / "runs" / "20261123-3f9a1c2b" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_bytes(PAGE)
    make_job(plane, "saved", make_status("succeeded"), output={"uri": bucket})
    save = ("report", "saved", "-n", NAMESPACE, "--save", tmp_path / "report.html")

    assert person.finetune(*save, **s3_server.environment) == Ended(0, f"{tmp_path / 'report.html'}\n", "")
    assert (tmp_path / "report.html").read_bytes() == PAGE
    refused = person.finetune(*save, **{**s3_server.environment, "AWS_SECRET_ACCESS_KEY": "wrong"})
    assert refused.code == 6
    assert "Traceback" not in refused.err


def test_a_report_that_is_not_there_yet_is_said_to_be_missing(plane: ControlPlane, person: Person) -> None:
    make_job(plane, "early", make_status("training"))
    shown = person.finetune("report", "early", "-n", NAMESPACE)

    want = "kubectl finetune: The current run of early has no report yet. It is Training.\n"
    assert (shown.code, shown.err) == (1, want)
    make_job(plane, "inside", make_status("succeeded"), output={"uri": "pvc://adapters/clinic"})
    shown = person.finetune("report", "inside", "-n", NAMESPACE, "--save", "report.html")
    assert shown.code == 1
    assert "is only reachable inside the cluster" in shown.err


def test_a_plan_tells_settings_with_origin_pods_and_whether_anything_starts(
    plane: ControlPlane, person: Person
) -> None:
    spec: dict[str, Any] = {"training": {"learningRate": 2e-5, "seed": 7}, "resources": {"gpus": 2, "memory": "64Gi"}}
    make_job(plane, "planned", make_status("succeeded"), **spec)
    shown = person.finetune("plan", "planned", "-n", NAMESPACE).out

    assert "Nothing starts: run 20261123-3f9a1c2b is of this manifest and has ended (Succeeded)." in flat(shown)
    assert spec_digest(parse_job(make_manifest(**spec)).spec) in shown
    assert words_of(shown, "training.seed") == ["training.seed", "7", "manifest"]
    # Written out although it is the default.
    assert words_of(shown, "training.learningRate") == ["training.learningRate", "2e-5", "manifest"]
    assert words_of(shown, "training.epochs") == ["training.epochs", "3", "best-practice", "article"]
    assert words_of(shown, "prepare") == ["prepare", "2", "8Gi", "100Gi", "none"]
    assert words_of(shown, "train ") == ["train", "4", "64Gi", "100Gi", "2", "nvidia.com/gpu"]
    assert "never: there is no schedule, and the data is not looked at" in shown


def test_a_plan_of_a_job_applied_by_the_server_tells_the_same(plane: ControlPlane, person: Person) -> None:
    manifest = make_manifest({"name": "served"}, training={"learningRate": 2e-5, "seed": 7})
    apply_job(plane, NAMESPACE, manifest, "--server-side")
    shown = person.finetune("plan", "served", "-n", NAMESPACE).out

    assert "A run starts: the job is new." in shown
    assert words_of(shown, "training.seed")[-1] == "manifest"
    assert words_of(shown, "training.learningRate")[-1] == "manifest"
    assert words_of(shown, "training.epochs")[-2:] == ["best-practice", "article"]


def test_a_plan_tells_when_the_job_runs_by_itself(plane: ControlPlane, person: Person) -> None:
    retrain = RetrainStatus(next_schedule_time=NOW, last_check_time=NOW)
    spec = RetrainSpec(schedule="0 3 * * 0", time_zone="Europe/Berlin", on_dataset_change=True)
    scheduled = {"retrain": spec.model_dump(by_alias=True)}
    make_job(plane, "scheduled", make_status("succeeded", retrain=retrain), **scheduled)
    shown = person.finetune("plan", "scheduled", "-n", NAMESPACE).out

    assert "schedule   0 3 * * 0 (Europe/Berlin), next 2026-11-23 14:02 UTC" in shown
    assert "data       looked at every 1 h 0 min, next 2026-11-23 15:02 UTC" in shown


def test_a_plan_of_a_manifest_tells_what_applying_it_would_do(
    plane: ControlPlane, person: Person, tmp_path: Path
) -> None:
    make_job(plane, "edited", make_status("succeeded"))

    def plan(**spec: Any) -> Ended:
        manifest = write_job(tmp_path / "job.yaml", make_manifest({"name": "edited", "namespace": NAMESPACE}, **spec))
        return person.finetune("plan", "-f", manifest)

    assert "Nothing starts: run 20261123-3f9a1c2b is of this manifest" in flat(plan().out)
    assert "Nothing starts" in plan(retries=7, resources={"memory": "64Gi"}).out
    changed = plan(training={"epochs": 4}).out
    assert "A run starts: the manifest asks for another result than the latest run did." in flat(changed)
    assert words_of(changed, "training.epochs") == ["training.epochs", "3", "4"]
    assert "training.seed" not in changed
    held = plan(training={"epochs": 4}, suspend=True).out
    assert "Nothing starts while spec.suspend is true. Once it is false, a run starts" in flat(held)
    wrong = plan(training={"epochs": -1})
    assert wrong.code == 2
    assert "spec.training.epochs: must be at least 1, got -1." in wrong.err


def test_a_plan_of_a_manifest_that_is_not_in_the_cluster_says_that_it_is_new(person: Person, tmp_path: Path) -> None:
    manifest = write_job(tmp_path / "job.yaml", make_manifest({"name": "fresh"}))

    assert "The job is new: applying it starts its first run." in person.finetune("plan", "-f", manifest).out
    other = person.finetune("plan", "another", "-f", manifest)
    assert other.err == f"kubectl finetune: {manifest} is the manifest of fresh, not of another.\n"


def test_a_missing_job_is_said_to_be_missing(person: Person) -> None:
    for command in ("status", "logs", "report", "plan"):
        shown = person.finetune(command, "nowhere", "-n", NAMESPACE)
        want = "There is no FineTuneJob nowhere in namespace plugin. `kubectl get ftj -A` lists those of all."
        assert shown == Ended(1, "", f"kubectl finetune: {want}\n")


def test_without_the_right_to_look_the_person_is_told_whom_to_ask(plane: ControlPlane, person: Person) -> None:
    jane = Person(person.folder, plane.kubeconfig_for_user("plugin-jane"))
    shown = jane.finetune("status", "anything", "-n", NAMESPACE)

    want = "plugin-jane may not get finetunejobs in namespace plugin. Ask whoever runs the cluster for that right."
    assert shown == Ended(1, "", f"kubectl finetune: {want}\n")


def test_without_kubectl_the_person_is_told_to_install_it(person: Person) -> None:
    shown = person.finetune("status", "anything", KUBECTL="/nowhere/kubectl")

    want = "/nowhere/kubectl cannot be run: No such file or directory. Install kubectl, or set KUBECTL to its path."
    assert shown == Ended(1, "", f"kubectl finetune: {want}\n")


def test_a_cluster_that_does_not_answer_is_named(person: Person, tmp_path: Path) -> None:
    nowhere = tmp_path / "kubeconfig"
    cluster = {"name": "a", "cluster": {"server": "https://127.0.0.1:9"}}
    context = {"name": "a", "context": {"cluster": "a", "user": "a"}}
    user = {"name": "a", "user": {"token": "a"}}
    config = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "a"}
    nowhere.write_text(dump_yaml({"apiVersion": "v1", "kind": "Config", **config}))
    shown = Person(person.folder, nowhere).finetune("status", "anything")

    assert shown.code == 1
    assert shown.err.startswith("kubectl finetune: The cluster does not answer. Choose another with --context.")
    other = person.finetune("status", "anything", "--context", "elsewhere")
    assert other.err == "kubectl finetune: The kubeconfig has no context elsewhere.\n"


def test_a_cluster_without_the_operator_is_said_to_have_no_jobs(tmp_path: Path) -> None:
    bare = ControlPlane(tmp_path / "plane")
    bare.start()
    try:
        (tmp_path / "plugins").mkdir()
        shown = Person(write_plugin(tmp_path / "plugins"), bare.kubeconfig).finetune("status", "anything")
    finally:
        bare.stop()

    want = "This cluster has no FineTuneJobs: install the operator, or choose another cluster with --context."
    assert shown == Ended(1, "", f"kubectl finetune: {want}\n")


def test_a_status_of_a_later_version_asks_for_an_update(plane: ControlPlane, person: Person) -> None:
    name = "finetunejobs.finetuning.dev"
    make_job(plane, "later", make_status("succeeded", run=make_run(finished_at=NOW, outcome="Succeeded")))
    later = '[{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/mood", '
    plane.kubectl("patch", "crd", name, "--type=json", "--patch", later + '"value": {"type": "string"}}]')

    def write_mood() -> bool:
        patch = '{"status": {"mood": "good"}}'
        plane.kubectl("patch", "ftj", "later", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", patch)
        return "mood" in plane.kubectl("get", "ftj", "later", "-n", NAMESPACE, "-o", "json")

    wait_until(write_mood, SECONDS)
    try:
        shown = person.finetune("status", "later", "-n", NAMESPACE)
    finally:
        install_crd(plane)

    assert shown.code == 1
    assert "update this program. It does not know: status.mood." in shown.err
