"""A view of all children of one kind, kept up to date by one list and one watch per namespace."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from finetune_api.contract import MANAGED_BY_LABEL, MANAGER
from finetune_operator.cluster import Cluster, ClusterError, Resource
from finetune_operator.observed import Key, Object

SELECTOR = f"{MANAGED_BY_LABEL}={MANAGER}"
LONGEST_PAUSE = 10.0
log = logging.getLogger(__name__)


class Child(Protocol):
    """What every view of a child has."""

    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def quiet(self) -> bool: ...


View = TypeVar("View", bound=Child)


class Informer(Generic[View]):
    """Children of one kind by the job they belong to."""

    def __init__(
        self, cluster: Cluster, resource: Resource, namespaces: Sequence[str],
        view: Callable[[Object], View], changed: Callable[[Key, bool], None], clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._cluster, self._resource = cluster, resource
        self._scopes: list[str | None] = list(namespaces) or [None]
        self._view, self._changed, self._clock = view, changed, clock
        self._children: dict[Key, dict[str, View]] = {}
        self._alive = {scope: clock() for scope in self._scopes}
        self._listed: set[str | None] = set()
        self.synced = asyncio.Event()
        """Set once everything that existed at the start is known."""

    def of(self, key: Key) -> list[View]:
        """The children of a job."""
        return list(self._children.get(key, {}).values())

    def put(self, child: View) -> None:
        """Note a child that was just created, before the watch tells of it."""
        key = Key(child.namespace, child.owner)
        self._children.setdefault(key, {})[child.name] = child
        self._changed(key, child.quiet)

    def age(self) -> float:
        """Seconds since the most silent watch last proved to be alive."""
        return self._clock() - min(self._alive.values())

    async def run(self) -> None:
        """List and watch until cancelled."""
        await asyncio.gather(*(self._follow(scope) for scope in self._scopes))

    async def _follow(self, scope: str | None) -> None:
        failures = 0
        while True:
            try:
                version = await self._list(scope)
                failures = 0
                await self._watch(scope, version)
            except ClusterError as error:
                failures += 1
                log.log(logging.INFO if error.code == 410 else logging.WARNING, "%s: %s", self._resource.plural, error)
                await asyncio.sleep(min(0.5 * 2**failures, LONGEST_PAUSE))

    async def _list(self, scope: str | None) -> str:
        before = {
            (key, name) for key, named in self._children.items() if scope in (None, key.namespace) for name in named
        }
        version, seen = "", set()
        async for page in self._cluster.list_pages(self._resource, scope, SELECTOR):
            version = page["metadata"]["resourceVersion"]
            for raw in page["items"]:
                child = self._note(raw)
                seen.add((Key(child.namespace, child.owner), child.name))
        for key, name in before - seen:  # created since the list began: kept; there before and gone now: dropped
            self._drop(key, name)
        self._alive[scope] = self._clock()
        self._listed.add(scope)
        if len(self._listed) == len(self._scopes):
            self.synced.set()
        return version

    async def _watch(self, scope: str | None, version: str) -> None:
        """Follow the changes, one watch after another, until one fails."""
        while True:
            async for event in self._cluster.watch(self._resource, scope, SELECTOR, version):
                version = event["object"]["metadata"]["resourceVersion"]
                self._alive[scope] = self._clock()
                if event["type"] == "DELETED":
                    child = self._view(event["object"])
                    self._drop(Key(child.namespace, child.owner), child.name)
                elif event["type"] != "BOOKMARK":
                    self._note(event["object"])

    def _note(self, raw: Object) -> View:
        child = self._view(raw)
        key = Key(child.namespace, child.owner)
        named = self._children.setdefault(key, {})
        if named.get(child.name) != child:
            named[child.name] = child
            self._changed(key, child.quiet)
        return child

    def _drop(self, key: Key, name: str) -> None:
        named = self._children.get(key, {})
        named.pop(name, None)
        if not named:
            self._children.pop(key, None)
        self._changed(key, False)
