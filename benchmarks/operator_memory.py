"""What many finished FineTuneJobs cost: memory of the operator, time to steady state after a start, writes to the API.

Usage: python benchmarks/operator_memory.py [--count 5000]

Starts a Kubernetes of its own, lets one job finish, gives its status to as many others as asked, and starts the
operator anew beside them. Steady: every job was looked at and nothing waits to be.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from operator_throughput import FINETUNEJOBS, ROOT, context_of, finetunejob

from cluster.control_plane import ControlPlane
from cluster.kwok import make_nodes, start_kwok
from support.operator_process import OperatorProcess, running_operator, start_operator
from support.waiting import wait_until

AT_ONCE = 32
NAMESPACE = "many"
WATCH_SECONDS = 20.0
"""How long the steady state is watched for writes."""


def finish_one(plane: ControlPlane, folder: Path) -> dict[str, Any]:
    """The status of a job that the operator saw through."""
    manifest = {**finetunejob(True), "metadata": {"name": "first", "namespace": NAMESPACE}}

    def read() -> dict[str, Any]:
        job: dict[str, Any] = json.loads(plane.kubectl("get", "finetunejob", "first", "-n", NAMESPACE, "-o", "json"))
        return job

    with running_operator(plane, folder):
        plane.kubectl("apply", "--filename=-", input=json.dumps(manifest))
        wait_until(lambda: read().get("status", {}).get("phase") == "Succeeded", 60, read)
        time.sleep(2)
        return dict(read()["status"])


async def multiply(plane: ControlPlane, status: dict[str, Any], count: int) -> None:
    """Create many jobs that are finished already."""
    path = f"{FINETUNEJOBS}/namespaces/{NAMESPACE}/finetunejobs"
    headers = {"Content-Type": "application/merge-patch+json"}
    connector = aiohttp.TCPConnector(ssl=context_of(plane), limit=AT_ONCE)
    async with aiohttp.ClientSession(plane.server, connector=connector) as session:

        async def create(index: int) -> None:
            name = f"job-{index}"
            async with session.post(path, json={**finetunejob(True), "metadata": {"name": name}}) as response:
                response.raise_for_status()
            body = json.dumps({"status": status})
            async with session.patch(f"{path}/{name}/status", data=body, headers=headers) as response:
                response.raise_for_status()

        for start in range(0, count, AT_ONCE):
            await asyncio.gather(*(create(index) for index in range(start, min(start + AT_ONCE, count))))


def is_steady(operator: OperatorProcess, count: int) -> bool:
    """Whether every job was looked at and none waits."""
    looked_at = operator.metric("finetune_reconcile_duration_seconds_count")
    return looked_at >= count and operator.metric("finetune_workqueue_depth") == 0


def writes(operator: OperatorProcess) -> float:
    """Requests that changed something but the Lease."""
    verbs, resources = ("create", "patch", "delete", "update"), ("finetunejobs", "jobs", "events", "pods")
    return sum(
        operator.metric("finetune_api_requests_total", verb=verb, resource=resource)
        for verb in verbs
        for resource in resources
    )


def peak(operator: OperatorProcess) -> int:
    """The most resident bytes so far."""
    lines = Path(f"/proc/{operator.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as name:
        folder = Path(name)
        plane = ControlPlane(folder, scheduler=True, queries_per_second=2000)
        plane.start()
        try:
            plane.kubectl("apply", "--filename", str(ROOT / "manifests/crd"))
            start_kwok(plane, stages=[ROOT / "benchmarks/run-finishes.yaml"])
            make_nodes(plane, 1)
            plane.make_namespace(NAMESPACE)
            asyncio.run(multiply(plane, finish_one(plane, folder), count))
            started = time.monotonic()
            operator = start_operator(plane, folder, {"FINETUNE_PROGRESS_SECONDS": "10"})
            wait_until(lambda: is_steady(operator, count + 1), 120, operator.log.read_text)
            steady = time.monotonic() - started
            time.sleep(WATCH_SECONDS)
            mib = 2**20
            print(
                f"{count} finished FineTuneJobs: steady {steady:.1f} s after the start of the process; "
                f"memory {operator.memory() / mib:.0f} MiB, at most {peak(operator) / mib:.0f} MiB; "
                f"{writes(operator):.0f} writes"
            )
            operator.stop()
        finally:
            plane.stop()


if __name__ == "__main__":
    main()
