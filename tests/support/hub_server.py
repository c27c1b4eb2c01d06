"""The few answers of a model hub that a download needs, over real HTTP on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories with one branch, main. Keys are models/OWNER/NAME or datasets/OWNER/NAME."""

    repositories: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=lambda: [COMMIT])
    """All that can be asked for, of every repository; main is the last."""
    endpoint: str = ""
    sent: list[str] = field(default_factory=list)
    """Names of the files whose content was asked for."""


@contextmanager
def serve_hub(hub: Hub) -> Iterator[Hub]:
    """Answer for a hub at `hub.endpoint` (for HF_ENDPOINT)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self.send_error(405)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output free of requests."""

        def _answer(self) -> None:
            status, headers, content = respond(hub, self.path.partition("?")[0], self.command)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def respond(hub: Hub, path: str, command: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content for one request."""
    parts = path.strip("/").split("/")
    if parts[0] == "api":
        repository, rest = "/".join(parts[1:4]), parts[4:]
    elif parts[0] == "datasets":
        repository, rest = "/".join(parts[:3]), parts[3:]
    else:
        repository, rest = "/".join(["models", *parts[:2]]), parts[2:]
    files = hub.repositories.get(repository)
    if files is None:
        return 404, {"X-Error-Code": "RepoNotFound"}, b""
    if repository in hub.gated:
        return 403, {"X-Error-Code": "GatedRepo"}, b""
    if rest[1] not in ("main", *hub.commits):
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    commit = hub.commits[-1] if rest[1] == "main" else rest[1]
    match rest[0]:
        case "revision":
            return 200, {}, json.dumps({"id": repository, "sha": commit, "siblings": []}).encode()
        case "tree":
            return 200, {}, json.dumps([_entry(name, content) for name, content in files.items()]).encode()
    name = "/".join(rest[2:])
    hub.sent += [name] * (command == "GET")
    return 200, {"X-Repo-Commit": commit, "ETag": f'"{_oid(files[name])}"'}, files[name]


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
