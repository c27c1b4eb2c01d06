"""Which run current.json points to."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from finetune_api.report import Report
from finetune_api.run import Verdict
from finetune_trainer.errors import StorageError
from finetune_trainer.promotion import make_current, promote
from finetune_trainer.store import Store, open_store
from support.reports import make_evaluation, make_outcome, make_report


@pytest.fixture
def job(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}")


def at(hour: int) -> str:
    return f"2026-11-23T{hour:02d}:00:00+00:00"


def finished(run: str, hour: int, verdict: Verdict = "Passed") -> Report:
    """A run that was published at this hour."""
    evaluation = make_evaluation().model_copy(update={"verdict": verdict})
    return make_report(outcome=make_outcome(run_id=run, evaluation=evaluation), created=at(hour))


def choose(job: Store, report: Report, hour: int) -> None:
    make_current(job, report, datetime.fromisoformat(at(hour)))


def current(job: Store) -> str:
    return str(json.loads(job.read("current.json"))["runId"])


def test_the_run_that_passed_last_is_current(job: Store) -> None:
    promote(job, finished("a", 1))
    promote(job, finished("b", 2))
    promote(job, finished("c", 3, "Inconclusive"))
    assert current(job) == "b"


def test_a_run_that_was_overtaken_does_not_come_back_by_itself(job: Store) -> None:
    promote(job, finished("b", 2))
    promote(job, finished("a", 1))
    assert current(job) == "b"


def test_a_choice_goes_back_and_holds_against_a_run_that_was_being_published_meanwhile(job: Store) -> None:
    promote(job, finished("a", 1))
    promote(job, finished("b", 2))
    choose(job, finished("a", 1), hour=4)
    assert current(job) == "a"
    promote(job, finished("c", 3))
    assert current(job) == "a"
    promote(job, finished("d", 5))
    assert current(job) == "d"


@pytest.mark.parametrize("verdict", ["Failed", "Inconclusive"])
def test_a_choice_of_a_run_that_did_not_pass_changes_nothing(verdict: Verdict, job: Store) -> None:
    promote(job, finished("a", 1))
    choose(job, finished("b", 2, verdict), hour=3)
    assert current(job) == "a"


def test_a_choice_of_what_is_current_writes_nothing(job: Store) -> None:
    promote(job, finished("a", 1))
    want = job.read("current.json")
    choose(job, finished("a", 1), hour=9)
    assert job.read("current.json") == want


def test_a_run_that_is_asked_for_again_writes_nothing(job: Store, tmp_path: Path) -> None:
    promote(job, finished("a", 1))
    want = (tmp_path / "current.json").stat().st_mtime_ns
    promote(job, finished("a", 1))
    assert (tmp_path / "current.json").stat().st_mtime_ns == want


def test_of_two_runs_of_the_same_second_the_later_one_is_current(job: Store) -> None:
    promote(job, finished("a", 1))
    promote(job, finished("b", 1))
    assert current(job) == "b"


@pytest.mark.parametrize("damaged", [b"{", b"3", b'"run"'])
def test_a_damaged_pointer_is_named(damaged: bytes, job: Store) -> None:
    job.write("current.json", damaged)
    with pytest.raises(StorageError, match=r"current\.json is damaged"):
        promote(job, finished("a", 1))
