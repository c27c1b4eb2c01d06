"""The tests' own Kubernetes does what the other tests rely on."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.control_plane import ControlPlane, KubectlError
from cluster.fixtures import control_plane as control_plane


def test_a_job_gets_its_pod(control_plane: ControlPlane) -> None:
    namespace = control_plane.make_namespace("gets-its-pod")
    control_plane.kubectl("create", "job", "one", "--image=none", "--namespace", namespace)
    wait_until(lambda: pods(control_plane, namespace) != [])
    assert [pod["metadata"]["labels"]["job-name"] for pod in pods(control_plane, namespace)] == ["one"]


def test_deleting_a_job_deletes_its_pod(control_plane: ControlPlane) -> None:
    namespace = control_plane.make_namespace("loses-its-pod")
    control_plane.kubectl("create", "job", "one", "--image=none", "--namespace", namespace)
    wait_until(lambda: pods(control_plane, namespace) != [])
    control_plane.kubectl("delete", "job", "one", "--namespace", namespace)
    wait_until(lambda: pods(control_plane, namespace) == [])


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


def pods(plane: ControlPlane, namespace: str) -> list[dict[str, dict[str, dict[str, str]]]]:
    found: list[dict[str, dict[str, dict[str, str]]]] = json.loads(
        plane.kubectl("get", "pods", "--namespace", namespace, "--output=json")
    )["items"]
    return found


def wait_until(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {seconds:.0f} s"
        time.sleep(0.1)
