"""What a pod does with a job, and what it answers: the stages, without the process around them."""

import json
import shutil
import threading
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.problems import parse_job
from finetune_api.report import Report
from finetune_api.run import ExitCode, Progress, RunReport
from finetune_trainer import stages
from finetune_trainer.errors import ModelNotLoadable, Stopped
from finetune_trainer.manifest import verify
from finetune_trainer.session import Session
from finetune_trainer.stages import Begun
from finetune_trainer.store import Store, open_store
from support.jobs import SURE, make_job, write_dataset
from support.rows import echo_rows

MINUTES = count()


@pytest.fixture
def job(tiny_llama: Path, tmp_path: Path) -> FineTuneJob:
    rows = write_dataset(tmp_path / "rows.jsonl", echo_rows(60))
    return parse_job(make_job(tiny_llama, rows, tmp_path / "out", evaluation=SURE))


def new_session(folder: Path, tell: Any = lambda _: None, stop: threading.Event | None = None) -> Session:
    """A session of a pod; every look at the clock is a minute later."""
    start = datetime(2026, 11, 23, tzinfo=UTC)
    return Session(folder / "cache", tell, stop or threading.Event(), lambda: start + timedelta(minutes=next(MINUTES)))


def changed(job: FineTuneJob, **training: Any) -> FineTuneJob:
    """The same job with other settings of training."""
    manifest = job.to_manifest()
    manifest["spec"]["training"] |= training
    return parse_job(manifest)


def store_of(job: FineTuneJob) -> Store:
    return open_store(job.spec.output.uri).under("tests/tiny")


def begun(report: RunReport) -> Begun:
    return Begun(report.run_id, report.digest)


def current(job: FineTuneJob) -> str:
    """The run whose adapter is in use."""
    return str(json.loads(store_of(job).read("current.json"))["runId"])


def stored(job: FineTuneJob, run: str) -> Report:
    return Report.model_validate_json(store_of(job).read(f"runs/{run}/report.json"))


def test_preparing_freezes_the_rows_and_counts_them(job: FineTuneJob, tmp_path: Path) -> None:
    prepared = stages.prepare(job, new_session(tmp_path))
    assert (prepared.exit_code, prepared.stage, prepared.attempt) == (ExitCode.DONE, "prepare", 1)
    assert prepared.message == "60 rows prepared: 45 for training, 6 for validation, 9 for the test; none left out."
    again = stages.prepare(job, new_session(tmp_path))
    assert again == prepared.model_copy(update={"attempt": 2})


