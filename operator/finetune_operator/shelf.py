"""The latest version of every FineTuneJob, packed: thousands of finished ones must not fill the memory."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finetune_api.status import Phase
from finetune_operator.observed import Key, Object


@dataclass(frozen=True, slots=True)
class Entry:
    """One job at one version."""

    version: int
    phase: Phase | None
    packed: bytes


class Shelf:
    """FineTuneJobs by key. Older versions never replace newer ones, in whatever order they arrive."""

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}

    def put(self, raw: Object) -> bool:
        """Keep an object; False if this version or a newer one is here already."""
        meta = raw["metadata"]
        key, version = Key(meta["namespace"], meta["name"]), int(meta["resourceVersion"])
        known = self._entries.get(key)
        if known is not None and known.version >= version:
            return False
        kept = {**raw, "metadata": {name: value for name, value in meta.items() if name != "managedFields"}}
        packed = zlib.compress(json.dumps(kept, separators=(",", ":")).encode(), level=1)
        self._entries[key] = Entry(version, raw.get("status", {}).get("phase"), packed)
        return True

    def get(self, key: Key) -> dict[str, Any] | None:
        """The object; None if it does not exist."""
        entry = self._entries.get(key)
        return None if entry is None else json.loads(zlib.decompress(entry.packed))

    def drop(self, key: Key) -> None:
        """The object was deleted."""
        self._entries.pop(key, None)

    def version(self, key: Key) -> int:
        """Resource version; 0 if the object does not exist."""
        entry = self._entries.get(key)
        return 0 if entry is None else entry.version

    def phases(self) -> list[tuple[str, Phase]]:
        """Namespace and phase of every job."""
        return [(key.namespace, entry.phase or "Pending") for key, entry in list(self._entries.items())]

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._entries))
