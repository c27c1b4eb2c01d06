"""The processes of one machine: started together, stopped together, with one exit code."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

from finetune_api.contract import (
    INDEX_VARIABLE,
    LEADER_VARIABLE,
    NODES_VARIABLE,
    PROCESSES_VARIABLE,
    RENDEZVOUS_VARIABLE,
)
from finetune_api.run import ExitCode

NOTICE_SECONDS, GRACE_SECONDS = 15, 100
"""How long processes may take to notice that one of them has failed, and to save once they are told to stop."""
LOOK_SECONDS = 0.2
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Crew:
    """How many processes there are, here and elsewhere."""

    processes: int = 1
    """On each machine, one for each GPU."""
    machines: int = 1
    machine: int = 0
    """Number of this machine."""
    leader: str = "127.0.0.1"
    """Name of machine 0."""
    port: int = 0
    """Where the processes find each other; 0 for any that is free, if there is one machine."""

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "Crew":
        """As the environment of a pod tells."""
        return cls(
            processes=int(environment.get(PROCESSES_VARIABLE, "1")),
            machines=int(environment.get(NODES_VARIABLE, "1")),
            machine=int(environment.get(INDEX_VARIABLE, "0")),
            leader=environment.get(LEADER_VARIABLE, "127.0.0.1"),
            port=int(environment.get(RENDEZVOUS_VARIABLE, "0")),
        )

    @property
    def size(self) -> int:
        """Processes on all machines."""
        return self.processes * self.machines

    def places(self) -> list[dict[str, str]]:
        """The variables of each process of this machine, as torchrun would set them."""
        port = str(self.port if self.machines > 1 else free_port())
        shared = {"WORLD_SIZE": str(self.size), "MASTER_ADDR": self.leader, "MASTER_PORT": port}
        return [
            {**shared, "RANK": str(self.machine * self.processes + local), "LOCAL_RANK": str(local)}
            for local in range(self.processes)
        ]


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def work(crew: Crew, arguments: Sequence[str]) -> int:
    """Run the trainer in every process of this machine, passing signals on. Returns the exit code of the whole."""
    command = [sys.executable, "-m", "finetune_trainer", *arguments]
    processes = [
        subprocess.Popen(command, env={**os.environ, **place}, preexec_fn=end_with_parent) for place in crew.places()
    ]

    def pass_on(number: int, _frame: FrameType | None) -> None:
        _signal(processes, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    return joint_code(_await_all(processes))


def end_with_parent() -> None:
    """Have Linux stop this process when its parent is gone: nobody else would."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def joint_code(codes: Sequence[int]) -> int:
    """The exit code that tells most, of codes in the order in which processes ended.

    What one of them found wrong; else that they stopped, also if the others broke down over it.
    """
    told = [code for code in codes if code > 0 and code != ExitCode.STOPPED]
    if told:
        return told[0]
    return ExitCode.STOPPED if any(codes) else ExitCode.DONE


def _await_all(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes in the order in which processes end. Once one fails the others are to notice; else they are told."""
    codes: dict[int, int] = {}
    failed: float | None = None
    means = {signal.SIGTERM: NOTICE_SECONDS, signal.SIGKILL: NOTICE_SECONDS + GRACE_SECONDS}
    while len(codes) < len(processes):
        for process in processes:
            code = process.poll()
            if code is not None and process.pid not in codes:
                codes[process.pid] = code
        failed = failed or (time.monotonic() if any(codes.values()) else None)
        for number, after in list(means.items()):
            if failed is not None and time.monotonic() - failed > after:
                _signal(processes, number)
                del means[number]
        time.sleep(LOOK_SECONDS)
    return list(codes.values())


def _signal(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
