"""The tests' own Kubernetes does what the other tests rely on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import processes
from cluster.control_plane import ControlPlane, KubectlError
from cluster.fixtures import control_plane as control_plane
from cluster.kwok import finish_pod, make_nodes, start_kwok
from support.waiting import wait_until

SECONDS = 20.0
JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "one"},
    "spec": {
        "backoffLimit": 0,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "8"}}}],
            }
        },
    },
}
START_AND_DIE = """
import os, signal, sys
from pathlib import Path
from cluster.control_plane import ControlPlane
ControlPlane(Path(sys.argv[1])).start()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def plane_with_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path_factory.mktemp("plane-with-nodes"), scheduler=True)
    plane.start()
    start_kwok(plane)
    make_nodes(plane, 1, gpus=8)
    yield plane
    plane.stop()


def test_a_job_gets_its_pod(control_plane: ControlPlane) -> None:
    namespace = control_plane.make_namespace("gets-its-pod")
    control_plane.kubectl("create", "job", "one", "--image=none", "--namespace", namespace)
    wait_until(lambda: pods(control_plane, namespace) != [], SECONDS)
    assert [pod["metadata"]["labels"]["job-name"] for pod in pods(control_plane, namespace)] == ["one"]


def test_deleting_a_job_deletes_its_pod(control_plane: ControlPlane) -> None:
    namespace = control_plane.make_namespace("loses-its-pod")
    control_plane.kubectl("create", "job", "one", "--image=none", "--namespace", namespace)
    wait_until(lambda: pods(control_plane, namespace) != [], SECONDS)
    control_plane.kubectl("delete", "job", "one", "--namespace", namespace)
    wait_until(lambda: pods(control_plane, namespace) == [], SECONDS)


def test_a_user_may_do_what_rbac_gives_and_nothing_else(control_plane: ControlPlane) -> None:
    namespace = control_plane.make_namespace("rbac-user")
    jane = control_plane.kubeconfig_for_user("jane", ["readers"])
    control_plane.kubectl("create", "role", "read", "--verb=list", "--resource=pods", "--namespace", namespace)
    control_plane.kubectl("create", "rolebinding", "read", "--role=read", "--group=readers", "--namespace", namespace)
    assert control_plane.kubectl("get", "pods", "--namespace", namespace, "--output=name", kubeconfig=jane) == ""
    with pytest.raises(KubectlError, match='User "jane" cannot list resource "jobs"'):
        control_plane.kubectl("get", "jobs", "--namespace", namespace, kubeconfig=jane)


def test_a_service_account_without_a_role_is_refused(control_plane: ControlPlane) -> None:
    namespace = control_plane.make_namespace("rbac-account")
    account = control_plane.kubeconfig_for_service_account(namespace, "default")
    with pytest.raises(KubectlError, match=f"system:serviceaccount:{namespace}:default.*cannot list"):
        control_plane.kubectl("get", "pods", "--namespace", namespace, kubeconfig=account)


def test_objects_survive_a_killed_api_server(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    plane.start()
    try:
        plane.kubectl("create", "configmap", "kept")
        plane.stop_api_server(signal.SIGKILL)
        assert not plane.is_ready()
        plane.start_api_server()
        assert plane.kubectl("get", "configmap", "kept", "--output=name") == "configmap/kept\n"
    finally:
        plane.stop()


def test_nothing_outlives_a_killed_test(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", START_AND_DIE, str(tmp_path)], env=os.environ | {"PYTHONPATH": str(tests)}
    )
    assert done.returncode == -signal.SIGKILL
    names = [file.stem for file in tmp_path.glob("run/*.pid")]
    assert "kube-apiserver" in names
    wait_until(lambda: not any(processes.is_alive(tmp_path, name) for name in names), SECONDS)


def test_a_fake_node_runs_as_many_pods_as_it_has_gpus_for(plane_with_nodes: ControlPlane) -> None:
    namespace = plane_with_nodes.make_namespace("fake-gpus")
    for name in ("one", "two"):
        job = JOB | {"metadata": {"name": name}}
        plane_with_nodes.kubectl("create", "--namespace", namespace, "--filename=-", input=json.dumps(job))
    wait_until(lambda: phases(plane_with_nodes, namespace) == ["Pending", "Running"], SECONDS)
    (running,) = (pod for pod in pods(plane_with_nodes, namespace) if pod["status"]["phase"] == "Running")
    assert running["status"]["podIP"].startswith("127.")
    plane_with_nodes.kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_pod_ends_as_the_test_says(plane_with_nodes: ControlPlane) -> None:
    namespace = plane_with_nodes.make_namespace("fake-end")
    plane_with_nodes.kubectl("create", "--namespace", namespace, "--filename=-", input=json.dumps(JOB))
    wait_until(lambda: phases(plane_with_nodes, namespace) == ["Running"], SECONDS)
    (pod,) = pods(plane_with_nodes, namespace)
    finish_pod(plane_with_nodes, namespace, pod["metadata"]["name"], exit_code=3, message="bad rows")
    plane_with_nodes.kubectl("wait", "--for=condition=Failed", "job/one", "--namespace", namespace, "--timeout=20s")
    (pod,) = pods(plane_with_nodes, namespace)
    end = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (end["exitCode"], end["message"]) == (3, "bad rows")


def pods(plane: ControlPlane, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(plane.kubectl("get", "pods", "--namespace", namespace, "--output=json"))[
        "items"
    ]
    return found


def phases(plane: ControlPlane, namespace: str) -> list[str]:
    return sorted(pod["status"]["phase"] for pod in pods(plane, namespace))
