"""The trainer as the process of a pod: its orders, its log, its last word and its exit code."""

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_api.contract import LAST_WORD_BYTES
from finetune_api.run import ExitCode, RunReport
from finetune_trainer.manifest import verify
from finetune_trainer.store import Store, open_store
from support.jobs import SURE, make_job, write_dataset
from support.rows import echo_rows
from support.s3_server import S3Server
from support.stages import Ended, run_stage

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO |WARNING|ERROR) +\S.*")


@pytest.fixture
def job(tiny_llama: Path, tmp_path: Path) -> dict[str, Any]:
    rows = write_dataset(tmp_path / "rows.jsonl", echo_rows(60))
    return make_job(tiny_llama, rows, tmp_path / "out", evaluation=SURE)


@dataclass(frozen=True)
class TwoPods:
    """A job in a bucket, carried out by a pod that prepares and one that trains."""

    job: dict[str, Any]
    first: Ended
    second: Ended
    caches: dict[str, set[str]]
    """Names of the files that each pod downloaded."""
    store: Store
    """The job's results."""


@pytest.fixture(scope="module")
def two_pods(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[TwoPods]:
    """Both pods can write nothing but their cache and /tmp."""
    folders = {stage: tmp_path_factory.mktemp(stage) for stage in ("prepare", "run")}
    bucket = s3_server.make_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    with pytest.MonkeyPatch.context() as patch:
        s3_server.point_here(patch)
        source = open_store(f"{bucket}/in")
        for file in tiny_llama.iterdir():
            source.write_file(f"model/{file.name}", file)
        source.write_file("rows.jsonl", write_dataset(folders["prepare"] / "rows.jsonl", echo_rows(60)))
        job = make_job(f"{bucket}/in/model", f"{bucket}/in/rows.jsonl", f"{bucket}/out", evaluation=SURE)
        nowhere = {"HOME": "/proc", "XDG_CACHE_HOME": "/proc", "USER": "", "PYTHONPROFILEIMPORTTIME": "1"}
        first = run_stage(job, folders["prepare"], "prepare", **nowhere)
        assert first.code == ExitCode.DONE, first.log
        known = ["--run-id", first.report.run_id, "--digest", first.report.digest]
        second = run_stage(job, folders["run"], "run", *known, **nowhere)
        assert second.code == ExitCode.DONE, second.log
        caches = {stage: {path.name for path in (at / "cache").rglob("*")} for stage, at in folders.items()}
        yield TwoPods(job, first, second, caches, open_store(f"{bucket}/out/tests/tiny"))


def imported(ended: Ended) -> set[str]:
    """Modules that a process imported."""
    return {line.rpartition("|")[2].strip() for line in ended.log.splitlines() if line.startswith("import time")}


def test_two_pods_bring_a_job_in_a_bucket_from_its_manifest_to_its_adapter(two_pods: TwoPods) -> None:
    prepared, report = two_pods.first.report, two_pods.second.report
    assert (prepared.stage, prepared.attempt, prepared.adapter) == ("prepare", 1, None)
    assert (report.stage, report.run_id, report.digest) == ("publish", prepared.run_id, prepared.digest)
    assert report.attempt == 2
    assert report.evaluation is not None
    assert report.evaluation.verdict == "Passed"
    assert verify(two_pods.store.under(f"runs/{report.run_id}")) == []
    assert json.loads(two_pods.store.read("current.json"))["runId"] == report.run_id


def test_preparing_loads_no_torch_and_no_weights(two_pods: TwoPods) -> None:
    assert {"transformers", "pyarrow.parquet"} <= imported(two_pods.first)
    heavy = ("torch", "peft", "bitsandbytes")
    assert {name for name in imported(two_pods.first) if name.partition(".")[0] in heavy} == set()
    assert "tokenizer.json" in two_pods.caches["prepare"]
    assert "model.safetensors" not in two_pods.caches["prepare"]
    assert "model.safetensors" in two_pods.caches["run"]


def test_the_log_has_a_line_for_every_stage_and_validation_with_utc_time_and_level(two_pods: TwoPods) -> None:
    lines = [line for line in two_pods.second.log.splitlines() if not line.startswith("import time")]
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    told = [line.split(maxsplit=2)[2] for line in lines]
    stages = [line.partition(":")[0] for line in told if line.startswith(("prepare:", "train:", "evaluate:", "pub"))]
    assert sorted(set(stages), key=stages.index) == ["prepare", "train", "evaluate", "publish"]
    assert (
        len([line for line in told if "validation loss" in line]) == 5
    )  # of the base, and twice in each of two epochs
    assert len(told) < 20
    assert told[-1] == two_pods.second.report.message


def test_a_look_at_the_data_answers_what_preparing_found(
    two_pods: TwoPods, s3_server: S3Server, tmp_path: Path
) -> None:
    report = run_stage(two_pods.job, tmp_path, "check", **s3_server.environment).report
    assert (report.exit_code, report.stage) == (ExitCode.DONE, "prepare")
    assert report.data_version == two_pods.first.report.data_version


def test_a_store_that_refuses_the_keys_is_a_matter_of_storage(
    two_pods: TwoPods, s3_server: S3Server, tmp_path: Path
) -> None:
    keys = s3_server.environment | {"AWS_SECRET_ACCESS_KEY": "not-the-key"}
    ended = run_stage(two_pods.job, tmp_path, "check", **keys)
    assert ended.code == ended.report.exit_code == ExitCode.STORAGE
    assert "the store refused the credentials" in ended.report.message
    assert "not-the-key" not in ended.word + ended.log


def test_what_nobody_foresaw_ends_with_exit_code_1_and_lines_that_are_no_report(
    job: dict[str, Any], tmp_path: Path
) -> None:
    prepared = run_stage(job, tmp_path, "prepare").report
    (tmp_path / f"out/tests/tiny/runs/{prepared.run_id}/data/report.json").write_text("{")  # nobody foresaw this
    ended = run_stage(job, tmp_path, "prepare")
    assert ended.code == 1
    assert "The trainer did not foresee this ValidationError: " in ended.word
    assert "Traceback (most recent call last)" in ended.log


@pytest.mark.parametrize(
    ("job", "want"),
    [
        ("{", "FINETUNE_JOB is not JSON: "),
        ("[]", "FINETUNE_JOB: a FineTuneJob is a mapping"),
        (make_job("file:///m", "file:///d", "file:///o", training={"learningRate": -1, "epochs": 0}), " 2 problems:"),
        (make_job("file:///m", "file:///d", "ftp://o"), "FINETUNE_JOB: spec.output.uri: must start with"),
    ],
)
def test_an_invalid_manifest_is_a_sentence(job: Any, want: str, tmp_path: Path) -> None:
    ended = run_stage(job, tmp_path, "prepare")
    assert ended.code == ended.report.exit_code == ExitCode.INVALID_CONFIG
    assert want in ended.report.message
    assert "Traceback" not in ended.log


@pytest.mark.parametrize("arguments", [["train"], [], ["run", "--micro-batch-tokens", "0"], ["check", "--port", "1"]])
def test_a_wrong_command_line_is_told_with_the_right_one(arguments: list[str]) -> None:
    ended = subprocess.run([sys.executable, "-m", "finetune_trainer", *arguments], capture_output=True, text=True)
    assert ended.returncode == ExitCode.INVALID_CONFIG
    assert ended.stderr.startswith("usage: finetune_trainer")


def test_bad_rows_end_with_their_numbers_and_the_last_lines(job: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n' * 40)
    ended = run_stage(job, tmp_path, "prepare")
    assert ended.code == ended.report.exit_code == ExitCode.DATA_REJECTED
    assert "row 1" in ended.report.message.lower()
    assert "prepare: reading and dividing the data" in "".join(ended.report.log)
    assert "Traceback" not in ended.log


def test_the_last_word_is_printed_where_no_file_is_named(job: dict[str, Any], tmp_path: Path) -> None:
    ended = run_stage(job, tmp_path, "check", FINETUNE_LAST_WORD="")
    assert RunReport.model_validate_json(ended.log.splitlines()[-1]).exit_code == ExitCode.DONE
    assert ended.word == ""


def test_a_last_word_that_cannot_be_written_is_logged(job: dict[str, Any], tmp_path: Path) -> None:
    ended = run_stage(job, tmp_path, "check", FINETUNE_LAST_WORD="/proc/last-word")
    assert ended.code == ExitCode.DONE
    assert re.search(r'WARNING /proc/last-word cannot be written: .+ What it should say: {"runId', ended.log)


def test_the_last_word_fits_what_kubernetes_keeps(job: dict[str, Any], tmp_path: Path) -> None:
    job["spec"]["training"] |= {f"übermaß{number}": number for number in range(300)}
    ended = run_stage(job, tmp_path, "check")
    assert ended.code == ended.report.exit_code == ExitCode.INVALID_CONFIG
    assert LAST_WORD_BYTES * 0.8 < len(ended.word.encode()) <= LAST_WORD_BYTES
