"""A real S3 server over a folder: versitygw, built once with Go where it is not installed."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.binaries import find_binary

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
START_SECONDS = 20.0


class S3Server:
    """One server process over a folder. It keeps its port, so that it can be started again after a kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Address for AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def point_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process find the server and its keys in the environment until the test ends."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def make_bucket(self, name: str) -> str:
        """Create a bucket (three characters or more) and return its URI."""
        (self.folder / name).mkdir(parents=True)
        return f"s3://{name}"

    def start(self) -> None:
        """Start and wait until the server accepts connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        server = find_binary("versitygw")
        command = [str(server), "--quiet", "--port", f"127.0.0.1:{self.port}", "posix", str(self.folder)]
        keys = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        with log:
            self._process = subprocess.Popen(command, env=os.environ | keys, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"versitygw did not start:\n{Path(log.name).read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server in order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=START_SECONDS)
            self._process = None

    def kill(self) -> None:
        """End the server as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=START_SECONDS)
            self._process = None


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running server without buckets."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "buckets")
    server.start()
    yield server
    server.stop()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex(("127.0.0.1", port)) == 0
