"""The tests' own node runs pods as a real one does, and leaves nothing behind."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from cluster import cgroups
from cluster.cluster import Cluster
from cluster.images import build_image, make_base
from cluster.node import FOLDER, Node
from cluster.packages import find_problem
from cluster.s3 import S3, serve_s3
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(find_problem() is not None, reason=str(find_problem()))

IMAGE = "localhost/test-node:tests"
DOCKERFILE = """
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS libraries
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir "obstore>=0.12,<0.13"
FROM ${BASE_IMAGE}
COPY --from=libraries /opt/venv /opt/venv
USER 65532:65532
"""
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
SAY_WHO = """
import os, re, sys
status = dict(re.findall(r"(\\w+):\\s+(\\S+)", open("/proc/self/status").read()))
print(os.getuid(), int(status["CapBnd"], 16), status["Seccomp"], os.access("/", os.W_OK))
open("/dev/termination-log", "w").write("the last word")
sys.exit(3)
"""
PUT = """
import obstore
from obstore.store import S3Store
obstore.put(S3Store("models", client_options={"allow_http": True}), "from/a/pod", b"hello")
"""
DIAL_OUT = """
import socket
socket.create_connection(("192.0.2.1", 80), timeout=5)
"""
STAYS = "while True: pass"
# In the command lines and mounts of the node and its pods.
OURS = f"{FOLDER}|containerd|{STAYS}"
POD_SECONDS = 60.0


def describe_machine() -> dict[str, str]:
    """What a node could leave behind, as text."""
    commands = {
        "links": ["ip", "-brief", "link"],
        "routes": ["ip", "route"],
        "mounts": ["grep", "--extended-regexp", OURS, "/proc/self/mounts"],
        "filters": ["iptables-save"],
        "groups": ["find", "/sys/fs/cgroup", "-name", cgroups.ROOT.strip("/")],
        "settings": ["sysctl", "net.ipv4.ip_forward", "vm.overcommit_memory", "kernel.panic", "kernel.panic_on_oops"],
        "processes": ["pgrep", "--full", OURS],
    }
    return {name: subprocess.run(command, capture_output=True, text=True).stdout for name, command in commands.items()}


@pytest.fixture(scope="module")
def machine_before() -> dict[str, str]:
    return describe_machine()


@pytest.fixture(scope="module")
def own_cluster(machine_before: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    assert machine_before
    folder = tmp_path_factory.mktemp("image")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    node = Node()
    node.start()
    cluster = Cluster(node.plane.kubeconfig, node)
    cluster.provide_image("", lambda: build_image(folder / "Dockerfile", folder, IMAGE, {"BASE_IMAGE": make_base()}))
    yield cluster
    node.stop()


@pytest.fixture(scope="module")
def s3(own_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with serve_s3(own_cluster, "default", ["models"], tmp_path_factory.mktemp("s3")) as server:
        yield server


def test_a_restricted_pod_says_how_it_ended(own_cluster: Cluster) -> None:
    pod = run_pod(own_cluster, "restricted", SAY_WHO, {"securityContext": RESTRICTED})
    end = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (end["exitCode"], end["message"]) == (3, "the last word")
    assert own_cluster.kubectl("logs", "restricted") == "65532 0 2 False\n"


def test_a_pod_over_its_memory_limit_is_killed(own_cluster: Cluster) -> None:
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    pod = run_pod(own_cluster, "large", "bytearray(1 << 28)", limits)
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled"


def test_a_pod_finds_the_s3_server_by_its_name(own_cluster: Cluster, s3: S3) -> None:
    access = {"envFrom": [{"secretRef": {"name": "s3"}}]}
    pod = run_pod(own_cluster, "puts", PUT, access)
    assert pod["status"]["phase"] == "Succeeded", own_cluster.kubectl("logs", "puts")
    variables = s3.environment
    store = S3Store(
        "models",
        endpoint=s3.outside,
        access_key_id=variables["AWS_ACCESS_KEY_ID"],
        secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region=variables["AWS_REGION"],
        client_options={"allow_http": True},
    )
    assert obstore.get(store, "from/a/pod").bytes() == b"hello"


def test_a_pod_has_no_way_out(own_cluster: Cluster) -> None:
    run_pod(own_cluster, "dials-out", DIAL_OUT, {})
    assert "Network is unreachable" in own_cluster.kubectl("logs", "dials-out")


def test_the_scheduler_counts_gpus(own_cluster: Cluster) -> None:
    assert own_cluster.node is not None
    own_cluster.node.advertise_gpus(1)
    limits = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    assert run_pod(own_cluster, "one-gpu", "", limits)["status"]["phase"] == "Succeeded"


def test_taking_the_node_down_leaves_no_trace(own_cluster: Cluster, machine_before: dict[str, str]) -> None:
    assert own_cluster.node is not None
    own_cluster.kubectl("run", "stays", f"--image={IMAGE}", "--command", "--", "python3", "-c", STAYS)
    own_cluster.kubectl("wait", "--for=condition=Ready", "pod/stays", "--timeout=60s")
    own_cluster.node.stop()
    assert describe_machine() == machine_before
    assert not own_cluster.node.folder.exists()


def run_pod(cluster: Cluster, name: str, program: str, settings: dict[str, Any]) -> dict[str, Any]:
    container = {"name": "main", "image": IMAGE, "command": ["/opt/venv/bin/python", "-c", program], **settings}
    spec = {"restartPolicy": "Never", "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    cluster.kubectl("create", "--filename=-", input=json.dumps(pod))

    def find() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(cluster.kubectl("get", "pod", name, "--output=json"))
        return found

    def has_ended() -> bool:
        return find()["status"]["phase"] in ("Succeeded", "Failed")

    wait_until(has_ended, POD_SECONDS, lambda: cluster.kubectl("describe", "pod", name))
    return find()
