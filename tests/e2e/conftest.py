"""A cluster with both images, an S3 server with the model and the data, and the operator installed by Helm."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.cluster import Cluster
from cluster.fixtures import cluster as cluster
from cluster.images import BASE_IMAGE, build_image, make_base
from cluster.s3 import S3, serve_s3
from finetune_trainer.store import open_store
from support.helm import run_helm
from support.installation import RELEASE, SYSTEM, install, uninstall

ROOT = Path(__file__).parents[2]
MODEL = ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct"
DATA = ROOT / "manifests" / "examples" / "data" / "clinic-triage.jsonl"
NAMESPACE = "clinic"
BUCKETS = ("models", "clinic", "adapters")


@dataclass(frozen=True)
class Images:
    """What the cluster runs."""

    operator: str
    trainer: str


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> Images:
    """Both images, freshly built, or those that FINETUNE_OPERATOR_IMAGE and FINETUNE_TRAINER_IMAGE name."""

    def build(folder: str, name: str) -> str:
        make_base()
        revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        arguments = {"BASE_IMAGE": BASE_IMAGE, "REVISION": revision or "unknown"}
        return build_image(ROOT / folder / "Dockerfile", ROOT, f"localhost/{name}:e2e", arguments)

    return Images(
        operator=cluster.provide_image("FINETUNE_OPERATOR_IMAGE", lambda: build("operator", "finetune-operator")),
        trainer=cluster.provide_image("FINETUNE_TRAINER_IMAGE", lambda: build("trainer_image", "finetune-trainer")),
    )


@pytest.fixture(scope="session")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that admits only what Pod Security `restricted` allows."""
    for name in (NAMESPACE, SYSTEM):
        cluster.kubectl("create", "namespace", name)
        cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield NAMESPACE
    cluster.kubectl("delete", "namespace", NAMESPACE, SYSTEM, "--timeout=180s")


@pytest.fixture(scope="session")
def s3(cluster: Cluster, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The server, with the model and the data in their buckets."""
    with serve_s3(cluster, namespace, BUCKETS, tmp_path_factory.mktemp("s3")) as server:
        os.environ.update(server.environment)
        models = open_store(f"s3://models/{MODEL.name}")
        for path in MODEL.iterdir():
            models.write_file(path.name, path)
        open_store("s3://clinic").write_file(DATA.name, DATA)
        yield server
        for name in server.environment:
            os.environ.pop(name)


@pytest.fixture(scope="session")
def gpu(cluster: Cluster) -> None:
    """On our own node: two GPUs that exist for the scheduler only, so that manifests need not be changed."""
    if cluster.node is None:
        return
    (node,) = cluster.kubectl("get", "nodes", "--output=name").split()
    resources = {"nvidia.com/gpu": "2"}
    patch = json.dumps({"status": {"capacity": resources, "allocatable": resources}})
    cluster.kubectl("patch", node, "--subresource=status", f"--patch={patch}")


@pytest.fixture(scope="session")
def values(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Values of the chart: our images, and answers that come soon."""
    operator, trainer = (dict(zip(("repository", "tag"), image.rsplit(":", 1), strict=True)) for image in (
        images.operator, images.trainer,
    ))  # fmt: skip
    path = tmp_path_factory.mktemp("values") / "values.json"
    content = {
        "image": operator,
        "trainer": {"image": trainer},
        "tuning": {"progressSeconds": 2, "retryBaseSeconds": 2},
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="session")
def release(cluster: Cluster, values: Path) -> Iterator[str]:
    """The operator, installed by Helm and ready."""
    install(cluster, values)
    yield RELEASE
    if RELEASE in run_helm("list", "--namespace", SYSTEM, "--short", kubeconfig=cluster.kubeconfig):
        uninstall(cluster)
    cluster.kubectl("delete", "crd", "finetunejobs.finetuning.dev", "--timeout=60s")
