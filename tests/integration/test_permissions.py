"""The operator's rights are what it uses: none is missing, none is too many."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.audit import Audit
from finetune_operator.cluster import Cluster, connect
from finetune_operator.observed import Key
from finetune_operator.permissions import PERMISSIONS
from finetune_operator.settings import Settings
from finetune_operator.shelf import Shelf
from finetune_operator.work_queue import WorkQueue
from support.lives import Life, manifest
from support.waiting import wait_until

Right = tuple[str, str, str]


def test_every_right_is_used_and_none_is_missing(
    life: Life, credentials: Path, monkeypatch: pytest.MonkeyPatch, requests_of: Callable[[], list[dict[str, Any]]]
) -> None:
    live_through_everything(life)
    shelf = mend_a_missed_change(life, credentials, monkeypatch)
    assert shelf.version(Key(life.namespace, "clinic")) > 0
    seen = requests_of()
    assert [request for request in seen if is_unauthorised(request)] == []
    assert granted() - {right_of(request) for request in seen if "objectRef" in request} == set()


def is_unauthorised(request: dict[str, Any]) -> bool:
    """Whether RBAC forbade it, and not a quota or a namespace that is going away."""
    return request.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"


def live_through_everything(life: Life) -> None:
    """A pod that cannot be made, a Job that is deleted; pods that meet through a Service, which goes with their Job."""
    life.kubectl("create", "quota", "none", "--hard=pods=0")
    wait_until(lambda: "pods" in life.kubectl("get", "quota", "none", "--output=jsonpath={.status.hard}"), 20)
    life.apply(manifest())
    wait_until(lambda: life.condition("Ready").get("reason") == "QuotaExceeded", 60, life.status)
    life.apply(manifest(suspend=True))
    wait_until(lambda: life.objects("jobs") == [], 30)
    together = {"nodes": 2, "prepare": {"separate": False}}
    life.apply(manifest("pair", resources=together))
    wait_until(lambda: life.objects("services", job="pair") != [], 30)
    life.apply(manifest("pair", resources=together, suspend=True))
    wait_until(lambda: life.objects("services") == [], 30)


def mend_a_missed_change(life: Life, credentials: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """What the operator does when its watch missed a job, with the operator's own rights."""

    async def compare() -> Shelf:
        cluster = Cluster(await connect(4, str(credentials)), lambda *_: None)
        shelf, settings = Shelf(), Settings(trainer_image="x", watch_namespaces=(life.namespace,))
        monkeypatch.setattr("finetune_operator.audit.GRACE_SECONDS", 0.1)
        await Audit(cluster, shelf, WorkQueue(lambda: None), settings, time.monotonic).compare()  # type: ignore[arg-type, return-value]
        await cluster.close()
        return shelf

    return asyncio.run(compare())


def granted() -> set[Right]:
    """Every right of the table."""
    return {(rule.group, rule.resource, verb) for rule in PERMISSIONS for verb in rule.verbs}


def right_of(request: dict[str, Any]) -> Right:
    """The right that a request made use of."""
    about = request["objectRef"]
    resource = "/".join(part for part in (about["resource"], about.get("subresource")) if part)
    return about.get("apiGroup", ""), resource, request["verb"]
