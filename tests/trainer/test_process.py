"""The trainer as the process of a pod: every stage, what it leaves behind, its last word and its exit code."""

import json
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from finetune_api.contract import LAST_WORD_BYTES
from finetune_api.report import Report
from finetune_api.run import ExitCode, RunReport
from finetune_trainer.manifest import verify
from finetune_trainer.store import Store, open_store
from support.jobs import make_job, write_dataset
from support.rows import echo_rows
from support.s3_server import S3Server
from support.stages import Ended, run_stage, running_stage

SURE = {"metrics": ["perplexity"], "primaryMetric": "perplexity"}
"""Judged by perplexity, a trained adapter is surely better than the random base."""
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO |WARNING|ERROR) +\S.*")


@pytest.fixture
def job(tiny_llama: Path, tmp_path: Path) -> dict[str, Any]:
    rows = write_dataset(tmp_path / "rows.jsonl", echo_rows(60))
    return make_job(tiny_llama, rows, tmp_path / "out", evaluation=SURE)


@pytest.fixture
def in_bucket(
    job: dict[str, Any], tiny_llama: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The same job with model, data and results in a bucket."""
    s3_server.point_here(monkeypatch)
    bucket = s3_server.make_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    source = open_store(f"{bucket}/in")
    for file in tiny_llama.iterdir():
        source.write_file(f"model/{file.name}", file)
    source.write_file("rows.jsonl", Path(job["spec"]["dataset"]["uri"].removeprefix("file://")))
    places = {"model": "in/model", "dataset": "in/rows.jsonl", "output": "out"}
    uris = {name: job["spec"][name] | {"uri": f"{bucket}/{path}"} for name, path in places.items()}
    return {**job, "spec": job["spec"] | uris}


def store_of(job: dict[str, Any]) -> Store:
    """Where the job's results are."""
    return open_store(job["spec"]["output"]["uri"]).under("tests/tiny")


def trained(job: dict[str, Any], **training: Any) -> dict[str, Any]:
    """The same job with other settings of training."""
    return {**job, "spec": job["spec"] | {"training": job["spec"]["training"] | training}}


def begun(report: RunReport) -> list[str]:
    """Arguments that go on with a prepared run."""
    return ["--run-id", report.run_id, "--digest", report.digest]


def current(job: dict[str, Any]) -> str:
    """The run whose adapter is in use."""
    return str(json.loads(store_of(job).read("current.json"))["runId"])


def paths(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def stored_report(job: dict[str, Any], run: str) -> Report:
    return Report.model_validate_json(store_of(job).read(f"runs/{run}/report.json"))


def require_done(ended: Ended) -> RunReport:
    assert ended.code == ExitCode.DONE, ended.log
    return ended.report


def test_two_pods_bring_a_job_in_a_bucket_from_its_manifest_to_its_adapter(
    in_bucket: dict[str, Any], tmp_path: Path
) -> None:
    prepared = require_done(run_stage(in_bucket, tmp_path, "prepare"))
    assert (prepared.stage, prepared.attempt, prepared.adapter) == ("prepare", 1, None)
    assert prepared.message == "60 rows prepared: 45 for training, 6 for validation, 9 for the test; none left out."
    shutil.rmtree(tmp_path / "cache")  # another pod, another node
    report = require_done(run_stage(in_bucket, tmp_path, "run", *begun(prepared)))
    assert (report.stage, report.run_id, report.digest) == ("publish", prepared.run_id, prepared.digest)
    assert report.attempt == 2
    assert report.evaluation is not None
    assert report.evaluation.verdict == "Passed"
    assert verify(store_of(in_bucket).under(f"runs/{report.run_id}")) == []
    assert current(in_bucket) == report.run_id


def test_preparing_loads_no_torch_and_no_weights(in_bucket: dict[str, Any], tmp_path: Path) -> None:
    ended = run_stage(in_bucket, tmp_path, "prepare", PYTHONPROFILEIMPORTTIME="1")
    assert ended.code == ExitCode.DONE, ended.log
    imported = {line.rpartition("|")[2].strip() for line in ended.log.splitlines() if line.startswith("import time")}
    assert {"transformers", "pyarrow.parquet"} <= imported
    assert not {name for name in imported if name.partition(".")[0] in ("torch", "peft", "bitsandbytes")}
    assert "tokenizer.json" in paths(tmp_path / "cache")
    assert "model.safetensors" not in paths(tmp_path / "cache")


def test_the_rows_of_a_prepared_run_stay_whatever_becomes_of_the_dataset(job: dict[str, Any], tmp_path: Path) -> None:
    prepared = require_done(run_stage(job, tmp_path, "prepare"))
    (tmp_path / "rows.jsonl").unlink()
    report = require_done(run_stage(job, tmp_path, "run", *begun(prepared)))
    assert report.run_id == prepared.run_id
    assert report.data_version is None


def test_one_pod_does_everything_and_says_what_the_data_was(job: dict[str, Any], tmp_path: Path) -> None:
    want = require_done(run_stage(job, tmp_path, "check")).data_version
    report = require_done(run_stage(job, tmp_path, "run"))
    assert (report.stage, report.attempt, report.data_version) == ("publish", 1, want)
    assert (store_of(job).folder or tmp_path).joinpath("runs", report.run_id, "manifest.json").exists()


def test_rows_that_are_gone_are_prepared_anew(job: dict[str, Any], tmp_path: Path) -> None:
    prepared = require_done(run_stage(job, tmp_path, "prepare"))
    store_of(job).delete(f"runs/{prepared.run_id}/data")
    ended = run_stage(job, tmp_path, "run", *begun(prepared))
    assert require_done(ended).run_id == prepared.run_id
    assert f"Run {prepared.run_id} has no rows of digest {prepared.digest}" in ended.log


def test_rows_that_another_digest_stands_for_are_not_used(job: dict[str, Any], tmp_path: Path) -> None:
    prepared = require_done(run_stage(job, tmp_path, "prepare"))
    other = trained(job, seed=7)
    report = require_done(run_stage(other, tmp_path, "run", "--run-id", prepared.run_id, "--digest", "sha256:other"))
    assert report.run_id != prepared.run_id
    assert {setting.path: setting.value for setting in stored_report(other, report.run_id).settings}[
        "training.seed"
    ] == "7"


def test_a_finished_run_is_answered_and_not_repeated(job: dict[str, Any], tmp_path: Path) -> None:
    want = require_done(run_stage(job, tmp_path, "run"))
    folder = store_of(job).folder
    assert folder is not None
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for arguments in (["prepare"], ["run"]):
        ended = run_stage(job, tmp_path, *arguments)
        assert require_done(ended) == want
        assert f"Run {want.run_id} of this manifest and this data is finished" in ended.log
    again = require_done(run_stage(job, tmp_path, "run", *begun(want)))
    assert again == want.model_copy(update={"data_version": None})
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_going_back_to_an_earlier_manifest_makes_its_adapter_current_again(job: dict[str, Any], tmp_path: Path) -> None:
    first = require_done(run_stage(job, tmp_path, "run"))
    second = require_done(run_stage(trained(job, seed=7), tmp_path, "run"))
    assert current(job) == second.run_id != first.run_id
    assert require_done(run_stage(job, tmp_path, "prepare")).run_id == first.run_id
    assert current(job) == first.run_id
    # A pod of the run that was left behind starts again: what the manifest said last stays.
    require_done(run_stage(trained(job, seed=7), tmp_path, "run", *begun(second)))
    assert current(job) == first.run_id


def test_going_back_to_a_manifest_whose_adapter_was_not_better_leaves_the_current_one(
    job: dict[str, Any], tmp_path: Path
) -> None:
    idle = trained(job, earlyStopping={"minDelta": 10})  # so the best adapter is the untrained one
    assert (report := require_done(run_stage(idle, tmp_path, "run"))).evaluation
    assert report.evaluation.verdict == "Inconclusive"
    good = require_done(run_stage(job, tmp_path, "run"))
    assert require_done(run_stage(idle, tmp_path, "prepare")).run_id == report.run_id
    assert current(job) == good.run_id


def test_after_a_failure_for_want_of_memory_smaller_passes_go_on_to_the_same_result(
    job: dict[str, Any], tmp_path: Path
) -> None:
    job = trained(job, epochs=10, maxEpochs=10, validationsPerEpoch=1, earlyStopping={"enabled": False})
    elsewhere = {**job, "spec": job["spec"] | {"output": {"uri": f"file://{tmp_path}/elsewhere"}}}
    unbroken = stored_report(elsewhere, require_done(run_stage(elsewhere, tmp_path, "run")).run_id)
    prepared = require_done(run_stage(job, tmp_path, "prepare"))
    with running_stage(job, tmp_path, "run", *begun(prepared)) as stage:
        stage.wait_for("train: step 12 ")
        stage.process.terminate()
        assert stage.wait().code == ExitCode.STOPPED
    report = require_done(run_stage(job, tmp_path, "run", *begun(prepared), "--micro-batch-tokens", "24"))
    assert report.digest == prepared.digest == unbroken.outcome.digest
    small = stored_report(job, report.run_id)
    assert (small.training.resumed_from or 0) >= 12
    [setting] = [entry for entry in small.settings if entry.path == "training.microBatchTokens"]
    assert (setting.value, setting.source) == ("24", "lowered after a failure for want of memory")
    want = [point.value for point in unbroken.training.train_loss]
    assert [point.value for point in small.training.train_loss] == pytest.approx(want, abs=2e-3)


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
    assert any("prepare: reading and dividing the data" in line for line in ended.report.log)
    assert "Traceback" not in ended.log


def test_a_model_that_cannot_be_trained_is_refused_before_an_accelerator_is_asked_for(
    job: dict[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_llama, tmp_path / "encoder"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "bert", "architectures": ["BertModel"]}))
    job["spec"]["model"]["uri"] = f"file://{model}"
    ended = run_stage(job, tmp_path, "prepare")
    assert ended.code == ended.report.exit_code == ExitCode.MODEL_NOT_LOADABLE
    assert "BertModel, which is not a causal language model" in ended.report.message


def test_a_store_that_refuses_the_keys_is_a_matter_of_storage(in_bucket: dict[str, Any], tmp_path: Path) -> None:
    ended = run_stage(in_bucket, tmp_path, "check", AWS_SECRET_ACCESS_KEY="wrong")
    assert ended.code == ended.report.exit_code == ExitCode.STORAGE
    assert "the store refused the credentials" in ended.report.message
    assert "wrong" not in ended.word


def test_a_bug_ends_with_exit_code_1_and_lines_that_are_no_report(job: dict[str, Any], tmp_path: Path) -> None:
    require_done(run_stage(job, tmp_path, "run"))
    store_of(job).write("current.json", b"{")  # nobody foresaw this
    ended = run_stage(job, tmp_path, "prepare")
    assert ended.code == 1
    assert ended.word.splitlines()[-1].endswith("This is a bug in the trainer.")
    assert "Unforeseen JSONDecodeError: " in ended.word
    assert "Traceback (most recent call last)" in ended.log


def test_the_last_word_is_printed_where_no_file_is_named(job: dict[str, Any], tmp_path: Path) -> None:
    ended = run_stage(job, tmp_path, "check", FINETUNE_LAST_WORD="")
    assert RunReport.model_validate_json(ended.log.splitlines()[-1]).exit_code == ExitCode.DONE
    assert ended.word == ""


def test_the_last_word_fits_what_kubernetes_keeps(job: dict[str, Any], tmp_path: Path) -> None:
    name = "ü" * 3000
    job["spec"]["dataset"]["uri"] = f"file:///{name}"
    ended = run_stage(job, tmp_path, "check")
    assert len(ended.word.encode()) <= LAST_WORD_BYTES
    assert ended.report.message.startswith("file:///ü")


def test_a_pod_that_can_write_nothing_but_its_cache_and_tmp_carries_out_the_whole_run(
    job: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    nowhere = {"HOME": "/proc", "XDG_CACHE_HOME": "/proc", "TMPDIR": str(tmp_path / "tmp"), "USER": ""}
    job["spec"]["method"] = {"quantization": "nf4"}
    assert require_done(run_stage(job, tmp_path, "prepare", **nowhere)).stage == "prepare"
    assert require_done(run_stage(job, tmp_path, "run", **nowhere)).stage == "publish"


def test_log_lines_carry_utc_time_and_level_and_no_progress_bar(tiny_qwen: Path, tmp_path: Path) -> None:
    rows = write_dataset(tmp_path / "rows.jsonl", echo_rows(60))
    ended = run_stage(make_job(tiny_qwen, rows, tmp_path / "out", evaluation=SURE), tmp_path, "run")
    assert ended.code == ExitCode.DONE
    lines = ended.log.splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert [stage for stage in ("prepare", "train", "evaluate", "publish") if f" {stage}: " not in ended.log] == []
    assert len([line for line in lines if "validation loss" in line]) == 5  # the base, and twice an epoch
    assert len(lines) < 20


def test_rows_are_tokenised_alike_with_and_without_torch(tiny_qwen: Path, tmp_path: Path) -> None:
    rows = write_dataset(tmp_path / "rows.jsonl", echo_rows(60))
    two, one = (make_job(tiny_qwen, rows, tmp_path / name, evaluation=SURE) for name in ("two", "one"))
    prepared = require_done(run_stage(two, tmp_path, "prepare"))
    require_done(run_stage(two, tmp_path, "run", *begun(prepared)))
    report = require_done(run_stage(one, tmp_path, "run"))
    assert stored_report(one, report.run_id).data.splits == stored_report(two, prepared.run_id).data.splits
