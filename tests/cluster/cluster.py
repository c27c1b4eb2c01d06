"""The cluster that end-to-end tests run against: the one that KUBECONFIG names, else a node of our own."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.control_plane import run_kubectl
from cluster.images import load_image
from cluster.node import Node


@dataclass(frozen=True)
class Cluster:
    """A cluster with nodes. `node` is None where it is not ours."""

    kubeconfig: Path
    node: Node | None = None

    def kubectl(self, *arguments: str, input: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl, as the administrator unless `kubeconfig` says otherwise; return what it printed."""
        return run_kubectl(kubeconfig or self.kubeconfig, *arguments, input=input)

    def provide_image(self, variable: str, build: Callable[[], str]) -> str:
        """An image that pods can use: built and loaded into our node, else the one that `variable` names."""
        if self.node is not None:
            tag = build()
            load_image(self.node.folder, tag)
            return tag
        image = os.environ.get(variable)
        if not image:
            raise RuntimeError(f"KUBECONFIG is set: set {variable} to an image, too, that its nodes have or can pull.")
        return image


def open_named_cluster(folder: Path) -> Cluster:
    """The cluster of the current context of KUBECONFIG, with its credentials copied to one file in `folder`."""
    path = folder / "kubeconfig"
    path.touch(mode=0o600)
    # The variable may hold several paths.
    path.write_text(run_kubectl(None, "config", "view", "--raw", "--flatten", "--minify"))
    return Cluster(path)
