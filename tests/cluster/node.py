"""A one-node Kubernetes: control plane, containerd, kubelet, kube-proxy and DNS. Needs root on Linux."""

import fcntl
import json
import shutil
import string
import subprocess
from pathlib import Path
from typing import IO, Any

from cluster import cgroups, namespaces, processes
from cluster.binaries import find_binary
from cluster.certificates import issue, write_kubeconfig
from cluster.control_plane import ControlPlane
from cluster.images import PAUSE_IMAGE, load_image, make_pause
from cluster.packages import find_program, require_packages

FOLDER = Path(__file__).parents[2] / ".cache" / "node"
NAME = "finetuning"
CONFIGURATION = Path(__file__).parent / "configuration"
READY_SECONDS = 90.0
CONTAINERD_SECONDS = 20.0


class Node:
    """The node with everything it writes in `folder`. A machine has one at a time."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self._claim: IO[str] | None = None
        self.plane = ControlPlane(
            folder,
            address=namespaces.NODE_ADDRESS,
            services=namespaces.SERVICES,
            scheduler=True,
            prefix=lambda: namespaces.enter_network(folder),
        )

    def start(self, *, guarded: bool = True) -> None:
        """Bring the cluster up until the node is ready. Unguarded, it outlives this process."""
        require_packages()
        self._claim = claim(self.folder)
        try:
            remove_node(self.folder)
            self._start(guarded)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything and remove every trace of it but the logs of its processes, in `FOLDER.log`."""
        if self._claim is None:
            return
        namespaces.destroy(self.folder)
        self.plane.stop()
        remove_node(self.folder)
        self._claim.close()
        self._claim = None

    def _start(self, guarded: bool) -> None:
        cgroups.create()
        namespaces.create(self.folder)
        self.plane.start(guarded=guarded)
        self._write_configuration()
        self._start_runtime()
        self._start_agents()
        processes.wait_for(self.folder, "kubelet", self.is_ready, READY_SECONDS)

    def is_ready(self) -> bool:
        """Whether the node says that it runs pods."""
        template = '--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        return self.plane.kubectl("get", "node", NAME, "--ignore-not-found", template) == "True"

    def advertise_gpus(self, count: int) -> None:
        """Let the scheduler count on `count` GPUs, which no container will find."""
        resources = {"nvidia.com/gpu": str(count)}
        patch = {"status": {"capacity": resources, "allocatable": resources}}
        self.plane.kubectl("patch", "node", NAME, "--subresource=status", f"--patch={json.dumps(patch)}")

    def _write_configuration(self) -> None:
        user = f"system:node:{NAME}"
        pair = issue(self.plane.authority, "kubelet", user, ("system:nodes",), (namespaces.NODE_ADDRESS, NAME))
        write_kubeconfig(self.folder / "kubelet.kubeconfig", self.plane.server, self.plane.authority, pair)
        self.plane.kubeconfig_for_user("system:kube-proxy")
        write_configuration(self.folder)

    def _start_runtime(self) -> None:
        containerd = str(find_program("containerd"))
        command = [*namespaces.enter(self.folder), containerd, f"--config={self.folder / 'containerd.toml'}"]
        processes.start(self.folder, "containerd", command)
        processes.wait_for(self.folder, "containerd", self._answers, CONTAINERD_SECONDS)
        load_image(self.folder, make_pause())

    def _start_agents(self) -> None:
        inside = namespaces.enter(self.folder)
        kubelet = [
            str(find_binary("kubelet")),
            f"--config={self.folder / 'kubelet.yaml'}",
            f"--kubeconfig={self.folder / 'kubelet.kubeconfig'}",
            f"--hostname-override={NAME}",
            f"--node-ip={namespaces.NODE_ADDRESS}",
        ]
        proxy = [
            str(find_binary("kube-proxy")),
            f"--config={self.folder / 'kube-proxy.yaml'}",
            f"--hostname-override={NAME}",
        ]
        dns = [str(find_binary("coredns")), "-conf", str(self.folder / "Corefile")]
        for name, command in {"kubelet": kubelet, "kube-proxy": proxy, "coredns": dns}.items():
            processes.start(self.folder, name, [*inside, *command])

    def _answers(self) -> bool:
        return subprocess.run([*namespaces.enter(self.folder), "ctr", "version"], capture_output=True).returncode == 0


def write_configuration(folder: Path) -> None:
    """The files of `configuration/`, with the node's own values."""
    values: dict[str, Any] = {
        "folder": folder,
        "address": namespaces.NODE_ADDRESS,
        "pods": namespaces.PODS,
        "cgroup": cgroups.ROOT,
        "pause": PAUSE_IMAGE,
        "plugins": plugin.parent if (plugin := find_program("ptp")) else "",
    }
    for source in (path for path in CONFIGURATION.rglob("*") if path.is_file()):
        target = folder / source.relative_to(CONFIGURATION)
        target.parent.mkdir(exist_ok=True)
        target.write_text(string.Template(source.read_text()).safe_substitute(values))


def claim(folder: Path, *, ending: bool = False) -> IO[str]:
    """Keep others from starting or ending a node, until the file is closed or this process ends.

    RuntimeError if another process has claimed it, or if one is up by hand and we do not want to end it.
    """
    folder.parent.mkdir(exist_ok=True)
    file = folder.with_suffix(".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RuntimeError("A running test uses the tests' own Kubernetes node: wait until that has ended.") from None
    if processes.is_alive(folder, namespaces.NAME) and not ending:
        file.close()
        raise RuntimeError("The tests' own Kubernetes node is already up: `python tests/cluster down` ends it.")
    return file


def remove_node(folder: Path) -> None:
    """End and remove what is left of a node, whoever started it."""
    namespaces.destroy(folder)
    processes.stop_all(folder)
    cgroups.remove()
    if (folder / "log").exists():
        kept = folder.with_suffix(".log")
        shutil.rmtree(kept, ignore_errors=True)
        (folder / "log").rename(kept)
    shutil.rmtree(folder, ignore_errors=True)
