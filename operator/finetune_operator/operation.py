"""The operator at work: watches, queue, workers. The composition root."""

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta

import aiohttp

from finetune_operator.audit import Audit
from finetune_operator.cluster import JOBS, PODS, SERVICES, Cluster, ClusterError
from finetune_operator.herald import Herald
from finetune_operator.informer import Informer
from finetune_operator.observed import Key, Object, view_job, view_pod, view_service
from finetune_operator.progress import ProgressReader
from finetune_operator.reconcile import Dependencies, reconcile
from finetune_operator.settings import Settings
from finetune_operator.shelf import Shelf
from finetune_operator.telemetry import LiveState, Telemetry
from finetune_operator.work_queue import WorkQueue

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The time, in whole seconds, as Kubernetes keeps it."""
    return datetime.now(UTC).replace(microsecond=0)


class Operation:
    """Everything one operator process does while it leads."""

    def __init__(
        self, cluster: Cluster, session: aiohttp.ClientSession, settings: Settings, telemetry: Telemetry
    ) -> None:
        self._settings, self._telemetry = settings, telemetry
        self.shelf, self.queue = Shelf(), WorkQueue(lambda: datetime.now(UTC))
        namespaces, clock = settings.watch_namespaces, time.monotonic
        self._jobs = Informer(cluster, JOBS, namespaces, view_job, self.note_child, clock)
        self._pods = Informer(cluster, PODS, namespaces, view_pod, self.note_child, clock)
        self._services = Informer(cluster, SERVICES, namespaces, view_service, self.note_child, clock)
        self.audit = Audit(cluster, self.shelf, self.queue, settings, clock)
        reader = ProgressReader(session, timedelta(seconds=settings.progress_seconds), utc_now)
        self._herald = Herald(cluster, settings.pod_name, utc_now)
        self._deps = Dependencies(
            cluster, self.shelf, self._jobs, self._pods, self._services, reader, self._herald, telemetry, settings,
            utc_now,
        )  # fmt: skip
        self.leads = False
        telemetry.show(LiveState(self.shelf.phases, self.watch_ages, lambda: len(self.queue), lambda: self.leads))

    def note(self, event: str | None, raw: Object) -> None:
        """An event of a FineTuneJob, as the watch delivers it."""
        self.audit.prove_alive()
        key = Key(raw["metadata"]["namespace"], raw["metadata"]["name"])
        if event == "DELETED":
            self.shelf.drop(key)
            self.queue.forget(key)
        elif self.shelf.put(raw):
            self.queue.add(key)

    def note_child(self, key: Key, quiet: bool) -> None:
        """A Job, a pod or a Service of a FineTuneJob is not what it was."""
        (self.queue.add_at_leisure if quiet else self.queue.add_soon)(key)

    async def prepare(self) -> None:
        """Know all children before any job is looked at: a missing child would be made anew."""
        runs = (self._jobs.run(), self._pods.run(), self._services.run())
        self._tasks = [asyncio.create_task(run) for run in runs]
        await asyncio.gather(self._jobs.synced.wait(), self._pods.synced.wait(), self._services.synced.wait())
        self._tasks += [asyncio.create_task(self._work()) for _ in range(self._settings.workers)]
        self._tasks += [asyncio.create_task(side.run()) for side in (self.audit, self._herald)]
        self.audit.prove_alive()
        self.leads = True

    async def stop(self) -> None:
        """End all tasks."""
        self.leads = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def watch_ages(self) -> dict[str, float]:
        """Seconds since each watch last proved to be alive; nothing while another replica leads."""
        if not self.leads:
            return {}
        return {
            "finetunejobs": self.audit.age(),
            "jobs": self._jobs.age(),
            "pods": self._pods.age(),
            "services": self._services.age(),
        }

    def complaint(self) -> str:
        """Why this process should be restarted, if it should."""
        stale = [name for name, age in self.watch_ages().items() if age > self._settings.watch_stale_seconds]
        return f"no sign of life from the watch of {', '.join(stale)}" if stale else ""

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            try:
                with self._telemetry.turns.time():
                    wake_at = await reconcile(key, self._deps)
                self.queue.done(key, wake_at)
            except ClusterError as error:
                self._telemetry.count_error(f"http-{error.code}")
                log.warning("%s/%s: %s", key.namespace, key.name, error)
                self.queue.failed(key)
            except Exception:
                self._telemetry.count_error("bug")
                log.exception("%s/%s could not be reconciled.", key.namespace, key.name)
                self.queue.failed(key)
