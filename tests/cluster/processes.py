"""Processes of the tests' Kubernetes: each has a pid file and a log, so that a later command can end it.

`FOLDER/run/NAME.pid` and `FOLDER/log/NAME.log`. Linux only. A pid file also says when the process started, so that
after a crash or a reboot no stranger with the same id is ended.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

STOP_SECONDS = 20.0
POLL_SECONDS = 0.05
# Reads until the process that holds the other end of its input is gone, however that one died.
GUARD = 'cat > /dev/null; for file in "$0"/run/*.pid; do read pid start < "$file"; kill -KILL "$pid"; done 2> /dev/null'


def start(folder: Path, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> int:
    """Start a process in a session of its own; return its process id."""
    log, pid_file = folder / "log" / f"{name}.log", _find_pid_file(folder, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    pid = os.posix_spawnp(
        command[0],
        command,
        {**os.environ, **(environment or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    pid_file.write_text(f"{pid} {_read_state(pid)[1]}")
    return pid


def guard(folder: Path) -> subprocess.Popen[bytes]:
    """Let the folder's processes die with this one, even if it is killed; `communicate()` ends the guard."""
    return subprocess.Popen(["sh", "-c", GUARD, str(folder)], stdin=subprocess.PIPE, start_new_session=True)


def read_pid(folder: Path, name: str) -> int:
    """The process id of a process that was started."""
    return int(_find_pid_file(folder, name).read_text().split()[0])


def is_alive(folder: Path, name: str) -> bool:
    """Whether the process was started and has not ended."""
    pid_file = _find_pid_file(folder, name)
    return pid_file.exists() and _runs(*pid_file.read_text().split())


def stop(folder: Path, name: str, number: signal.Signals = signal.SIGTERM) -> None:
    """End a process and wait until it is gone; one that does not listen is killed."""
    deadline = time.monotonic() + STOP_SECONDS
    while is_alive(folder, name):
        _signal(read_pid(folder, name), number if time.monotonic() < deadline else signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    _find_pid_file(folder, name).unlink(missing_ok=True)


def stop_all(folder: Path) -> None:
    """End every process of the folder, the one started last first."""
    files = sorted(folder.glob("run/*.pid"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in files:
        stop(folder, file.stem)


def wait_for(folder: Path, name: str, is_ready: Callable[[], bool], seconds: float) -> None:
    """Wait until the process is ready; RuntimeError with the end of its log if it ends or takes longer."""
    deadline = time.monotonic() + seconds
    while not is_ready():
        alive = is_alive(folder, name)
        if not alive or time.monotonic() > deadline:
            problem = f"was not ready after {seconds:.0f} s" if alive else "ended"
            raise RuntimeError(f"{name} {problem}. The end of its log:\n{read_log(folder, name)}")
        time.sleep(POLL_SECONDS)


def read_log(folder: Path, name: str, lines: int = 20) -> str:
    """The last lines of a process's log."""
    return "\n".join((folder / "log" / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])


def _find_pid_file(folder: Path, name: str) -> Path:
    return folder / "run" / f"{name}.pid"


def _runs(pid: str, start: str) -> bool:
    # A child that ended stays in the process table until its parent asks for its status.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(int(pid), os.WNOHANG)
    state, started = _read_state(int(pid))
    return started == start and state != "Z"


def _read_state(pid: int) -> tuple[str, str]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return fields[0], fields[19]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
