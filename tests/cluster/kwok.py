"""Nodes that exist only in the API: kwok plays their kubelets, pods run nowhere."""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import processes
from cluster.binaries import find_binary
from cluster.control_plane import ControlPlane

STAGES = Path(__file__).parent / "stages"
LABEL = "type=kwok"
# Loopback: whoever dials such a pod stays on this machine. A test may listen on the address of a pod to play it.
POD_NETWORK = "127.64.0.0/10"
NODE_ADDRESS = "127.0.0.1"
LEASE_SECONDS = 40
READY_SECONDS = 60.0


def start_kwok(plane: ControlPlane, *, finishing: bool = False, stages: Sequence[Path] = ()) -> None:
    """Let pods that have a node run and be ready; `finishing`: pods of Jobs succeed at once. Ends with the plane.

    `stages` are files of further rules.
    """
    names = ["nodes", "pods-run", *(["pods-finish"] if finishing else [])]
    command = [
        str(find_binary("kwok")),
        f"--kubeconfig={plane.kubeconfig}",
        *(f"--config={file}" for file in (*(STAGES / f"{name}.yaml" for name in names), *stages)),
        f"--manage-nodes-with-label-selector={LABEL}",
        f"--cidr={POD_NETWORK}",
        f"--node-ip={NODE_ADDRESS}",
        "--v=WARN",
        f"--node-lease-duration-seconds={LEASE_SECONDS}",
    ]
    processes.start(plane.folder, "kwok", command)


def stop_kwok(plane: ControlPlane) -> None:
    """Stop playing kubelet: nodes stop saying that they are alive, pods stay as they are."""
    processes.stop(plane.folder, "kwok")


def make_nodes(plane: ControlPlane, count: int, *, gpus: int = 8) -> list[str]:
    """Create nodes named kwok-0, kwok-1, … with `gpus` GPUs each, and wait until they are ready; return their names."""
    nodes = [_describe_node(f"kwok-{index}", gpus) for index in range(count)]
    plane.kubectl("create", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))

    def are_ready() -> bool:
        template = '{.items[*].status.conditions[?(@.type=="Ready")].status}'
        ready = plane.kubectl("get", "nodes", f"--selector={LABEL}", f"--output=jsonpath={template}")
        return ready.split().count("True") >= count

    processes.wait_for(plane.folder, "kwok", are_ready, READY_SECONDS)
    return [node["metadata"]["name"] for node in nodes]


def finish_pod(plane: ControlPlane, namespace: str, name: str, *, exit_code: int = 0, message: str = "") -> None:
    """Let the containers of a pod end with an exit code and a termination message, as a kubelet reports it."""
    pod = json.loads(plane.kubectl("get", "pod", name, "--namespace", namespace, "--output=json"))
    patch = {"status": describe_end(pod, exit_code, message, datetime.datetime.now(datetime.UTC))}
    arguments = ("patch", "pod", name, "--namespace", namespace, "--subresource=status", "--type=strategic")
    plane.kubectl(*arguments, f"--patch={json.dumps(patch)}")


def describe_end(pod: Mapping[str, Any], exit_code: int, message: str, now: datetime.datetime) -> Mapping[str, Any]:
    """The status of a pod whose containers all ended with `exit_code`."""
    time = now.isoformat(timespec="seconds")
    reason = "Error" if exit_code else "Completed"
    ended = {
        "exitCode": exit_code,
        "message": message,
        "reason": reason,
        "startedAt": pod["status"].get("startTime", time),
        "finishedAt": time,
    }
    containers = [
        {"name": container["name"], "image": container["image"], "imageID": "", "ready": False, "restartCount": 0}
        | {"state": {"terminated": ended}}
        for container in pod["spec"]["containers"]
    ]
    ready = {"type": "Ready", "status": "False", "reason": "PodCompleted", "lastTransitionTime": time}
    return {"phase": "Failed" if exit_code else "Succeeded", "conditions": [ready], "containerStatuses": containers}


def _describe_node(name: str, gpus: int) -> Mapping[str, Any]:
    resources = {"cpu": "1000", "memory": "4Ti", "pods": "10000", "nvidia.com/gpu": str(gpus)}
    labels = {
        "type": "kwok",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"capacity": resources, "allocatable": resources},
    }
