"""Polling with a deadline."""

import time
from collections.abc import Callable

PAUSE_SECONDS = 0.1


def wait_until(holds: Callable[[], object], seconds: float, tell: Callable[[], object] = lambda: "") -> None:
    """Return as soon as `holds` is true. Raises TimeoutError with what `tell` says after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true after {seconds:g} s\n{tell()}")
        time.sleep(PAUSE_SECONDS)