def test_what_was_left_out_is_counted(job: FineTuneJob, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    prepared = stages.prepare(job, new_session(tmp_path))
    assert prepared.message.endswith("9 for the test; 1 left out.")


def test_the_rows_of_a_prepared_run_stay_whatever_becomes_of_the_dataset(job: FineTuneJob, tmp_path: Path) -> None:
    prepared = stages.prepare(job, new_session(tmp_path))
    (tmp_path / "rows.jsonl").unlink()
    report = stages.run(job, begun(prepared), None, new_session(tmp_path))
    assert (report.run_id, report.stage, report.attempt) == (prepared.run_id, "publish", 2)
    assert report.data_version is None  # it says nothing of data that it did not look at
    assert verify(store_of(job).under(f"runs/{report.run_id}")) == []


def test_one_pod_does_everything_and_says_what_the_data_was(job: FineTuneJob, tmp_path: Path) -> None:
    want = stages.check(job).data_version
    report = stages.run(job, None, None, new_session(tmp_path))
    assert (report.stage, report.attempt, report.data_version) == ("publish", 1, want)
    assert current(job) == report.run_id


def test_a_look_writes_nothing_and_changes_its_answer_with_the_data_only(job: FineTuneJob, tmp_path: Path) -> None:
    want = stages.check(job)
    assert (want.exit_code, want.run_id) == (ExitCode.DONE, "")
    assert stages.check(changed(job, seed=7)) == want
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl"}
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("\n")
    assert stages.check(job).data_version != want.data_version


@pytest.mark.parametrize("lost", ["data", "config.json"])
def test_rows_that_are_gone_are_prepared_anew(
    lost: str, job: FineTuneJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = stages.prepare(job, new_session(tmp_path))
    store_of(job).delete(f"runs/{prepared.run_id}/{lost}")
    report = stages.run(job, begun(prepared), None, new_session(tmp_path))
    assert (report.run_id, report.stage) == (prepared.run_id, "publish")
    assert f"Run {prepared.run_id} has no rows of digest {prepared.digest}" in caplog.text


def test_rows_of_another_digest_are_not_trained_on(job: FineTuneJob, tmp_path: Path) -> None:
    prepared = stages.prepare(job, new_session(tmp_path))
    other = changed(job, seed=7)
    report = stages.run(other, Begun(prepared.run_id, "sha256:other"), None, new_session(tmp_path))
    assert report.run_id != prepared.run_id
    settings = {setting.path: setting.value for setting in stored(other, report.run_id).settings}
    assert settings["training.seed"] == "7"


def test_a_finished_run_is_answered_and_not_repeated(job: FineTuneJob, tmp_path: Path) -> None:
    want = stages.run(job, None, None, new_session(tmp_path))
    folder = store_of(job).folder
    assert folder is not None
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert stages.prepare(job, new_session(tmp_path)) == want
    assert stages.run(job, None, None, new_session(tmp_path)) == want
    ordered = stages.run(job, begun(want), None, new_session(tmp_path))
    assert ordered == want.model_copy(update={"data_version": None})
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_run_that_died_before_its_promotion_is_promoted_by_the_pod_that_goes_on(
    job: FineTuneJob, tmp_path: Path
) -> None:
    report = stages.run(job, None, None, new_session(tmp_path))
    store_of(job).delete("current.json")
    stages.run(job, begun(report), None, new_session(tmp_path))
    assert current(job) == report.run_id


def test_going_back_to_an_earlier_manifest_makes_its_adapter_current_again(job: FineTuneJob, tmp_path: Path) -> None:
    first = stages.run(job, None, None, new_session(tmp_path))
    second = stages.run(changed(job, seed=7), None, None, new_session(tmp_path))
    assert current(job) == second.run_id != first.run_id
    assert stages.prepare(job, new_session(tmp_path)).run_id == first.run_id
    assert current(job) == first.run_id
    # A pod that was left behind from the other manifest looks again: what the manifest said last stays.
    stages.run(changed(job, seed=7), begun(second), None, new_session(tmp_path))
    assert current(job) == first.run_id
    third = stages.run(changed(job, seed=8), None, None, new_session(tmp_path))
    assert current(job) == third.run_id


def test_going_back_to_a_manifest_whose_adapter_was_not_better_leaves_the_current_one(
    job: FineTuneJob, tmp_path: Path
) -> None:
    idle = changed(job, earlyStopping={"minDelta": 10})  # so the best adapter is the untrained one
    report = stages.run(idle, None, None, new_session(tmp_path))
    assert report.evaluation is not None
    assert report.evaluation.verdict == "Inconclusive"
    good = stages.run(job, None, None, new_session(tmp_path))
    assert stages.prepare(idle, new_session(tmp_path)).run_id == report.run_id
    assert current(job) == good.run_id


def test_after_a_failure_for_want_of_memory_smaller_passes_go_on_to_the_same_result(
    job: FineTuneJob, tmp_path: Path
) -> None:
    manifest = job.to_manifest()
    manifest["spec"]["method"]["lora"] = {"dropout": 0.0}  # dropout draws other units for other passes
    job = parse_job(manifest)
    manifest["spec"]["output"]["uri"] = f"file://{tmp_path}/elsewhere"
    unbroken = stages.run(parse_job(manifest), None, None, new_session(tmp_path))
    want = stored(parse_job(manifest), unbroken.run_id).training

    stop, prepared = threading.Event(), stages.prepare(job, new_session(tmp_path))
    session = new_session(tmp_path, lambda progress: stop.set() if progress.step == 9 else None, stop)
    with pytest.raises(Stopped):
        stages.run(job, begun(prepared), None, session)
    report = stages.run(job, begun(prepared), 24, new_session(tmp_path))
    assert report.digest == prepared.digest == unbroken.digest
    small = stored(job, report.run_id)
    assert small.training.resumed_from == 9
    [setting] = [entry for entry in small.settings if entry.path == "training.microBatchTokens"]
    assert (setting.value, setting.source) == ("24", "lowered after a failure for want of memory")
    assert [point.value for point in small.training.train_loss] == pytest.approx(
        [point.value for point in want.train_loss], rel=2e-3
    )


def test_a_model_that_cannot_be_trained_is_refused_before_an_accelerator_is_asked_for(
    job: FineTuneJob, tiny_llama: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_llama, tmp_path / "encoder"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "bert", "architectures": ["BertModel"]}))
    manifest = job.to_manifest()
    manifest["spec"]["model"]["uri"] = f"file://{model}"
    with pytest.raises(ModelNotLoadable, match="BertModel, which is not a causal language model"):
        stages.prepare(parse_job(manifest), new_session(tmp_path))


def test_the_checkpoint_of_the_latest_validation_is_told(job: FineTuneJob, tmp_path: Path) -> None:
    told: list[Progress] = []
    stages.run(job, None, None, new_session(tmp_path, told.append))
    validated = [entry for entry in told if entry.stage == "train" and entry.step % 6 == 0 and entry.step]
    assert {entry.step: entry.checkpoint_step for entry in validated} == {6: 6, 12: 12, 18: 18, 24: 24}
    assert [entry.checkpoint_step for entry in told if entry.stage == "train" and entry.step == 7] == [6]
