"""One of several replicas leads: the one that holds the Lease (coordination.k8s.io/v1)."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune_operator.cluster import LEASES, Cluster, ClusterError
from finetune_operator.orders import Manifest
from finetune_operator.settings import Settings

LEASE_SECONDS = 15.0
"""A Lease that was not renewed for this long is free."""
RENEW_SECONDS = 10.0
"""A leader that could not renew for this long stops, well before another may start."""
RETRY_SECONDS = 2.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sighting:
    """A state of the Lease, and when it was first seen by this replica's own clock, for clocks of machines differ."""

    renewed: str
    at: float


async def lead(
    cluster: Cluster, settings: Settings, clock: Callable[[], float], work: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Wait for the Lease, then work for as long as it is held. Returns when the work ends or the Lease is lost."""
    sighting: Sighting | None = None
    while not (turn := await _try(cluster, settings, clock, sighting))[0]:
        sighting = turn[1]
        await asyncio.sleep(RETRY_SECONDS)
    log.info("%s leads.", settings.pod_name)
    working = asyncio.create_task(work())
    renewing = asyncio.create_task(_renew(cluster, settings, clock))
    try:
        await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (renewing, working):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await renewing
        try:
            await working
        except asyncio.CancelledError:
            log.info("The work has stopped.")
        finally:
            await _release(cluster, settings)


async def _renew(cluster: Cluster, settings: Settings, clock: Callable[[], float]) -> None:
    """Renew until that fails for too long, or gives no answer for as long: dropped packets are no error."""
    with suppress(TimeoutError):
        async with asyncio.timeout(RENEW_SECONDS) as deadline:
            while True:
                await asyncio.sleep(RETRY_SECONDS)
                if (await _try(cluster, settings, clock, None))[0]:
                    deadline.reschedule(asyncio.get_running_loop().time() + RENEW_SECONDS)
    log.error("The Lease could not be renewed for %d s; this replica stops leading.", RENEW_SECONDS)


async def _try(
    cluster: Cluster, settings: Settings, clock: Callable[[], float], sighting: Sighting | None
) -> tuple[bool, Sighting | None]:
    """Take or renew the Lease if it is ours, free or run out. Returns whether it is held, and what was seen."""
    try:
        lease = await _read(cluster, settings)
        if lease is None:
            await cluster.create(LEASES, _written(None, settings))
            return True, None
        spec = lease["spec"]
        if spec.get("holderIdentity") not in (None, "", settings.pod_name):
            renewed = spec.get("renewTime", "")
            if sighting is None or sighting.renewed != renewed:
                return False, Sighting(renewed, clock())
            if clock() - sighting.at < LEASE_SECONDS:
                return False, sighting
        await cluster.replace(LEASES, _written(lease, settings))
        return True, None
    except ClusterError as error:
        if error.code != 409:  # another replica was faster
            log.warning("The Lease cannot be taken or renewed: %s", error)
        return False, sighting


async def _release(cluster: Cluster, settings: Settings) -> None:
    """Let the next replica lead at once instead of after the Lease has run out."""
    try:
        async with asyncio.timeout(RETRY_SECONDS):
            lease = await _read(cluster, settings)
            if lease is not None and lease["spec"].get("holderIdentity") == settings.pod_name:
                await cluster.replace(LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
    except (ClusterError, TimeoutError) as error:
        log.warning("The Lease could not be released, another replica leads in %d s: %s", LEASE_SECONDS, error)


async def _read(cluster: Cluster, settings: Settings) -> Manifest | None:
    try:
        return await cluster.get(LEASES, settings.namespace, settings.lease_name)
    except ClusterError as error:
        if error.code != 404:
            raise
        return None


def _written(lease: Manifest | None, settings: Settings) -> Manifest:
    """The Lease in our name; with the version that was read, so that of two writers one fails."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = dict(lease["spec"]) if lease else {}
    if spec.get("holderIdentity") != settings.pod_name:
        changes = spec.get("leaseTransitions", 0) + (1 if lease else 0)
        spec |= {"holderIdentity": settings.pod_name, "acquireTime": now, "leaseTransitions": changes}
    spec |= {"renewTime": now, "leaseDurationSeconds": int(LEASE_SECONDS)}
    metadata = lease["metadata"] if lease else {"name": settings.lease_name, "namespace": settings.namespace}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
