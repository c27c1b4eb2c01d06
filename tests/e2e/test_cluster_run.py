"""`kubectl apply` to an adapter in S3, on a real cluster: real images, a real model, a real kubelet."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.cluster import Cluster
from cluster.control_plane import free_ports
from finetune_trainer.manifest import verify
from finetune_trainer.store import open_store
from support.dashboard import queries
from support.installation import SYSTEM, install, uninstall
from support.jobs import write_dataset
from support.prometheus import Prometheus, Target, running_prometheus
from support.rows import echo_rows
from support.tiny_models import write_tiny_model
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "manifests" / "examples" / "cluster.yaml"
TRANSCRIPT = ROOT / ".cache" / "e2e"
"""What a user saw, for the documentation."""
NAME = "clinic-triage"
RUN_SECONDS = 1500.0

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("namespace", "s3", "gpu", "release")]


class Job:
    """One FineTuneJob, seen through kubectl."""

    def __init__(self, cluster: Cluster, namespace: str, name: str = NAME) -> None:
        self.cluster, self.namespace, self.name = cluster, namespace, name
        self.phases: list[str] = []

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """Run kubectl in the job's namespace."""
        return self.cluster.kubectl(*arguments, f"--namespace={self.namespace}", input=input)

    def status(self) -> dict[str, Any]:
        """Its status now; each new phase is noted."""
        status: dict[str, Any] = json.loads(self.kubectl("get", "finetunejob", self.name, "--output=json")).get(
            "status", {}
        )
        phase = status.get("phase", "")
        if phase and self.phases[-1:] != [phase]:
            self.phases.append(phase)
        return status

    def follow(self, *phases: str, seconds: float = RUN_SECONDS) -> dict[str, Any]:
        """Its status once it is in one of these phases."""
        wait_until(lambda: self.status().get("phase") in phases, seconds, self.tell)
        return self.status()

    def tell(self) -> str:
        """Everything about it, for a failed test."""
        pods = self.kubectl("get", "pods", "--output=wide")
        return self.kubectl("describe", "finetunejob", self.name)[-6000:] + pods

    def pods(self, stage: str) -> list[dict[str, Any]]:
        """Its pods of a stage."""
        selector = f"--selector=finetuning.dev/job={self.name},finetuning.dev/stage={stage}"
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", "pods", "--output=json", selector))["items"]
        return found

    def record(self, name: str, *command: str) -> str:
        """What a command prints, kept for the documentation."""
        TRANSCRIPT.mkdir(parents=True, exist_ok=True)
        text = self.kubectl(*command)
        (TRANSCRIPT / f"{name}.txt").write_text(f"$ kubectl {' '.join(command)}\n{text}")
        return text


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus beside the cluster."""
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), free_ports(1)[0]) as server:
        yield server


def test_a_manifest_becomes_an_adapter_in_the_bucket(cluster: Cluster, namespace: str, prometheus: Prometheus) -> None:
    job = Job(cluster, namespace)
    job.kubectl("apply", f"--filename={EXAMPLE}")
    job.follow("Training")
    wait_until(lambda: job.status().get("progress", {}).get("checkpointStep"), RUN_SECONDS, job.tell)
    job.record("get-training", "get", "finetunejobs")
    watch_everything(prometheus, cluster, job)
    evicted = job.pods("train")[0]["metadata"]["name"]
    evict(job, evicted)
    wait_until(lambda: runs_elsewhere(job, evicted), 240, job.tell)
    watch_everything(prometheus, cluster, job)
    wait_until(lambda: job.status().get("progress", {}).get("tokensPerSecond"), RUN_SECONDS, job.tell)
    wait_until(lambda: prometheus.query("finetune_trainer_tokens_per_second"), 30, job.tell)
    empty = panels_without_data(prometheus, namespace)
    status = job.follow("Succeeded", "Rejected", "Failed")
    assert status["phase"] == "Succeeded", job.tell()
    wait_until(lambda: not empty & panels_without_data(prometheus, namespace), 60, lambda: empty)
    assert [phase for phase in job.phases if phase != "Pending"][:2] == ["Preparing", "Training"]
    assert status["run"]["attempt"] == 1  # an eviction is no failure
    job.kubectl("wait", f"finetunejob/{NAME}", "--for=condition=Ready", "--timeout=10s")
    job.record("get", "get", "finetunejobs")
    job.record("get-wide", "get", "finetunejobs", "--output=wide")
    described = job.record("describe", "describe", "finetunejob", NAME)
    assert "240 rows prepared" in described
    assert "A card needs at least" in described
    assert "learningRate" in job.record("explain", "explain", "finetunejob.spec.training")


def test_the_bucket_holds_a_complete_run_that_went_on_after_the_eviction(cluster: Cluster, namespace: str) -> None:
    status = Job(cluster, namespace).status()
    store = open_store(f"s3://adapters/clinic/{namespace}/{NAME}")
    assert json.loads(store.read("current.json"))["runId"] == status["run"]["id"] == status["current"]["runId"]
    run = store.under(f"runs/{status['run']['id']}")
    assert verify(run) == []
    report = json.loads(run.read("report.json"))
    assert report["training"]["resumedFrom"] > 0
    assert report["outcome"]["evaluation"]["verdict"] == "Passed"
    assert b"<html" in run.read("report.html")


def test_the_adapter_loads_in_plain_peft(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    uri = Job(cluster, namespace).status()["current"]["uri"]
    adapter = open_store(uri)
    for file in adapter.list():
        adapter.read_file(file.path, tmp_path / file.path)
    base = AutoModelForCausalLM.from_pretrained(ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct")
    model = PeftModel.from_pretrained(base, str(tmp_path))
    weights = {name: weight for name, weight in model.named_parameters() if "lora_B" in name}
    assert weights
    assert all(weight.abs().sum() > 0 for weight in weights.values())


def test_applying_again_and_upgrading_starts_nothing(cluster: Cluster, namespace: str, values: Path) -> None:
    job = Job(cluster, namespace)
    before = job.status()
    assert "unchanged" in job.kubectl("apply", f"--filename={EXAMPLE}")
    install(cluster, values, "--set", "logLevel=DEBUG")
    assert job.status() == before
    assert len(job.pods("train")) <= 2


def test_pods_on_two_nodes_train_together(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    if cluster.node is None:
        pytest.skip("asks for two GPUs")
    for path in write_tiny_model(tmp_path / "tiny").iterdir():
        open_store("s3://models/tiny").write_file(path.name, path)
    rows = write_dataset(tmp_path / "rows.jsonl", echo_rows(60))
    open_store("s3://clinic").write_file(rows.name, rows)

    def change(spec: dict[str, Any]) -> None:
        spec["model"]["uri"], spec["dataset"]["uri"] = "s3://models/tiny", f"s3://clinic/{rows.name}"
        spec["dataset"]["split"], spec["evaluation"] = {}, {"maxNewTokens": 4}
        spec["resources"] |= {"nodes": 2, "cpu": "400m", "memory": "3Gi"}

    job = variant(cluster, namespace, "together", change)
    status = job.follow("Succeeded", "Rejected", "Failed", seconds=400)
    assert status["phase"] in ("Succeeded", "Rejected"), job.tell()
    pods = {pod["spec"]["hostname"]: pod["status"]["phase"] for pod in job.pods("train")}
    assert sorted(name[-2:] for name in pods) == ["-0", "-1"], job.tell()
    run = open_store(f"s3://adapters/clinic/{namespace}/together/runs/{status['run']['id']}")
    report = json.loads(run.read("report.json"))
    assert report["training"]["processes"] == 2
    job.kubectl("delete", "finetunejob", "together", "--timeout=30s")
    wait_until(lambda: "together" not in job.kubectl("get", "services", "--output=name"), 60, job.kubectl)


def test_bad_rows_are_named_and_cost_no_gpu(cluster: Cluster, namespace: str) -> None:
    open_store("s3://clinic").write("broken.jsonl", b'{"prompt": "a", "completion": "b"}\n{"prompt": 7}\n')
    job = variant(
        cluster, namespace, "broken", lambda spec: spec["dataset"].update(uri="s3://clinic/broken.jsonl", split={})
    )
    status = job.follow("Failed", seconds=240)
    assert status["failure"]["reason"] == "DataRejected", job.tell()
    assert "2" in status["message"]
    assert job.pods("train") == []


def test_a_missing_secret_is_said_and_heals(cluster: Cluster, namespace: str) -> None:
    job = variant(cluster, namespace, "secretless", lambda spec: spec["output"].update(secretRef={"name": "later"}))
    wait_until(lambda: "There is no Secret later" in job.status().get("message", ""), 60, job.tell)
    job.kubectl("create", "secret", "generic", "later", "--from-literal=NOTHING=1")
    job.follow("Preparing", "Training", "Failed", "Rejected", "Succeeded", seconds=180)
    job.kubectl("delete", "finetunejob", "secretless", "--timeout=30s")


def test_wrong_keys_are_said(cluster: Cluster, namespace: str) -> None:
    keys = ("--from-literal=AWS_ACCESS_KEY_ID=wrong", "--from-literal=AWS_SECRET_ACCESS_KEY=wrong")
    endpoint = job_endpoint(cluster, namespace)
    Job(cluster, namespace).kubectl(
        "create", "secret", "generic", "wrong", *keys, f"--from-literal=AWS_ENDPOINT_URL={endpoint}",
        "--from-literal=AWS_REGION=us-east-1",
    )  # fmt: skip

    def change(spec: dict[str, Any]) -> None:
        spec["retries"] = 0
        for part in ("model", "dataset", "output"):
            spec[part]["secretRef"] = {"name": "wrong"}

    job = variant(cluster, namespace, "wrong-keys", change)
    status = job.follow("Failed", seconds=240)
    assert status["failure"]["exitCode"] in (3, 6, 7), job.tell()
    assert "s3://" in status["message"]
    assert job.pods("train") == []


def test_uninstalling_keeps_jobs_and_data_and_deleting_never_hangs(cluster: Cluster, namespace: str) -> None:
    job = Job(cluster, namespace)
    before = job.status()
    uninstall(cluster)
    assert job.status() == before
    job.kubectl("delete", "finetunejob", "--all", "--timeout=30s")
    wait_until(lambda: job.kubectl("get", "jobs", "--output=name") == "", 60, job.kubectl)
    run = open_store(f"s3://adapters/clinic/{namespace}/{NAME}/runs/{before['run']['id']}")
    assert verify(run) == []


def test_installed_again_the_finished_run_is_found_without_training(
    cluster: Cluster, namespace: str, values: Path
) -> None:
    install(cluster, values)
    job = Job(cluster, namespace)
    job.kubectl("apply", f"--filename={EXAMPLE}")
    status = job.follow("Succeeded", "Failed", seconds=240)
    assert status["phase"] == "Succeeded", job.tell()
    assert job.pods("train") == []


def variant(cluster: Cluster, namespace: str, name: str, change: Any) -> Job:
    """Apply the example under another name, changed."""
    from finetune_api.documents import dump_yaml, load_yaml

    manifest: Any = load_yaml(EXAMPLE.read_text())
    manifest["metadata"]["name"] = name
    change(manifest["spec"])
    job = Job(cluster, namespace, name)
    job.kubectl("apply", "--filename=-", input=dump_yaml(manifest))
    return job


def evict(job: Job, pod: str) -> None:
    """Ask for a pod's eviction, as draining its node does."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": job.namespace}}
    path = f"/api/v1/namespaces/{job.namespace}/pods/{pod}/eviction"
    job.cluster.kubectl("create", "--raw", path, "--filename=-", input=json.dumps(eviction))


