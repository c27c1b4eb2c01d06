"""A last word fits, and loses what matters least."""

import pytest

from finetune_api.contract import LAST_WORD_BYTES
from finetune_api.run import ExitCode, RunReport
from finetune_trainer.last_word import fitted, plain


def report(message: str = "No.", log: tuple[str, ...] = ()) -> RunReport:
    return RunReport(run_id="r", exit_code=ExitCode.STORAGE, stage="train", message=message, log=list(log))


def test_a_short_report_is_said_whole() -> None:
    want = report("The bucket is gone.", ("one", "two"))
    assert RunReport.model_validate_json(fitted(want)) == want


def test_the_oldest_lines_go_first() -> None:
    lines = [f"{number}: {'x' * 200}" for number in range(10)]
    got = RunReport.model_validate_json(fitted(report(log=tuple(lines)), limit=1000))
    assert got.message == "No."
    assert got.log == lines[-len(got.log) :]
    assert 2 <= len(got.log) <= 4


def test_one_endless_line_does_not_cost_the_others() -> None:
    got = RunReport.model_validate_json(fitted(report(log=("first", "x" * 100_000, "last"))))
    assert (got.log[0], got.log[2]) == ("first", "last")


@pytest.mark.parametrize("letter", ["x", "ü", "語", '"', "\n", "\x00"])
def test_the_message_is_cut_only_when_no_line_is_left(letter: str) -> None:
    text = fitted(report(letter * 10_000, ("line",) * 10))
    assert LAST_WORD_BYTES * 0.8 < len(text.encode()) <= LAST_WORD_BYTES
    got = RunReport.model_validate_json(text)
    assert got.log == []
    assert got.message.rstrip("…").strip(letter) == ""
    assert got.message.endswith("…")


def test_plain_lines_keep_their_end() -> None:
    text = plain(["早" * 3000, "the end"])
    assert text.endswith("早\nthe end")
    assert LAST_WORD_BYTES - 3 < len(text.encode()) <= LAST_WORD_BYTES
