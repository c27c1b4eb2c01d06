"""Start the operator: `python -m finetune_operator`, told what to do by FINETUNE_* variables (see settings)."""

import asyncio
import logging
import os
import signal
import ssl
import sys
import time
from dataclasses import fields
from typing import Any, cast

import aiohttp
import kopf

from finetune_api.crd import PLURAL
from finetune_api.job import GROUP, VERSION
from finetune_operator.cluster import Cluster, connect
from finetune_operator.lease import lead
from finetune_operator.operation import Operation
from finetune_operator.settings import InvalidSettings, Settings, read_settings
from finetune_operator.telemetry import Telemetry
from finetune_operator.web import serve

PAGE = 250


async def run(settings: Settings) -> None:
    """Serve health and metrics, wait for the Lease, work until told to stop."""
    telemetry = Telemetry()
    async with aiohttp.ClientSession() as session:
        cluster = Cluster(await connect(settings.workers + 8, os.environ.get("KUBECONFIG")), telemetry.count_request)
        operation = Operation(cluster, session, settings, telemetry)
        servers = await serve(settings, telemetry, operation.complaint, lambda: True)
        try:
            await until_stopped(cluster, settings, operation)
        finally:
            for server in servers:
                await server.cleanup()
            await cluster.close()


async def until_stopped(cluster: Cluster, settings: Settings, operation: Operation) -> None:
    """Lead, or wait to lead, until a signal comes or the Lease is lost."""

    async def work() -> None:
        await operation.prepare()
        try:
            await watch(settings, operation)
        finally:
            await operation.stop()

    leading = work() if not settings.leader_election else lead(cluster, settings, time.monotonic, work)
    task = asyncio.ensure_future(leading)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        logging.info("Stopped.")


async def watch(settings: Settings, operation: Operation) -> None:
    """Let kopf watch FineTuneJobs. It only delivers events: no finalizers, no annotations, no state of its own."""
    registry = kopf.OperatorRegistry()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def note(event: Any, **_: Any) -> None:
        operation.note(event["type"], event["object"])

    @kopf.on.login(registry=registry)
    def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
        found = kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)
        return Connection(**{field.name: getattr(found, field.name) for field in fields(found)}) if found else None

    await kopf.operator(
        registry=registry,
        settings=kopf_settings(),
        standalone=True,
        identity=cast(Any, settings.pod_name),  # kopf would ask for a user name, which a container need not have
        clusterwide=not settings.watch_namespaces,
        namespaces=settings.watch_namespaces,
        stop_flag=asyncio.Event(),
    )


class Connection(kopf.ConnectionInfo):
    """Certificates of many clusters lack extensions that Python 3.13 asks for; see `cluster.connect`."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


class NoDiffs(kopf.DiffBaseStorage):
    """Whoever looks at the whole object every time needs no differences; working them out costs most of an event."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


def kopf_settings() -> kopf.OperatorSettings:
    """Settings against the pitfalls of long watches and of many objects."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = NoDiffs()
    settings.scanning.disabled = True
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = PAGE
    settings.queueing.idle_timeout = 0.1  # a worker is kept for this long after each object's last event
    return settings


def main() -> None:
    """Read the settings and run. Ends with 2 if they make no sense."""
    try:
        settings = read_settings(os.environ)
    except InvalidSettings as error:
        sys.exit(f"The operator cannot start: {error}")
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)  # it tells of every event
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()
