"""Pods that train together, against a real API server and Job controller; the test plays the kubelet."""

import json
from typing import Any

from finetune_api.contract import INDEX_LABEL
from support.lives import Life, manifest, published, report
from support.waiting import wait_until

TWO = {"nodes": 2, "gpus": 4, "prepare": {"separate": False}}


def crew(life: Life, attempt: int = 1) -> list[dict[str, Any]]:
    """Both pods of an attempt, by index."""

    def pods() -> list[dict[str, Any]]:
        found = life.objects("pods", stage="train", attempt=str(attempt))
        return sorted(found, key=lambda pod: int(pod["metadata"]["labels"][INDEX_LABEL]))

    wait_until(lambda: len(pods()) == 2, life.waiting, life.status)
    return pods()


def test_two_pods_meet_and_the_first_speaks_for_both(life: Life) -> None:
    life.apply(manifest(resources=TWO))
    first, second = crew(life)
    (service,) = life.objects("services", stage="train")
    (job,) = life.objects("jobs", stage="train")
    assert service["spec"]["clusterIP"] == "None"
    for index, pod in enumerate((first, second)):
        assert pod["spec"]["hostname"] == f"{job['metadata']['name']}-{index}"
        assert pod["spec"]["subdomain"] == service["metadata"]["name"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    life.run(second, "127.64.0.2")
    life.run(first)
    life.wait_for_phase("Training")
    life.finish(first, published())
    assert life.wait_for_phase("Succeeded")["run"]["attempt"] == 1

    life.kubectl("delete", "finetunejob", "clinic", "--timeout=30s")
    # A collector that has just begun finds out twice a minute which kinds there are.
    wait_until(lambda: not life.objects("services") and not life.objects("jobs"), 90, lambda: life.objects("services"))


def test_of_a_failure_the_cause_is_told_and_both_start_again(life: Life) -> None:
    life.apply(manifest(resources=TWO, retries=1))
    first, second = crew(life)
    life.run(first)
    life.run(second, "127.64.0.2")
    life.kill(second, "Error", exit_code=5)
    life.finish(first, report("train", 143, message="Stopped: another process is gone."), exit_code=143)

    wait_until(lambda: life.status().get("failure", {}).get("reason") == "OutOfMemory", life.waiting, life.status)
    assert life.status()["failure"]["message"].startswith("Pod 1: ")
    assert len(crew(life, attempt=2)) == 2
    assert len(life.objects("services", attempt="2")) == 1


def test_a_service_that_somebody_deletes_comes_back(life: Life) -> None:
    life.apply(manifest(resources=TWO))
    crew(life)
    (service,) = life.objects("services")
    life.kubectl("delete", "service", service["metadata"]["name"])
    wait_until(lambda: [new["metadata"]["uid"] != service["metadata"]["uid"] for new in life.objects("services")]
               == [True], 30, life.status)  # fmt: skip


def test_a_pod_for_which_there_is_no_node_is_named(life: Life) -> None:
    life.apply(manifest(resources=TWO))
    first, second = crew(life)
    life.run(first)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no GPU."}
    life.set_pod(second, phase="Pending", conditions=[condition])
    life.wait_for_reason("Unschedulable")
    assert "Pod 1: " in json.dumps(life.status()["message"])
