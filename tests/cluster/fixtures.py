"""Fixtures: a Kubernetes API with its controllers, and a cluster that runs pods."""

import os
from collections.abc import Iterator

import pytest

from cluster.cluster import Cluster, open_named_cluster
from cluster.control_plane import ControlPlane
from cluster.node import Node


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A running API server and controller manager. No scheduler, no nodes: pods are created and stay pending."""
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster that KUBECONFIG names, else a node on this machine, which needs root."""
    if os.environ.get("KUBECONFIG"):
        yield open_named_cluster(tmp_path_factory.mktemp("cluster"))
        return
    node = Node()
    try:
        node.start()
    except RuntimeError as error:
        pytest.fail(str(error), pytrace=False)
    yield Cluster(node.plane.kubeconfig, node)
    node.stop()
