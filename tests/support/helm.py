"""Helm, as the tests use it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HELM = Path(sys.executable).parent / "helm"
CHART = Path(__file__).parents[2] / "charts" / "finetune-operator"
VALUES = Path(__file__).parents[1] / "charts" / "values"

Manifest = dict[str, Any]


class HelmError(Exception):
    """Helm refused; the message is what it said."""


def run_helm(*arguments: str | Path, kubeconfig: Path | None = None) -> str:
    """What a helm command prints. Raises HelmError. Nothing of the user's own Helm is read or written."""
    with tempfile.TemporaryDirectory() as home:
        folders = {f"HELM_{name}_HOME": home for name in ("CACHE", "CONFIG", "DATA")}
        cluster = {"KUBECONFIG": str(kubeconfig or Path(home, "none"))}
        environment = os.environ | folders | cluster
        done = subprocess.run([HELM, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def render(
    *arguments: str | Path, name: str = "finetune-operator", namespace: str = "finetune-system"
) -> list[Manifest]:
    """The objects of an installation, sorted by kind, namespace and name."""
    text = run_helm("template", name, CHART, "--namespace", namespace, *arguments)
    return sorted(_documents(text), key=identity)


def identity(manifest: Manifest) -> tuple[str, str, str]:
    """Kind, namespace (empty for none) and name."""
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def pick(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The one object of a kind whose name ends so."""
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"].endswith(name)]
    return found


def _documents(text: str) -> Iterator[Manifest]:
    return (document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document)
