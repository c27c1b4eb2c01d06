"""What surrounds a run, on a laptop as in a pod: where to cache, whom to tell, when to stop, where it stands."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from finetune_api.run import Progress, RunConfig, Stage
from finetune_trainer.errors import Stopped
from finetune_trainer.place import Place

MemoryReading = Callable[[], dict[str, int]]


@dataclass
class Standing:
    """Where a run stands. The run writes it as it goes, field by field; servers and last words read it at any time."""

    run_id: str = ""
    digest: str = ""
    attempt: int = 0
    data_version: str | None = None
    progress: Progress = field(default_factory=lambda: Progress(stage="prepare"))
    """The latest, with what earlier stages told."""
    learning_rate: float | None = None
    """Of the latest optimiser step."""
    tokens: int = 0
    """Real (not padding) tokens trained on, by all attempts."""
    gpu_memory: MemoryReading = dict
    """Bytes of the card by kind: allocated, reserved, total; nothing without a card."""


@dataclass(frozen=True)
class Session:
    """The surroundings of one run."""

    cache: Path
    tell: Callable[[Progress], None]
    stop: threading.Event
    now: Callable[[], datetime]
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage, filled while the run goes on."""
    standing: Standing = field(default_factory=Standing)
    place: Place = field(default_factory=Place)
    """Which of the processes that train together this one is."""
    protected: threading.Event = field(default_factory=threading.Event)
    """Set while something must be saved or finished before the process may end; a signal then only sets `stop`."""

    @contextmanager
    def stage(self, name: Stage, message: str) -> Iterator[None]:
        """Announce a stage, time it, and do not begin it once a stop was asked for."""
        if self.stop.is_set():
            raise Stopped(f"Stopped before the stage {name}; run again to go on from there.")
        self.tell(Progress(stage=name, message=message))
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def enter(self, config: RunConfig, attempt: int = 0) -> None:
        """Note which run this is, and which attempt at it; 0 before it is claimed."""
        self.standing.run_id, self.standing.digest, self.standing.attempt = config.run_id, config.digest, attempt
