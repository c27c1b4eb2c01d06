"""The operator as a process of its own, as in production."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from prometheus_client.parser import text_string_to_metric_families

from cluster.control_plane import ControlPlane, free_ports
from support.waiting import wait_until

START_SECONDS = 60.0
STOP_SECONDS = 30.0
NAMESPACE = "finetune-system"


@dataclass(frozen=True)
class OperatorProcess:
    """A running operator."""

    process: subprocess.Popen[bytes]
    log: Path
    metrics_port: int
    health_port: int

    def leads(self) -> bool:
        """Whether it holds the Lease and knows what is there."""
        return self.metric("finetune_leader") == 1

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of a metric that have these labels; 0 before it can be asked."""
        try:
            text = urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5).read().decode()
        except URLError:
            return 0.0
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(
            sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, SIGKILL for a crash."""
        self.process.send_signal(number)
        self.process.wait(timeout=STOP_SECONDS)


def start_operator(
    plane: ControlPlane, folder: Path, settings: Mapping[str, str] | None = None, kubeconfig: Path | None = None
) -> OperatorProcess:
    """Start an operator; `settings` are further FINETUNE_* variables. It logs to `folder`."""
    metrics_port, health_port = free_ports(2)
    environment = {
        "FINETUNE_TRAINER_IMAGE": "finetune-trainer:test",
        "FINETUNE_METRICS_PORT": str(metrics_port),
        "FINETUNE_HEALTH_PORT": str(health_port),
        "FINETUNE_POD_NAME": f"operator-{metrics_port}",
        "FINETUNE_RETRY_BASE_SECONDS": "1",
        "FINETUNE_PROGRESS_SECONDS": "1",
        "KUBECONFIG": str(kubeconfig or plane.kubeconfig),
        **(settings or {}),
    }
    log = folder / f"operator-{metrics_port}.log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "finetune_operator"]
        process = subprocess.Popen(command, env=os.environ | environment, stdout=file, stderr=file)
    return OperatorProcess(process, log, metrics_port, health_port)


@contextmanager
def running_operator(
    plane: ControlPlane, folder: Path, settings: Mapping[str, str] | None = None, kubeconfig: Path | None = None
) -> Iterator[OperatorProcess]:
    """An operator that leads, until the end of the block. Its log is shown if it breaks off."""
    if f"namespace/{NAMESPACE}" not in plane.kubectl("get", "namespaces", "--output=name").split():
        plane.make_namespace(NAMESPACE)
    operator = start_operator(plane, folder, settings, kubeconfig)
    try:
        wait_until(operator.leads, START_SECONDS, lambda: operator.log.read_text())
        yield operator
    finally:
        if operator.process.poll() is None:
            operator.stop()
