"""Which jobs to look at next. A job is in the queue once, and looked at by one worker at a time."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from finetune_operator.observed import Key

MOMENT = 0.2
"""Seconds in which more may happen: one look then sees it all."""
LEISURE = 1.0
"""Seconds that a step on the way may wait, like a pod that is made but does not run yet."""
LEISURELY_LOOKS = 20.0
"""Of such steps no more than this many per second are looked at: those of hundreds of new jobs mostly pass unseen."""
FIRST_WAIT = 0.5
LONGEST_WAIT = 300.0


class WorkQueue:
    """Keys to look at now, and keys to look at later."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._leisurely: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again)

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or being worked on; timers may be set."""
        return not (self._waiting or self._working)

    def add(self, key: Key) -> None:
        """Look at it next. While it is being looked at, that means once more afterwards."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._set_timer(key, None)
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_soon(self, key: Key) -> None:
        """Look at it after a moment."""
        if key in self._working:
            self._again.add(key)
        else:
            self._add_within(key, MOMENT)

    def add_at_leisure(self, key: Key) -> None:
        """Look at it some time."""
        self._leisurely.add(key)
        if key not in self._working:
            self._add_within(key, LEISURE + len(self._leisurely) / LEISURELY_LOOKS)

    async def take(self) -> Key:
        """The next key; it must be given back with `done` or `failed`."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._leisurely.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key, wake_at: datetime | None) -> None:
        """It was looked at; look again at that time, whatever was planned before."""
        self._failures.pop(key, None)
        self._working.discard(key)
        self._set_timer(key, None if wake_at is None else (wake_at - self._now()).total_seconds())
        if key in self._again:
            self._again.discard(key)
            self.add_soon(key)
        elif key in self._leisurely:
            self.add_at_leisure(key)

    def failed(self, key: Key) -> None:
        """It could not be looked at: try again after a while, longer after each failure."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._working.discard(key)
        self._again.discard(key)
        self._set_timer(key, min(FIRST_WAIT * 2 ** min(failures, 16), LONGEST_WAIT))

    def forget(self, key: Key) -> None:
        """It is gone."""
        self._leisurely.discard(key)
        self._failures.pop(key, None)
        self._set_timer(key, None)

    def _add_within(self, key: Key, seconds: float) -> None:
        if key not in self._waiting and not self._is_due_within(key, seconds):
            self._set_timer(key, seconds)

    def _is_due_within(self, key: Key, seconds: float) -> bool:
        timer = self._timers.get(key)
        return timer is not None and timer.when() <= asyncio.get_running_loop().time() + seconds

    def _set_timer(self, key: Key, seconds: float | None) -> None:
        if key in self._timers:
            self._timers.pop(key).cancel()
        if seconds is not None:
            self._timers[key] = asyncio.get_running_loop().call_later(max(0.0, seconds), self._wake, key)

    def _wake(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
