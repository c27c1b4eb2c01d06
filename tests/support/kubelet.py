"""A node of the tests' Kubernetes that runs nothing but has the logs of its pods: what `kubectl logs` needs."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from cluster.certificates import Pair, issue
from cluster.control_plane import LOOPBACK, ControlPlane

NODE = "logs"


class Kubelet(ThreadingHTTPServer):
    """Answers what the API server asks a kubelet for, from `logs`: pod name to text."""

    daemon_threads = True

    def __init__(self, serving: Pair) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.logs: dict[str, str] = {}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(serving.certificate, serving.key)
        self.socket = context.wrap_socket(self.socket, server_side=True)


class _Handler(BaseHTTPRequestHandler):
    server: Kubelet

    def do_GET(self) -> None:
        """/containerLogs/NAMESPACE/POD/CONTAINER."""
        _, kind, _, pod, _ = urlsplit(self.path).path.split("/")
        found = kind == "containerLogs" and pod in self.server.logs
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(self.server.logs.get(pod, "").encode())

    def log_message(self, *_: object) -> None:
        """Requests are no news."""


@contextmanager
def serving_logs(plane: ControlPlane) -> Iterator[Kubelet]:
    """A running kubelet and its Node."""
    authority = Pair(plane.folder / "ca.crt", plane.folder / "ca.key")
    kubelet = Kubelet(issue(authority, "kubelet", "system:node:logs", ("system:nodes",), (LOOPBACK,)))
    threading.Thread(target=kubelet.serve_forever, daemon=True).start()
    port = kubelet.server_address[1]
    status = {
        "addresses": [{"type": "InternalIP", "address": LOOPBACK}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    plane.kubectl("apply", "--filename", "-", input=json.dumps(_node()))
    patch = json.dumps({"status": status})
    plane.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "--patch", patch)
    try:
        yield kubelet
    finally:
        plane.kubectl("delete", "node", NODE)
        kubelet.shutdown()
        kubelet.server_close()


def _node() -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
