"""FineTuneJobs that live through a test: a real API server and Job controller, the test plays scheduler and kubelet."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cluster.control_plane import ControlPlane
from cluster.kwok import describe_end
from support.waiting import wait_until

PATIENCE = 60.0
RESOURCE = "finetunejob.finetuning.dev"


def manifest(name: str = "clinic", **spec: Any) -> dict[str, Any]:
    """A valid job; `spec` replaces or adds fields of its spec."""
    complete = {
        "model": {"uri": "s3://models/smollm2"},
        "dataset": {"uri": "s3://clinic/triage.jsonl"},
        "output": {"uri": "s3://adapters/clinic"},
        **spec,
    }
    return {
        "apiVersion": "finetuning.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": complete,
    }


def report(stage: str, exit_code: int = 0, **fields: Any) -> str:
    """A trainer's last word."""
    said = {"runId": "20261124-aaaaaaaa", "digest": "sha256:aaaaaaaa", "attempt": 1, "message": f"Stage {stage} ended."}
    return json.dumps({**said, "dataVersion": "v1", "exitCode": exit_code, "stage": stage, **fields})


def published(verdict: str = "Passed", **fields: Any) -> str:
    """The last word of a complete run."""
    metric = {"name": "tokenF1", "higherIsBetter": True, "base": 0.1, "adapter": 0.8, "difference": 0.7}
    evaluation = {
        "verdict": verdict,
        "primaryMetric": "tokenF1",
        "metrics": [{**metric, "ci": [0.6, 0.8], "n": 36, "groups": 12}],
    }
    adapter = {"uri": "s3://adapters/clinic/default/clinic/runs/x/adapter", "digest": "sha256:bb", "sizeBytes": 1000}
    return report("publish", adapter=adapter, evaluation=evaluation, message=f"The verdict is {verdict}.", **fields)


@dataclass(frozen=True)
class Life:
    """One namespace and what happens in it."""

    plane: ControlPlane
    namespace: str
    waiting: float = field(default=PATIENCE)

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """Run kubectl in the namespace."""
        return self.plane.kubectl(*arguments, f"--namespace={self.namespace}", input=input)

    def objects(self, kind: str, **labels: str) -> list[dict[str, Any]]:
        """Objects of a kind by labels of this project: stage, attempt, run, job."""
        selector = ",".join(f"finetuning.dev/{name}={value}" for name, value in labels.items())
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "--output=json", f"--selector={selector}"))[
            "items"
        ]
        return found

    def apply(self, job: Mapping[str, Any]) -> str:
        """Apply a manifest; return what kubectl printed."""
        return self.kubectl("apply", "--filename=-", input=json.dumps(job))

    def job(self, name: str = "clinic") -> dict[str, Any]:
        """The FineTuneJob as it is."""
        found: dict[str, Any] = json.loads(self.kubectl("get", RESOURCE, name, "--output=json"))
        return found

    def status(self, name: str = "clinic") -> dict[str, Any]:
        """Its status."""
        status: dict[str, Any] = self.job(name).get("status", {})
        return status

    def condition(self, kind: str, name: str = "clinic") -> dict[str, Any]:
        """One of its conditions; empty if it is not there."""
        return next((entry for entry in self.status(name).get("conditions", []) if entry["type"] == kind), {})

    def wait_for_phase(self, phase: str, name: str = "clinic", seconds: float | None = None) -> dict[str, Any]:
        """Its status once it is in a phase."""
        wait_until(lambda: self.status(name).get("phase") == phase, seconds or self.waiting, lambda: self.status(name))
        return self.status(name)

    def wait_for_reason(self, reason: str, name: str = "clinic") -> dict[str, Any]:
        """Its Ready condition once it has a reason."""
        wait_until(
            lambda: self.condition("Ready", name).get("reason") == reason, self.waiting, lambda: self.status(name)
        )
        return self.condition("Ready", name)

    def wait_for_pod(self, stage: str, attempt: int = 1, **labels: str) -> dict[str, Any]:
        """The pod of a stage that has not ended, once there is one."""
        found: list[dict[str, Any]] = []

        def exists() -> bool:
            pods = self.objects("pods", stage=stage, attempt=str(attempt), **labels)
            found[:] = [pod for pod in pods if pod["status"]["phase"] in ("Pending", "Running") and not _leaves(pod)]
            return bool(found)

        wait_until(exists, self.waiting, lambda: self.status())
        return found[-1]

    def run(self, pod: Mapping[str, Any], ip: str = "127.64.0.1") -> None:
        """Let a pod run."""
        time = _now()
        self.set_pod(
            pod,
            phase="Running",
            podIP=ip,
            podIPs=[{"ip": ip}],
            startTime=time,
            conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": time}],
            containerStatuses=[_container(pod, {"running": {"startedAt": time}})],
        )

    def finish(self, pod: Mapping[str, Any], message: str, exit_code: int = 0) -> None:
        """Let a pod end with a termination message."""
        self.set_pod(pod, **describe_end(pod, exit_code, message, datetime.now(UTC)))

    def kill(self, pod: Mapping[str, Any], reason: str, exit_code: int = 137) -> None:
        """Let a pod's container be killed."""
        ended = {"exitCode": exit_code, "reason": reason, "startedAt": _now(), "finishedAt": _now()}
        self.set_pod(pod, phase="Failed", containerStatuses=[_container(pod, {"terminated": ended})])

    def hold(self, pod: Mapping[str, Any], reason: str, message: str) -> None:
        """Let a pod's container wait."""
        waiting = {"waiting": {"reason": reason, "message": message}}
        self.set_pod(pod, phase="Pending", containerStatuses=[_container(pod, waiting)])

    def set_pod(self, pod: Mapping[str, Any], **status: Any) -> None:
        """Write a part of a pod's status."""
        patch = json.dumps({"status": status})
        self.kubectl(
            "patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=strategic", f"--patch={patch}"
        )

    def pass_stage(self, stage: str, message: str, attempt: int = 1, **labels: str) -> None:
        """Let a stage's pod run and end well."""
        pod = self.wait_for_pod(stage, attempt, **labels)
        self.run(pod)
        self.finish(pod, message)

    def succeed(self) -> dict[str, Any]:
        """Let both stages end well; return the final status."""
        self.pass_stage("prepare", report("prepare"))
        self.pass_stage("train", published())
        return self.wait_for_phase("Succeeded")

    def arguments(self, stage: str, attempt: int = 1) -> list[str]:
        """What the container of a stage is called with."""
        (job,) = self.objects("jobs", stage=stage, attempt=str(attempt))
        arguments: list[str] = job["spec"]["template"]["spec"]["containers"][0]["args"]
        return arguments

    def events(self) -> list[str]:
        """The reasons of the events of FineTuneJobs, in their order."""
        items = json.loads(self.kubectl("get", "events", "--output=json"))["items"]
        items.sort(key=lambda item: int(item["metadata"]["resourceVersion"]))  # their times are whole seconds
        return [item["reason"] for item in items if item["involvedObject"]["kind"] == "FineTuneJob"]


def _leaves(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _container(pod: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    container = pod["spec"]["containers"][0]
    named = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
    return {**named, "ready": "running" in state, "state": state}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
