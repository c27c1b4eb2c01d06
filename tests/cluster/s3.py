"""An S3 server in the cluster: a Deployment of versitygw with empty buckets, a Service and a Secret."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import processes
from cluster.binaries import find_binary
from cluster.cluster import Cluster
from cluster.control_plane import LOOPBACK, free_ports
from cluster.images import make_s3

NAME = "s3"
PORT = 7070
USER = 65532
IMAGE_VARIABLE = "FINETUNE_S3_IMAGE"
ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
READY_SECONDS = 120.0
FORWARD_SECONDS = 20.0


@dataclass(frozen=True)
class S3:
    """Where the server is, for pods (`inside`) and for the test (`outside`). Its Secret is named `s3`."""

    inside: str
    outside: str

    @property
    def environment(self) -> dict[str, str]:
        """What a client on this machine needs in its environment; the Secret says the same for pods."""
        return describe_access(self.outside)


@contextmanager
def serve_s3(cluster: Cluster, namespace: str, buckets: Sequence[str], folder: Path) -> Iterator[S3]:
    """Run the server in a namespace that exists. Data goes with its pod; `folder` is for a log."""
    image = cluster.provide_image(IMAGE_VARIABLE, make_s3)
    inside = f"http://{NAME}.{namespace}.svc"
    documents = describe_server(image, buckets, inside)
    cluster.kubectl("apply", f"--namespace={namespace}", "--filename=-", input=json.dumps(documents))
    timeout = f"--timeout={READY_SECONDS:.0f}s"
    cluster.kubectl("rollout", "status", f"--namespace={namespace}", timeout, f"deployment/{NAME}")
    if cluster.node is not None:
        # Service addresses of our own node are routed.
        template = "--output=jsonpath={.spec.clusterIP}"
        address = cluster.kubectl("get", "service", NAME, f"--namespace={namespace}", template)
        yield S3(inside, f"http://{address}")
    else:
        with forward_port(cluster, namespace, folder) as port:
            yield S3(inside, f"http://{LOOPBACK}:{port}")


@contextmanager
def forward_port(cluster: Cluster, namespace: str, folder: Path) -> Iterator[int]:
    """A port of this machine that leads to the server."""
    (port,) = free_ports(1)
    target = ["port-forward", f"--namespace={namespace}", f"service/{NAME}", f"{port}:80"]
    processes.start(folder, NAME, [str(find_binary("kubectl")), f"--kubeconfig={cluster.kubeconfig}", *target])
    processes.wait_for(folder, NAME, lambda: "Forwarding" in processes.read_log(folder, NAME), FORWARD_SECONDS)
    try:
        yield port
    finally:
        processes.stop(folder, NAME)
        shutil.rmtree(folder / "run")


def describe_access(endpoint: str) -> dict[str, str]:
    """The variables that S3 clients read."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }


def describe_server(image: str, buckets: Sequence[str], endpoint: str) -> dict[str, Any]:
    """What to apply, as a List. It satisfies Pod Security `restricted`."""
    labels = {"app": NAME}
    secret = {"apiVersion": "v1", "kind": "Secret", "stringData": describe_access(endpoint)}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": PORT}]},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {
            "selector": {"matchLabels": labels},
            "strategy": {"type": "Recreate"},
            "template": {"metadata": {"labels": labels}, "spec": _describe_pod(image, buckets)},
        },
    }
    items = [{**document, "metadata": {"name": NAME}} for document in (secret, service, deployment)]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _describe_pod(image: str, buckets: Sequence[str]) -> dict[str, Any]:
    # A bucket is a folder, so a volume makes one; the server keeps its locks beside them.
    folders = {"locks": "/buckets"} | {bucket: f"/buckets/{bucket}" for bucket in buckets}
    container = {
        "name": "versitygw",
        "image": image,
        "args": ["--quiet", "--port", f":{PORT}", "posix", "/buckets"],
        "env": [
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": NAME, "key": key}}}
            for variable, key in {
                "ROOT_ACCESS_KEY": "AWS_ACCESS_KEY_ID",
                "ROOT_SECRET_KEY": "AWS_SECRET_ACCESS_KEY",
            }.items()
        ],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in folders.items()],
    }
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {}} for name in folders],
    }
