"""Does the watch of FineTuneJobs still tell everything? Compare, now and then, what is there with what is known.

A watch can fall silent without an error (nolar/kopf issues 1276 and 957). Only reading is sure to notice: touching an
object to see it come back would write to the API for ever.
"""

import asyncio
import logging
from collections.abc import Callable

from finetune_operator.cluster import FINETUNEJOBS, METADATA_ONLY, Cluster, ClusterError, ignoring
from finetune_operator.observed import Key
from finetune_operator.settings import Settings
from finetune_operator.shelf import Shelf
from finetune_operator.work_queue import WorkQueue

PERIOD_SECONDS = 60.0
GRACE_SECONDS = 5.0
"""How long an event may be on its way."""
log = logging.getLogger(__name__)


class Audit:
    """Finds and mends what the watch missed."""

    def __init__(
        self, cluster: Cluster, shelf: Shelf, queue: WorkQueue, settings: Settings, clock: Callable[[], float]
    ) -> None:
        self._cluster, self._shelf, self._queue, self._clock = cluster, shelf, queue, clock
        self._scopes: list[str | None] = list(settings.watch_namespaces) or [None]
        self._alive = clock()

    def prove_alive(self) -> None:
        """An event came."""
        self._alive = self._clock()

    def age(self) -> float:
        """Seconds since the watch last proved to be alive."""
        return self._clock() - self._alive

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            try:
                await self.compare()
            except ClusterError as error:
                log.warning("The watch of FineTuneJobs could not be checked: %s", error)

    async def compare(self) -> None:
        """One comparison. What differs for longer than an event travels was missed, and is read again."""
        if await self._differing():
            await asyncio.sleep(GRACE_SECONDS)
            missed = await self._differing()
            for key in missed:
                await self._mend(key)
            if missed:
                log.error("The watch of FineTuneJobs missed changes of %d jobs; they were read again.", len(missed))
                return
        self.prove_alive()

    async def _differing(self) -> list[Key]:
        there: dict[Key, int] = {}
        for scope in self._scopes:
            async for page in self._cluster.list_pages(FINETUNEJOBS, scope, accept=METADATA_ONLY):
                metas = (item["metadata"] for item in page["items"])
                there |= {Key(meta["namespace"], meta["name"]): int(meta["resourceVersion"]) for meta in metas}
        newer = [key for key, version in there.items() if self._shelf.version(key) < version]
        return newer + [key for key in self._shelf if key not in there]

    async def _mend(self, key: Key) -> None:
        self._shelf.drop(key)
        with ignoring(404):
            self._shelf.put(await self._cluster.get(FINETUNEJOBS, key.namespace, key.name))
        self._queue.add(key)