def runs_elsewhere(job: Job, evicted: str) -> bool:
    """Whether another training pod took over, and the status says so."""
    running = [pod["metadata"]["name"] for pod in job.pods("train") if pod["status"]["phase"] == "Running"]
    return bool(set(running) - {evicted}) and job.status()["phase"] == "Training"


def watch_everything(prometheus: Prometheus, cluster: Cluster, job: Job) -> None:
    """Scrape the operator's replicas and the running trainer, as the chart's monitors would."""
    replicas = json.loads(cluster.kubectl("get", "pods", f"--namespace={SYSTEM}", "--output=json"))["items"]
    targets = [Target(f"{pod['status']['podIP']}:8080", {"pod": pod["metadata"]["name"]}) for pod in replicas]
    for pod in job.pods("train"):
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]:
            labels = {"namespace": job.namespace, "pod": pod["metadata"]["name"], "job_name": job.name}
            run = pod["metadata"]["labels"]["finetuning.dev/run"]
            targets.append(Target(f"{pod['status']['podIP']}:8080", {**labels, "run": run}))
    prometheus.watch(targets)
    wait_until(lambda: len(prometheus.healthy_targets()) == len(targets), 30, prometheus.healthy_targets)


QUIET = ("Checks of the data", "Retries by reason", "Failures by reason", "GPU memory", "Errors of reconciliation")
"""Panels that are rightly empty in a run without failures and without a GPU."""


def panels_without_data(prometheus: Prometheus, namespace: str) -> set[str]:
    """Queries of the dashboard that give nothing now, apart from the quiet ones. Each must be valid."""
    asked = queries(namespace=namespace, step="30s")
    return {name for name, query in asked.items() if not name.startswith(QUIET) and not prometheus.query(query)}


def job_endpoint(cluster: Cluster, namespace: str) -> str:
    """Where pods find the S3 server."""
    import base64

    data = json.loads(cluster.kubectl("get", "secret", "s3", f"--namespace={namespace}", "--output=json"))["data"]
    return base64.b64decode(data["AWS_ENDPOINT_URL"]).decode()
