"""A run of several processes in one pod: from the manifest to the adapter, stopped, broken off, and gone on with."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune_api.report import Report
from finetune_api.run import ExitCode
from finetune_trainer.manifest import verify
from finetune_trainer.store import open_store
from support.jobs import SURE, make_job, write_dataset
from support.rows import echo_rows
from support.stages import Ended, Stage, run_stage, running_stage

TWO = {"FINETUNE_PROCESSES": "2", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "rows.jsonl", echo_rows(60))


def job(model: Path, rows: Path, folder: Path) -> dict[str, Any]:
    return make_job(model, rows, folder / "out", evaluation=SURE)


def report_of(folder: Path, ended: Ended) -> Report:
    store = open_store(f"file://{folder}/out/tests/tiny/runs/{ended.report.run_id}")
    assert verify(store) == []
    return Report.model_validate_json(store.read("report.json"))


def losses(report: Report) -> list[float]:
    return [point.value for point in report.training.train_loss]


@pytest.fixture(scope="module")
def alone(tiny_llama: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("alone")
    return report_of(folder, run_stage(job(tiny_llama, rows, folder), folder, "run"))


def workers(stage: Stage) -> list[psutil.Process]:
    return [process for process in psutil.Process(stage.process.pid).children() if process.is_running()]


def test_two_processes_publish_one_run_with_the_losses_of_one(tiny_llama, rows, alone: Report, tmp_path: Path) -> None:
    ended = run_stage(job(tiny_llama, rows, tmp_path), tmp_path, "run", **TWO)
    assert ended.code == ExitCode.DONE, ended.log
    report = report_of(tmp_path, ended)
    assert report.outcome.attempt == 1
    assert report.training.devices == "2 processes, each on CPU (1 thread)"
    assert losses(report) == pytest.approx(losses(alone), rel=0.02)
    assert report.outcome.evaluation is not None
    assert report.outcome.evaluation.verdict == "Passed"
    assert len([line for line in ended.log.splitlines() if "evaluate:" in line]) >= 1


def test_a_signal_stops_all_after_saving_and_one_process_goes_on(tiny_llama, rows, alone: Report, tmp_path) -> None:
    manifest = job(tiny_llama, rows, tmp_path)
    with running_stage(manifest, tmp_path, "run", **TWO) as stage:
        stage.wait_for("train: step 6 ")
        stage.process.send_signal(signal.SIGTERM)
        stopped = stage.wait()
    assert stopped.code == stopped.report.exit_code == ExitCode.STOPPED, stopped.log
    report = report_of(tmp_path, run_stage(manifest, tmp_path, "run"))
    assert report.training.resumed_from is not None
    assert report.training.resumed_from >= 6
    assert losses(report) == pytest.approx(losses(alone), rel=0.02)


def test_when_one_process_is_lost_the_others_end_and_all_can_come_back(tiny_llama, rows, tmp_path: Path) -> None:
    manifest = job(tiny_llama, rows, tmp_path)
    with running_stage(manifest, tmp_path, "run", **TWO) as stage:
        stage.wait_for("train: step 6 ")
        before = workers(stage)
        assert len(before) == 2
        before[1].kill()
        broken = stage.wait()
        assert psutil.wait_procs(before, timeout=20)[1] == []
    assert broken.code == ExitCode.STOPPED, broken.log
    assert "Another process of the run was lost" in broken.report.message
    again = run_stage(manifest, tmp_path, "run", **TWO)
    assert again.code == ExitCode.DONE, again.log
    resumed = report_of(tmp_path, again).training.resumed_from
    assert resumed is not None
    assert resumed >= 6  # the process that writes saved before it ended


def test_what_is_wrong_with_the_data_is_told_by_the_first_process(tiny_llama: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a"}\n' * 30)
    ended = run_stage(job(tiny_llama, bad, tmp_path), tmp_path, "run", **TWO)
    assert ended.code == ended.report.exit_code == ExitCode.DATA_REJECTED


def test_torchrun_can_start_the_processes(tiny_llama: Path, rows: Path, tmp_path: Path) -> None:
    import subprocess

    from support.stages import _environment

    torchrun = Path(sys.executable).with_name("torchrun")
    word = tmp_path / "last-word"
    ended = subprocess.run(
        [str(torchrun), "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0",
         "-m", "finetune_trainer", "run", "--port", "0"],
        env=_environment(job(tiny_llama, rows, tmp_path), tmp_path, word)
        | {"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert report_of(tmp_path, Ended(0, word.read_text(), ended.stdout)).outcome.attempt == 1
