"""/progress, /metrics and /healthz over HTTP, beside the run and never in its way."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from finetune_api.contract import PROGRESS_PATH
from finetune_trainer.log import log
from finetune_trainer.session import Standing
from finetune_trainer.telemetry import make_registry

PATIENCE_SECONDS = 10.0
"""How long a client may stay silent."""


@contextmanager
def serving(port: int, standing: Standing) -> Iterator[None]:
    """Answer on every address of this machine, on any free port if it is 0; if that fails, go on without."""
    try:
        listener = _listen(port)
    except OSError as error:
        log.warning(f"Progress and metrics are not served: port {port} cannot be opened ({error.strerror}).")
        yield
        return
    server = Server(listener, standing)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    log.info(f"Serving {PROGRESS_PATH} and /metrics on port {server.server_port}.")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def answer(path: str, accept: str, standing: Standing, registry: CollectorRegistry) -> tuple[int, str, bytes]:
    """Status, content type and content for one path."""
    if path == PROGRESS_PATH:
        return 200, "application/json", standing.progress.model_dump_json(by_alias=True).encode()
    if path == "/metrics":
        encode, kind = choose_encoder(accept)
        return 200, kind, encode(registry)
    if path == "/healthz":
        return 200, "text/plain", b"ok\n"
    return 404, "text/plain", f"There are {PROGRESS_PATH}, /metrics and /healthz.\n".encode()


class Server(ThreadingHTTPServer):
    """A server over a socket that listens already."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, standing: Standing) -> None:
        super().__init__(listener.getsockname()[:2], Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.server_port = listener, listener.getsockname()[1]
        self.standing, self.registry = standing, make_registry(standing)

    def handle_error(self, _request: object, _client: object) -> None:
        """One line for a request that failed, mostly since the client went away."""
        log.warning(f"A request for progress or metrics failed: {sys.exception()!r}")


class Handler(BaseHTTPRequestHandler):
    """Answers GET."""

    server: Server
    timeout = PATIENCE_SECONDS

    def do_GET(self) -> None:
        """Send the page."""
        path, accept = self.path.partition("?")[0], self.headers.get("Accept", "")
        status, kind, content = answer(path, accept, self.server.standing, self.server.registry)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not worth a line."""
