"""The operator in a cluster, by Helm."""

from pathlib import Path

from cluster.cluster import Cluster
from support.helm import CHART, run_helm

RELEASE = "finetune-operator"
SYSTEM = "finetune-system"


def install(cluster: Cluster, values: Path, *more: str) -> None:
    """Install or upgrade the chart, and wait until both replicas are ready."""
    arguments = (RELEASE, CHART, "--namespace", SYSTEM, "--values", values, "--wait", "--timeout=180s", *more)
    run_helm("upgrade", "--install", *arguments, kubeconfig=cluster.kubeconfig)


def uninstall(cluster: Cluster) -> None:
    """Remove the chart."""
    run_helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait", kubeconfig=cluster.kubeconfig)
