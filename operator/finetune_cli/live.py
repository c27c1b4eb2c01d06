"""What a person sees while a run works: a live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column

from finetune_api.run import Progress, RunConfig

Tell = Callable[[Progress], None]
LINE_EVERY = 10.0
"""Seconds between plain lines of one stage."""
NARROWEST_BAR, WIDEST_BAR = 10, 24
BESIDE_THE_BAR = 96
"""Columns of a live line with all its facts, without the bar."""


@contextmanager
def watching(config: RunConfig) -> Iterator[Tell]:
    """A function that shows progress. Everything goes to standard error: standard output is for results."""
    console = Console(stderr=True)
    console.print(f"{config.job_path}  run {config.run_id}", style="bold", highlight=False, soft_wrap=True)
    if console.is_terminal:
        with live_lines(console) as tell:
            yield tell
    else:
        yield PlainLines(console).tell


@contextmanager
def live_lines(console: Console) -> Iterator[Tell]:
    """One line with a bar for each stage; those of finished stages stay on the screen."""
    with Bars(*_columns(console.width), console=console, expand=True) as bars:
        tasks: dict[str, TaskID] = {}

        def finish() -> None:
            for task in tasks.values():
                bars.update(task, total=1, completed=1)
                bars.stop_task(task)

        def tell(progress: Progress) -> None:
            if progress.stage not in tasks:
                finish()
                tasks[progress.stage] = bars.add_task(progress.stage, total=None, counts="", facts="")
            bars.update(
                tasks[progress.stage],
                total=progress.total_steps or None,
                completed=progress.step,
                counts=counts(progress),
                facts=progress.message or facts(progress),
            )

        yield tell
        finish()


class PlainLines:
    """At most one line every few seconds, but always the first of a stage, its validations and its end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last = 0.0
        self.stage = ""
        self.validation_loss: float | None = None

    def tell(self, progress: Progress) -> None:
        """Print the line if it is due."""
        news = progress.stage != self.stage or progress.validation_loss != self.validation_loss
        ended = bool(progress.total_steps) and progress.step == progress.total_steps
        if not news and not ended and not progress.message and time.monotonic() - self.last < LINE_EVERY:
            return
        self.last, self.stage, self.validation_loss = time.monotonic(), progress.stage, progress.validation_loss
        words = [progress.stage, counts(progress), progress.message or facts(progress)]
        self.console.print("  ".join(word for word in words if word), soft_wrap=True, highlight=False, markup=False)


def counts(progress: Progress) -> str:
    """Steps done of all, where they are known."""
    return f"{progress.step}/{progress.total_steps}" if progress.total_steps else ""


def facts(progress: Progress) -> str:
    """The figures worth watching in one line, the ones to cut off first last."""
    found = []
    if progress.train_loss is not None:
        found.append(f"loss {progress.train_loss:.3f}")
    if progress.validation_loss is not None:
        found.append(f"validation {progress.validation_loss:.3f}")
    if progress.eta_seconds:
        found.append(f"{duration(progress.eta_seconds)} left")
    if progress.epoch is not None:
        found.append(f"epoch {progress.epoch:.1f}")
    if progress.tokens_per_second is not None:
        found.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    return "  ".join(found)


def duration(seconds: float) -> str:
    """0:07, 12:30, 1:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _columns(width: int) -> tuple[TextColumn, BarColumn, TextColumn, TimeElapsedColumn, TextColumn]:
    """Everything keeps its width but the facts, which are cut off at the end of the line."""
    bar = max(NARROWEST_BAR, min(WIDEST_BAR, width - BESIDE_THE_BAR))
    return (
        TextColumn("{task.description}", table_column=Column(width=8, no_wrap=True)),
        BarColumn(bar_width=bar, table_column=Column(width=bar)),
        TextColumn("{task.fields[counts]}", justify="right", table_column=Column(width=11, no_wrap=True)),
        TimeElapsedColumn(table_column=Column(width=7, no_wrap=True)),
        TextColumn("{task.fields[facts]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
    )
