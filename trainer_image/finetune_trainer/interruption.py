"""Signals that ask a process to stop: what must be saved is saved first, the rest is dropped at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from finetune_api.run import ExitCode
from finetune_trainer.session import Session

NUMBERS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def interruptible(session: Session) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`, and raise KeyboardInterrupt unless the session is protected; a second one ends the
    process without another word. Afterwards they are ignored: what is left is to say how it ended.
    """

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if session.stop.is_set():
            os._exit(ExitCode.STOPPED)  # as the first process of a container it would survive the signal itself
        session.stop.set()
        if not session.protected.is_set():
            raise KeyboardInterrupt

    for number in NUMBERS:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)
