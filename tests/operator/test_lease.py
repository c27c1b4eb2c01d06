"""Which of several replicas leads. The API server is played by its one rule that matters: of two writers one fails."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import cast

import pytest

from finetune_operator import lease
from finetune_operator.cluster import Cluster, ClusterError, Resource
from finetune_operator.lease import lead
from finetune_operator.settings import Settings
from support.objects import Object

PATIENCE = 2.0


class Leases:
    """The one Lease, with resource versions."""

    def __init__(self) -> None:
        self.kept: Object | None = None
        self.writes: list[Object] = []
        self.reachable = True
        self.hanging = False

    @property
    def holder(self) -> str:
        return str(self.kept["spec"]["holderIdentity"]) if self.kept else ""

    async def get(self, _resource: Resource, _namespace: str, _name: str) -> Object:
        await self._answer()
        if self.kept is None:
            raise ClusterError(404, "not found")
        return deepcopy(self.kept)

    async def create(self, _: Resource, manifest: Object) -> Object:
        await self._answer()
        if self.kept is not None:
            raise ClusterError(409, "exists")
        return self._keep(manifest, 1)

    async def replace(self, _: Resource, manifest: Object) -> Object:
        await self._answer()
        assert self.kept is not None
        if manifest["metadata"]["resourceVersion"] != self.kept["metadata"]["resourceVersion"]:
            raise ClusterError(409, "changed meanwhile")
        return self._keep(manifest, int(self.kept["metadata"]["resourceVersion"]) + 1)

    def _keep(self, manifest: Object, version: int) -> Object:
        kept = deepcopy(manifest)
        kept["metadata"]["resourceVersion"] = str(version)
        self.kept = kept
        self.writes.append(kept)
        return kept

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        while self.hanging:
            await asyncio.sleep(0.01)
        if not self.reachable:
            raise ClusterError(0, "The API server cannot be reached.")


class Replica:
    """One operator process: whether it works now, and how often it began to."""

    def __init__(self, leases: Leases, name: str) -> None:
        self.settings = Settings(trainer_image="trainer", pod_name=name)
        self.leases, self.working, self.begun = leases, False, 0

    async def run(self) -> None:
        """Lead, or wait to lead."""
        clock = asyncio.get_running_loop().time
        await lead(cast(Cluster, self.leases), self.settings, clock, self._work)

    async def _work(self) -> None:
        self.working, self.begun = True, self.begun + 1
        try:
            await asyncio.sleep(3600)
        finally:
            self.working = False


@pytest.fixture(autouse=True)
def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fiftieth of the real times; their proportions are what matters."""
    for name in ("LEASE_SECONDS", "RENEW_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(lease, name, getattr(lease, name) / 50)


@asynccontextmanager
async def started(*replicas: Replica) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(replica.run()) for replica in replicas]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.mark.asyncio
async def test_of_many_replicas_one_works() -> None:
    leases = Leases()
    replicas = [Replica(leases, f"operator-{number}") for number in range(5)]

    async with started(*replicas):
        await wait_until(lambda: any(replica.working for replica in replicas))
        for _ in range(100):
            assert sum(replica.working for replica in replicas) == 1
            await asyncio.sleep(0.005)
        (leader,) = [replica for replica in replicas if replica.working]
        assert leases.holder == leader.settings.pod_name

    assert sum(replica.begun for replica in replicas) == 1


@pytest.mark.asyncio
async def test_a_replica_that_stops_lets_the_next_one_lead_at_once() -> None:
    leases = Leases()
    first, second = Replica(leases, "first"), Replica(leases, "second")
    async with started(first) as (task,):
        await wait_until(lambda: first.working)
        async with started(second):
            await asyncio.sleep(0.05)
            task.cancel()
            loop = asyncio.get_running_loop()
            stopped = loop.time()
            await wait_until(lambda: second.working)

            assert loop.time() - stopped < lease.LEASE_SECONDS
            assert not first.working


@pytest.mark.asyncio
async def test_a_replica_that_vanished_is_followed_when_its_lease_has_run_out() -> None:
    leases = Leases()
    leases._keep(lease._written(None, Settings(trainer_image="trainer", pod_name="vanished")), 1)
    replica, loop = Replica(leases, "next"), asyncio.get_running_loop()
    begun = loop.time()

    async with started(replica):
        await wait_until(lambda: replica.working)

        assert loop.time() - begun >= lease.LEASE_SECONDS
        assert leases.kept is not None
        assert leases.kept["spec"]["leaseTransitions"] == 1


@pytest.mark.asyncio
async def test_a_leader_that_cannot_renew_stops_before_another_may_start() -> None:
    leases = Leases()
    replica, loop = Replica(leases, "first"), asyncio.get_running_loop()
    async with started(replica) as (task,):
        await wait_until(lambda: replica.working)
        leases.reachable = False
        lost = loop.time()

        await wait_until(lambda: not replica.working)

        assert loop.time() - lost < lease.LEASE_SECONDS
        await asyncio.wait_for(task, PATIENCE)


@pytest.mark.asyncio
async def test_a_leader_outlives_a_short_silence_of_the_api_server() -> None:
    leases = Leases()
    replica = Replica(leases, "first")
    async with started(replica):
        await wait_until(lambda: replica.working)
        leases.reachable = False
        await asyncio.sleep(lease.RENEW_SECONDS / 2)
        leases.reachable = True
        await asyncio.sleep(lease.RENEW_SECONDS * 2)

        assert (replica.working, replica.begun) == (True, 1)


@pytest.mark.asyncio
async def test_a_leader_renews_and_keeps_what_the_lease_says_of_it() -> None:
    leases = Leases()
    replica = Replica(leases, "first")
    async with started(replica):
        await wait_until(lambda: len(leases.writes) >= 4)

    specs = [written["spec"] for written in leases.writes]
    assert {spec["acquireTime"] for spec in specs} == {specs[0]["acquireTime"]}
    assert {spec["leaseTransitions"] for spec in specs} == {0}
    assert len({spec["renewTime"] for spec in specs[:-1]}) == len(specs) - 1
    assert specs[-1]["holderIdentity"] == "", "released at the end"


@pytest.mark.asyncio
async def test_a_leader_whose_requests_hang_stops_before_another_may_start() -> None:
    """Packets that are dropped give no error for half a minute."""
    leases = Leases()
    replica, loop = Replica(leases, "first"), asyncio.get_running_loop()
    async with started(replica):
        await wait_until(lambda: replica.working)
        leases.hanging = True
        lost = loop.time()
        try:
            await wait_until(lambda: not replica.working)
        finally:
            leases.hanging = False

        assert loop.time() - lost < lease.LEASE_SECONDS
