"""Only one process writes to a run. Who claims it numbers an attempt; whoever holds an older number stops.

Each attempt is an object of its own, attempts/000001.json and so on, made by a create-only write: of two claims of one
number one fails, on every kind of store. Nothing keeps a holder that was taken for dead from finishing the single write
it is in; it finds out at its next `check`.
"""

import hashlib
import os
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from pydantic import ValidationError

from finetune_api.schema import Model
from finetune_trainer.errors import StorageError
from finetune_trainer.store import Store

FOLDER = "attempts"
BEAT_SECONDS = 10.0
"""How often a holder shows that it is alive."""
PATIENCE_SECONDS = 30.0
"""How long a holder on another machine may stay silent before it counts as dead."""
START_TOLERANCE = 1.0
"""Seconds by which two readings of one process's start may differ when the clock is adjusted."""


class Record(Model):
    """What an attempt's object says."""

    attempt: int
    holder: str
    """machine:pid:start, the start in seconds since 1970."""
    beat: int = 0
    """Counts up while the holder lives."""
    ended: bool = False


@dataclass(frozen=True)
class Holder:
    """A process, told apart from any other that ever had its number."""

    machine: str
    pid: int
    start: float

    def __str__(self) -> str:
        return f"{self.machine}:{self.pid}:{self.start:.2f}"

    @property
    def host(self) -> str:
        """The machine's name for people."""
        return self.machine.partition("@")[0]


class Attempt:
    """The right to write to a run, until `end` or the end of the `with` block."""

    def __init__(self, store: Store, record: Record, beat_seconds: float = BEAT_SECONDS) -> None:
        self.number = record.attempt
        self._store = store
        self._record = record
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(beat_seconds,), name="attempt", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise StorageError if a newer attempt has taken over; call before writing what it might have written."""
        newest = newest_number(self._store)
        if newest > self.number:
            raise StorageError(
                f"Attempt {newest} has taken over {self._store.uri}; attempt {self.number} stops without writing."
            )

    def end(self) -> None:
        """Let the next attempt start at once. Never fails: whoever finds no end watches for beats instead."""
        self._ending.set()
        self._thread.join()
        with suppress(StorageError):
            self._write(self._record.model_copy(update={"ended": True}))

    def _beat(self, beat_seconds: float) -> None:
        while not self._ending.wait(beat_seconds):
            with suppress(StorageError):  # the training goes on; its own writes tell whether the store is lost
                self._write(self._record.model_copy(update={"beat": self._record.beat + 1}))

    def _write(self, record: Record) -> None:
        self._record = record
        self._store.write(_path(self.number), _encode(record))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()


def claim(store: Store, patience: float = PATIENCE_SECONDS, beat_seconds: float = BEAT_SECONDS) -> Attempt:
    """Start the next attempt at the run in this store.

    Raises StorageError if another process is at it. A holder on this machine is judged at once; one on another machine
    is watched for up to `patience` seconds.
    """
    newest = newest_number(store)
    held = _read(store, newest) if newest else None
    if held is not None and is_alive(store, held, patience):
        raise _taken(store, held)
    record = Record(attempt=newest + 1, holder=str(current_holder()))
    if not store.create(_path(record.attempt), _encode(record)):
        raise _taken(store, _read(store, record.attempt) or record)
    return Attempt(store, record, beat_seconds)


def newest_number(store: Store) -> int:
    """Number of the newest attempt; 0 if there is none."""
    numbers = [re.fullmatch(rf"{FOLDER}/(\d+)\.json", file.path) for file in store.list(FOLDER)]
    return max((int(number[1]) for number in numbers if number), default=0)


def is_alive(store: Store, record: Record, patience: float) -> bool:
    """Whether the holder of an attempt still works on it."""
    if record.ended:
        return False
    holder = parse_holder(record.holder)
    if holder.machine == _machine():
        return _is_running(holder)
    return _beats(store, record, patience)


def current_holder() -> Holder:
    """This process."""
    return Holder(_machine(), os.getpid(), psutil.Process().create_time())


def parse_holder(text: str) -> Holder:
    """The holder written as machine:pid:start."""
    machine, pid, start = text.rsplit(":", 2)
    return Holder(machine, int(pid), float(start))


def _is_running(holder: Holder) -> bool:
    try:
        process = psutil.Process(holder.pid)
        same = abs(process.create_time() - holder.start) <= START_TOLERANCE
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _beats(store: Store, record: Record, patience: float) -> bool:
    """Watch an attempt until it beats, ends or patience is over."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        time.sleep(min(1.0, patience / 10))
        seen = _read(store, record.attempt)
        if seen is not None and (seen.ended or seen.beat != record.beat):
            return not seen.ended
    return False


def _machine() -> str:
    """Host name with a mark of the boot and the process table: pods of one name on several nodes must differ."""
    marks = [Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")]
    if not all(mark.exists() for mark in marks):
        return socket.gethostname()
    text = marks[0].read_text() + os.readlink(marks[1])
    return f"{socket.gethostname()}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _taken(store: Store, record: Record) -> StorageError:
    holder = parse_holder(record.holder)
    return StorageError(
        f"Another run (host {holder.host}, process {holder.pid}, attempt {record.attempt}) is writing to {store.uri}; "
        "wait for it or stop it."
    )


def _read(store: Store, number: int) -> Record | None:
    """The object of an attempt, or None if a machine that lost power left it torn."""
    try:
        return Record.model_validate_json(store.read(_path(number)))
    except ValidationError:
        return None


def _path(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"


def _encode(record: Record) -> bytes:
    return record.model_dump_json().encode()
