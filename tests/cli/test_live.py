"""What a person sees while a run works."""

import io
import re

import pytest
from rich.console import Console

from finetune_api.identity import run_config
from finetune_api.job import FineTuneJob
from finetune_api.run import Progress
from finetune_cli.live import PlainLines, duration, facts, live_lines, watching
from support.manifests import make_manifest


def make_console(width: int = 100, terminal: bool = True) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, width=width, force_terminal=terminal, color_system=None, legacy_windows=False), screen


def training(step: int, validation: float | None = 1.5, total: int = 200) -> Progress:
    return Progress(
        stage="train", step=step, total_steps=total, epoch=step / 100, train_loss=2.345, validation_loss=validation,
        tokens_per_second=12345.6, eta_seconds=float(total - step),
    )  # fmt: skip


def last_frame(screen: str, lines: int) -> list[str]:
    """The live lines as they stand at the end, without escape sequences."""
    erased = "\x1b[2K"
    return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|\r", "", screen.rpartition(erased)[2]).splitlines()[-lines:]


def plain(progress: list[Progress]) -> list[str]:
    console, screen = make_console(terminal=False)
    tell = PlainLines(console).tell
    for entry in progress:
        tell(entry)
    return screen.getvalue().splitlines()


def test_plain_lines_show_what_is_going_on_in_each_stage() -> None:
    got = plain([Progress(stage="prepare", message="reading"), Progress(stage="train", message="loading the model")])
    assert got == ["prepare  reading", "train  loading the model"]


def test_plain_lines_leave_out_steps_that_follow_quickly() -> None:
    got = plain([training(step) for step in range(1, 200)])
    assert got == ["train  1/200  loss 2.345  validation 1.500  3:19 left  epoch 0.0  12,346 tokens/s"]


def test_plain_lines_never_leave_out_a_validation_or_the_end() -> None:
    got = plain([training(1), training(2), training(3, 1.25), training(4, 1.25), training(200, 1.25)])
    assert [line.split()[1] for line in got] == ["1/200", "3/200", "200/200"]


def test_a_terminal_keeps_the_lines_of_finished_stages() -> None:
    console, screen = make_console()
    with live_lines(console) as tell:
        tell(Progress(stage="prepare", message="reading"))
        tell(training(3))
        tell(Progress(stage="evaluate", step=7, total_steps=90))
    got = last_frame(screen.getvalue(), 3)
    assert [line.split()[0] for line in got] == ["prepare", "train", "evaluate"]
    assert "reading" in got[0]
    assert "3/200" in got[1]
    assert "7/90" in got[2]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_a_live_line_fits_the_terminal_and_keeps_its_clock_and_counts(width: int) -> None:
    console, screen = make_console(width)
    with live_lines(console) as tell:
        tell(training(4321, total=98765))
    [line] = last_frame(screen.getvalue(), 1)
    assert len(line) <= width
    assert "4321/98765" in line
    assert "0:00:00" in line
    assert "loss 2.345" in line


def test_at_eighty_columns_the_losses_and_the_time_left_are_whole() -> None:
    console, screen = make_console(80)
    with live_lines(console) as tell:
        tell(training(43))
    [line] = last_frame(screen.getvalue(), 1)
    assert "loss 2.345  validation 1.500  2:37 left" in line


def test_words_in_brackets_are_shown_as_they_are() -> None:
    console, screen = make_console()
    with live_lines(console) as tell:
        tell(Progress(stage="prepare", message="reading [bold]rows[/nothing]"))
    assert "reading [bold]rows[/nothing]" in last_frame(screen.getvalue(), 1)[0]
    assert plain([Progress(stage="prepare", message="[red]")]) == ["prepare  [red]"]


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    job = FineTuneJob.model_validate(make_manifest())
    with watching(run_config(job, "20261123-3f9a1c2b", "sha256:3f", [])) as tell:
        tell(Progress(stage="prepare", message="reading"))
    got = capsys.readouterr()
    assert got.out == ""
    assert got.err == "default/clinic-triage  run 20261123-3f9a1c2b\nprepare  reading\n"


def test_unknown_figures_are_left_out() -> None:
    assert facts(Progress(stage="train")) == ""
    assert facts(Progress(stage="train", epoch=0.25, train_loss=1.0)) == "loss 1.000  epoch 0.2"


def test_durations_read_like_a_clock() -> None:
    assert [duration(s) for s in (7.4, 65, 750, 3900)] == ["0:07", "1:05", "12:30", "1:05:00"]
