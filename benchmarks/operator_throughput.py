"""How fast many FineTuneJobs get their pods, beside as many plain Jobs, on one machine in one run.

Usage: python benchmarks/operator_throughput.py [--count 500] [--repeat 3]

For each measurement: starts a Kubernetes of its own (API server, controllers, scheduler; nodes and kubelets played by
kwok) and the operator as in production (a process with 16 workers), creates all objects at once and watches until every
pod exists and every parent says so. Order: plain Jobs, FineTuneJobs without a prepare stage, FineTuneJobs with it;
repeated. Prints one line per measurement and the ratios.
"""

import argparse
import asyncio
import json
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cluster.control_plane import ControlPlane
from cluster.kwok import make_nodes, start_kwok
from support.operator_process import running_operator

AT_ONCE = 32
DEADLINE = 300.0
SETTLE_SECONDS = 8.0
"""A new CRD keeps the API server busy for some seconds: it publishes its schema."""
NODES, GPUS = 20, 50
NAMESPACE = "bench"
ROOT = Path(__file__).parents[1]
JOBS, FINETUNEJOBS = "/apis/batch/v1", "/apis/finetuning.dev/v1alpha1"
POD = {
    "nodeSelector": {"type": "kwok"},
    "restartPolicy": "Never",
    "containers": [{"name": "trainer", "image": "trainer", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
}
PLAIN_JOB = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": POD}}}


@dataclass(frozen=True)
class Case:
    """One kind of object to create many of."""

    name: str
    api: str
    plural: str
    manifest: dict[str, Any]
    says_so: Callable[[dict[str, Any]], bool]
    """Whether a status tells that the training pod exists."""


def finetunejob(separate: bool) -> dict[str, Any]:
    """A small valid job for the nodes of kwok."""
    resources = {"gpus": 1, "cpu": "1", "memory": "1Gi", "prepare": {"separate": separate, "cpu": "1", "memory": "1Gi"}}
    spec = {
        "model": {"uri": "s3://models/base"},
        "dataset": {"uri": "s3://data/rows.jsonl"},
        "output": {"uri": "s3://adapters/bench"},
        "resources": resources,
        "podTemplate": {"nodeSelector": {"type": "kwok"}},
    }
    return {"apiVersion": "finetuning.dev/v1alpha1", "kind": "FineTuneJob", "spec": spec}


def is_training(status: dict[str, Any]) -> bool:
    """A FineTuneJob whose training pod runs."""
    return status.get("phase") == "Training"


CASES = (
    Case("plain Jobs", JOBS, "jobs", PLAIN_JOB, lambda status: bool(status.get("active"))),
    Case("FineTuneJobs, no prepare stage", FINETUNEJOBS, "finetunejobs", finetunejob(False), is_training),
    Case("FineTuneJobs, with prepare stage", FINETUNEJOBS, "finetunejobs", finetunejob(True), is_training),
)


@dataclass(frozen=True)
class Measurement:
    """Seconds from the first create."""

    pods: float
    """Until every training pod existed."""
    statuses: float
    """Until every parent said so."""


async def measure(case: Case, server: str, context: ssl.SSLContext, namespace: str, count: int) -> Measurement:
    """Create `count` objects at once and wait for their pods and statuses."""
    connector = aiohttp.TCPConnector(ssl=context, limit=100)
    async with aiohttp.ClientSession(server, connector=connector, read_bufsize=2**22) as session:
        pods: dict[str, float] = {}
        parents: dict[str, float] = {}

        def see_pod(pod: dict[str, Any]) -> None:
            if pod["metadata"]["labels"].get("finetuning.dev/stage", "train") == "train":
                pods.setdefault(pod["metadata"]["labels"].get("finetuning.dev/job", owner_of(pod)), time.monotonic())

        def see_parent(parent: dict[str, Any]) -> None:
            if case.says_so(parent.get("status", {})):
                parents.setdefault(parent["metadata"]["name"], time.monotonic())

        path = f"{case.api}/namespaces/{namespace}/{case.plural}"
        watches = [
            asyncio.create_task(watch(session, f"/api/v1/namespaces/{namespace}/pods", see_pod)),
            asyncio.create_task(watch(session, path, see_parent)),
        ]
        await asyncio.sleep(SETTLE_SECONDS)
        start = time.monotonic()
        await create_all(session, path, case.manifest, count)
        while time.monotonic() - start < DEADLINE and (len(pods) < count or len(parents) < count):
            await asyncio.sleep(0.05)
            for task in watches:
                if task.done():
                    task.result()
        for task in watches:
            task.cancel()
        if len(pods) < count or len(parents) < count:
            raise SystemExit(f"{case.name}: only {len(pods)} pods and {len(parents)} statuses of {count}.")
        return Measurement(max(pods.values()) - start, max(parents.values()) - start)


def owner_of(pod: dict[str, Any]) -> str:
    """Name of the object that made a pod."""
    name: str = pod["metadata"]["ownerReferences"][0]["name"]
    return name


async def create_all(session: aiohttp.ClientSession, path: str, manifest: dict[str, Any], count: int) -> None:
    """Create the objects, some at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def create(index: int) -> None:
        body = {**manifest, "metadata": {"name": f"job-{index}"}}
        async with gate, session.post(path, json=body) as response:
            if response.status >= 300:
                raise SystemExit(await response.text())

    await asyncio.gather(*(create(index) for index in range(count)))


async def watch(session: aiohttp.ClientSession, path: str, see: Callable[[dict[str, Any]], None]) -> None:
    """Show every version of every object; the API server ends the watches of a CRD that has just been established."""
    while True:
        async with session.get(path) as response:
            listed = await response.json()
        if response.status != 200:  # a CRD that is not served yet
            await asyncio.sleep(0.2)
            continue
        for item in listed["items"]:
            see(item)
        parameters = {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
        async with session.get(path, params=parameters, timeout=aiohttp.ClientTimeout(total=None)) as response:
            async for line in response.content:
                see(json.loads(line)["object"])


def context_of(plane: ControlPlane) -> ssl.SSLContext:
    """TLS as the administrator."""
    context = ssl.create_default_context(cafile=str(plane.authority.certificate))
    context.load_cert_chain(plane.administrator.certificate, plane.administrator.key)
    return context


def run_case(case: Case, count: int) -> Measurement:
    """One measurement in a Kubernetes of its own: nothing of the one before is still being deleted."""
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as name:
        folder = Path(name)
        plane = ControlPlane(folder, scheduler=True, queries_per_second=2000)
        plane.start()
        try:
            plane.kubectl("apply", "--filename", str(ROOT / "manifests/crd"))
            start_kwok(plane, stages=[ROOT / "benchmarks/prepare-finishes.yaml"])
            make_nodes(plane, NODES, gpus=GPUS)
            plane.make_namespace(NAMESPACE)
            with running_operator(plane, folder, {"FINETUNE_PROGRESS_SECONDS": "10"}):
                result = asyncio.run(measure(case, plane.server, context_of(plane), NAMESPACE, count))
        finally:
            plane.stop()
    rate = f"{count / result.pods:6.1f} pods/s  pods {result.pods:6.2f} s  statuses {result.statuses:6.2f} s"
    print(f"{case.name:34} {rate}", flush=True)
    return result


def main() -> None:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    results = [[run_case(case, arguments.count) for case in CASES] for _ in range(arguments.repeat)]
    for index, case in enumerate(CASES[1:], start=1):
        ratios = [row[index].pods / row[0].pods for row in results]
        lag = [row[index].statuses - row[index].pods for row in results]
        print(
            f"{case.name}: {statistics.median(ratios):.2f} times the time of plain Jobs "
            f"({min(ratios):.2f} to {max(ratios):.2f}), "
            f"last status {statistics.median(lag):.2f} s after the last pod"
        )


if __name__ == "__main__":
    main()
