"""What a person sees while a run works: a live line on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from finetune_api.run import Progress, RunConfig

Tell = Callable[[Progress], None]
LINE_EVERY = 10.0
"""Seconds between plain lines of one stage."""


@contextmanager
def watching(config: RunConfig) -> Iterator[Tell]:
    """A function that shows progress. Everything goes to standard error: standard output is for results."""
    console = Console(stderr=True)
    console.print(f"{config.namespace}/{config.name}  run {config.run_id}", style="bold", highlight=False)
    if console.is_terminal:
        with live_line(console) as tell:
            yield tell
    else:
        yield PlainLines().tell


@contextmanager
def live_line(console: Console) -> Iterator[Tell]:
    """One bar a stage; finished stages stay on the screen."""
    with Bars(
        TextColumn("{task.description:<9}"), BarColumn(bar_width=24), TextColumn("{task.fields[counts]:>9}"),
        TimeElapsedColumn(), TextColumn("{task.fields[facts]}"), console=console,
    ) as bars:  # fmt: skip
        tasks: dict[str, TaskID] = {}

        def tell(progress: Progress) -> None:
            if progress.stage not in tasks:
                for task in tasks.values():
                    bars.update(task, total=1, completed=1)
                    bars.stop_task(task)
                tasks[progress.stage] = bars.add_task(progress.stage, total=None, counts="", facts="")
            bars.update(
                tasks[progress.stage],
                total=progress.total_steps or None,
                completed=progress.step,
                counts=f"{progress.step}/{progress.total_steps}" if progress.total_steps else "",
                facts=progress.message or facts(progress),
            )

        yield tell
        for task in tasks.values():
            bars.update(task, total=1, completed=1)


class PlainLines:
    """At most one line every few seconds, but always the first of a stage, its validations and its end."""

    def __init__(self) -> None:
        self.last = 0.0
        self.stage = ""
        self.validation_loss: float | None = None

    def tell(self, progress: Progress) -> None:
        """Print the line if it is due."""
        news = progress.stage != self.stage or progress.validation_loss != self.validation_loss
        ended = bool(progress.total_steps) and progress.step == progress.total_steps
        if not news and not ended and time.monotonic() - self.last < LINE_EVERY:
            return
        self.last, self.stage, self.validation_loss = time.monotonic(), progress.stage, progress.validation_loss
        counts = f"{progress.step}/{progress.total_steps}" if progress.total_steps else ""
        words = [progress.stage, counts, progress.message or "", facts(progress)]
        print("  ".join(word for word in words if word), file=sys.stderr, flush=True)


def facts(progress: Progress) -> str:
    """The figures worth watching, in one line."""
    found = []
    if progress.epoch is not None:
        found.append(f"epoch {progress.epoch:.1f}")
    if progress.train_loss is not None:
        found.append(f"loss {progress.train_loss:.3f}")
    if progress.validation_loss is not None:
        found.append(f"validation {progress.validation_loss:.3f}")
    if progress.tokens_per_second is not None:
        found.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.eta_seconds:
        minutes, seconds = divmod(round(progress.eta_seconds), 60)
        found.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(found)
