"""A real Prometheus on this machine."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

from support.waiting import wait_until

START_SECONDS = 30.0
SCRAPE_SECONDS = 2


@dataclass(frozen=True)
class Target:
    """Something to scrape, and the labels that a monitor would add."""

    address: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str
    targets: Path

    def watch(self, targets: Sequence[Target]) -> None:
        """Scrape these from now on."""
        content = [{"targets": [target.address], "labels": dict(target.labels)} for target in targets]
        fresh = self.targets.with_suffix(".new")
        fresh.write_text(json.dumps(content))
        fresh.replace(self.targets)

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The series that a query gives now."""
        text = urllib.parse.urlencode({"query": promql})
        answer = json.load(urllib.request.urlopen(f"{self.url}/api/v1/query?{text}", timeout=10))
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def healthy_targets(self) -> list[str]:
        """Addresses that answered the last scrape."""
        answer = json.load(urllib.request.urlopen(f"{self.url}/api/v1/targets", timeout=10))
        return [one["labels"]["instance"] for one in answer["data"]["activeTargets"] if one["health"] == "up"]


@contextmanager
def running_prometheus(folder: Path, port: int) -> Iterator[Prometheus]:
    """A server that keeps its data in `folder` and listens on loopback."""
    program = shutil.which("prometheus")
    if program is None:
        raise RuntimeError("Prometheus is not installed; on Debian: apt-get install prometheus.")
    targets, configuration = folder / "targets.json", folder / "prometheus.json"
    targets.write_text("[]")
    scrape = {
        "job_name": "finetune",
        "honor_labels": True,
        "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
    }
    intervals = {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"}
    configuration.write_text(json.dumps({"global": intervals, "scrape_configs": [scrape]}))
    command = [program, f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    server = Prometheus(f"http://127.0.0.1:{port}", targets)
    try:
        wait_until(lambda: _is_ready(server), START_SECONDS, (folder / "prometheus.log").read_text)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def _is_ready(server: Prometheus) -> bool:
    try:
        with urllib.request.urlopen(f"{server.url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except URLError:
        return False
