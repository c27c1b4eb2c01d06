"""Posts Events, one after the other and beside the work: telling must not hold up doing."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from finetune_operator.announcements import Announcement, build_event
from finetune_operator.cluster import EVENTS, Cluster, ClusterError
from finetune_operator.observed import Subject
from finetune_operator.orders import Manifest

PAUSE_SECONDS = 0.1
"""Between two Events, so that the stories of hundreds of jobs do not take the API server's time from their pods."""
MOST = 10000
"""Events that may wait; what comes on top is only logged."""
log = logging.getLogger(__name__)


class Herald:
    """The Events that wait to be posted."""

    def __init__(self, cluster: Cluster, replica: str, now: Callable[[], datetime]) -> None:
        self._cluster, self._replica, self._now = cluster, replica, now
        self._waiting: asyncio.Queue[Manifest] = asyncio.Queue(MOST)

    def tell(self, subject: Subject, said: Sequence[Announcement]) -> None:
        """Log and post what is worth telling of a job."""
        for one in said:
            log.info("%s/%s: %s: %s", subject.key.namespace, subject.key.name, one.reason, one.message)
            if not self._waiting.full():
                self._waiting.put_nowait(build_event(subject, one, self._now(), self._replica))

    async def run(self) -> None:
        """Post until cancelled. An Event that cannot be posted is not worth failing for."""
        while True:
            event = await self._waiting.get()
            try:
                await self._cluster.create(EVENTS, event)
            except ClusterError as error:
                log.warning("An Event could not be posted: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)
