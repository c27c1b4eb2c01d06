"""A real API server with its controllers, and the operator as it is installed: a process with just its own rights."""

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.control_plane import ControlPlane
from support.lives import Life
from support.operator_process import NAMESPACE, OperatorProcess, running_operator

ROOT = Path(__file__).parents[2]
SERVICE_ACCOUNT = "finetune-operator"
GROUP = f"system:serviceaccounts:{NAMESPACE}"


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with the CRD and the operator's rights; what the operator asks of it is written down."""
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), audited_group=GROUP)
    plane.start()
    plane.make_namespace(NAMESPACE)
    for folder in ("crd", "rbac"):
        plane.kubectl("apply", "--filename", str(ROOT / "manifests" / folder))
    account = f"--serviceaccount={NAMESPACE}:{SERVICE_ACCOUNT}"
    plane.kubectl("create", "serviceaccount", SERVICE_ACCOUNT, "--namespace", NAMESPACE)
    plane.kubectl("create", "clusterrolebinding", "test", "--clusterrole=finetune-operator", account)
    plane.kubectl("create", "rolebinding", "test", "--role=finetune-operator-leader", account, "--namespace", NAMESPACE)
    yield plane
    plane.stop()


@pytest.fixture(scope="session")
def credentials(plane: ControlPlane) -> Path:
    """A kubeconfig with the operator's own token."""
    return plane.kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT, duration="24h")


@pytest.fixture(scope="session")
def operator(
    plane: ControlPlane, credentials: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """A running operator that all tests share."""
    with running_operator(plane, tmp_path_factory.mktemp("operator"), kubeconfig=credentials) as operator:
        yield operator


@pytest.fixture
def make_life(plane: ControlPlane) -> Callable[[], Life]:
    """Namespaces of their own."""
    return lambda: Life(plane, plane.make_namespace(f"life-{uuid.uuid4().hex[:6]}"))


@pytest.fixture
def life(make_life: Callable[[], Life], operator: OperatorProcess) -> Life:
    """A namespace of its own, served by the shared operator."""
    assert operator.process.poll() is None, operator.log.read_text()
    return make_life()


@pytest.fixture
def requests_of(plane: ControlPlane) -> Callable[[], list[dict[str, object]]]:
    """Everything the operator asked of the API server so far."""
    return lambda: [json.loads(line) for line in plane.audit_log.read_text().splitlines()]
