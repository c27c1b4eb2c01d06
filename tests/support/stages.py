"""Stages of the trainer as processes of their own, as in a pod: orders in the environment, a last word, a port."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.request import Request, urlopen

from finetune_api.contract import CACHE_VARIABLE, JOB_VARIABLE, LAST_WORD_VARIABLE
from finetune_api.run import Progress, RunReport

PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Ended:
    """How a stage ended."""

    code: int
    word: str
    """Its last word."""
    log: str
    """What it printed."""

    @property
    def report(self) -> RunReport:
        """The last word as a report."""
        return RunReport.model_validate_json(self.word)


class Stage:
    """A running stage."""

    def __init__(self, job: Mapping[str, Any] | str, folder: Path, *arguments: str, **environment: str) -> None:
        self.last_word = folder / "last-word"
        self.last_word.write_text("")
        self.lines: list[str] = []
        port = [] if arguments[0] == "check" or "--port" in arguments else ["--port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "finetune_trainer", *arguments, *port],
            env=_environment(job, folder, self.last_word) | environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self) -> Ended:
        """Wait for the end."""
        code = self.process.wait(timeout=PATIENCE_SECONDS)
        self._reader.join()
        return Ended(code, self.last_word.read_text(encoding="utf-8"), "\n".join(self.lines))

    def wait_for(self, pattern: str) -> str:
        """The first line that a pattern is found in."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            over = self.process.poll() is not None
            for line in list(self.lines):
                if re.search(pattern, line):
                    return line
            assert not over, "\n".join(self.lines)
            time.sleep(0.01)
        raise TimeoutError("\n".join(self.lines))

    def get(self, path: str, headers: Mapping[str, str] = MappingProxyType({})) -> str:
        """What it answers over HTTP."""
        port = self.wait_for("on port").rpartition(" ")[2].rstrip(".")
        with urlopen(Request(f"http://127.0.0.1:{port}{path}", headers=dict(headers)), timeout=10) as answer:
            return str(answer.read().decode())

    def progress(self) -> Progress:
        """What /progress says."""
        return Progress.model_validate_json(self.get("/progress"))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


@contextmanager
def running_stage(job: Mapping[str, Any] | str, folder: Path, *arguments: str, **environment: str) -> Iterator[Stage]:
    """A stage that does not outlive its test."""
    stage = Stage(job, folder, *arguments, **environment)
    try:
        yield stage
    finally:
        stage.process.kill()
        stage.process.wait()


def run_stage(job: Mapping[str, Any] | str, folder: Path, *arguments: str, **environment: str) -> Ended:
    """Carry out a stage to its end."""
    with running_stage(job, folder, *arguments, **environment) as stage:
        return stage.wait()


def _environment(job: Mapping[str, Any] | str, folder: Path, last_word: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FINETUNE_", "HF_"))}
    return inherited | {
        JOB_VARIABLE: job if isinstance(job, str) else json.dumps(job),
        CACHE_VARIABLE: str(folder / "cache"),
        LAST_WORD_VARIABLE: str(last_word),
    }
