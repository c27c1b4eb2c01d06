"""FineTuneJobs in the tests' Kubernetes: the CRD, jobs, and statuses written as the operator would."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.control_plane import ControlPlane
from finetune_api.documents import dump_yaml
from finetune_api.status import FineTuneJobStatus

CRD = Path(__file__).parents[2] / "manifests" / "crd" / "finetunejobs.finetuning.dev.yaml"


@contextmanager
def jobs_without_operator(folder: Path) -> Iterator[ControlPlane]:
    """A control plane with the CRD and nobody who acts on FineTuneJobs, so that tests can write their status."""
    plane = ControlPlane(folder)
    plane.start()
    try:
        install_crd(plane)
        yield plane
    finally:
        plane.stop()


def install_crd(plane: ControlPlane) -> None:
    """Install the CRD, or bring the one that is there up to date, and wait until its resource is served."""
    plane.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(CRD))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=20s", "--filename", str(CRD))
    # Discovery is cached for ten minutes, and may have been asked before the resource was served.
    plane.kubectl("api-resources", "--api-group=finetuning.dev", "--cached=false")


def apply_job(plane: ControlPlane, namespace: str, manifest: dict[str, Any], *options: str) -> str:
    """Apply a manifest to a namespace; return what kubectl printed. Raises KubectlError."""
    return plane.kubectl("apply", "--namespace", namespace, *options, "--filename", "-", input=dump_yaml(manifest))


def get_job(plane: ControlPlane, namespace: str, name: str) -> dict[str, Any]:
    """The job as the API server shows it."""
    found: dict[str, Any] = json.loads(plane.kubectl("get", "ftj", name, "--namespace", namespace, "--output=json"))
    return found


def write_status(plane: ControlPlane, namespace: str, name: str, status: FineTuneJobStatus) -> None:
    """Replace the status of a job."""
    plain = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    patch = json.dumps([{"op": "replace", "path": "/status", "value": plain}])
    where = (name, "--namespace", namespace, "--subresource=status")
    plane.kubectl("patch", "ftj", *where, "--type=json", "--patch", patch)
