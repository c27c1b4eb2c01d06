"""Signals that ask a process to stop: what must be saved is saved first, the rest is dropped at once."""

import os
import signal
import socket
import threading
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
        session.stop.set()
        if not session.protected.is_set():
            raise KeyboardInterrupt

    for number in NUMBERS:
        signal.signal(number, on_signal)
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno())
    threading.Thread(target=exit_at_second, args=(receiver,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        sender.close()


def exit_at_second(receiver: socket.socket) -> None:
    """Wait for two signals, each a byte, and end the process.

    A thread of its own sees a signal even while the main thread waits within a library; and the first process of a
    container would survive the signal's default action.
    """
    for _ in range(2):
        if not receiver.recv(1):
            return
    os._exit(ExitCode.STOPPED)
