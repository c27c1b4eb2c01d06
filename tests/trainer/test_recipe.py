"""Whole runs on a tiny model: what is left in the store, and what an interruption changes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.report import Manifest, Report
from finetune_api.run import ExitCode, Progress
from finetune_trainer.errors import OutOfMemory, RunError, Stopped
from finetune_trainer.manifest import verify
from finetune_trainer.promotion import promote
from finetune_trainer.recipe import run
from finetune_trainer.store import Store, open_store
from support.jobs import make_config, make_job, make_session, write_dataset
from support.rows import echo_rows


@pytest.fixture
def manifest(tiny_llama: Path, tmp_path: Path) -> dict[str, Any]:
    return make_job(tiny_llama, write_dataset(tmp_path / "rows.jsonl", echo_rows(60)), tmp_path / "out")


def store_of(config: Any) -> Store:
    return open_store(config.output_uri).under(config.run_path)


def test_a_run_leaves_a_complete_sound_and_lean_folder(manifest: dict[str, Any], tmp_path: Path) -> None:
    config = make_config(manifest, tmp_path / "cache")
    stages: list[str] = []
    report = run(config, make_session(tmp_path / "cache", lambda p: stages.append(p.stage)))
    store = store_of(config)
    assert sorted(set(stages), key=stages.index) == ["prepare", "train", "evaluate", "publish"]
    assert verify(store) == []
    paths = {file.path for file in store.list()}
    assert {
        "data/train.parquet", "data/validation.parquet", "data/test.parquet", "data/report.json",
        "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/tokenizer.json",
        "adapter/chat_template.jinja", "adapter/golden_prompts.json", "adapter/README.md",
        "report.json", "report.html", "manifest.json",
    } <= paths  # fmt: skip
    assert not [path for path in paths if path.startswith("checkpoints/")]
    assert Report.model_validate_json(store.read("report.json")) == report
    assert [entry.rows for entry in report.data.splits] == [45, 6, 9]
    assert report.outcome.evaluation is not None
    assert {metric.n for metric in report.outcome.evaluation.metrics} == {9}


def test_the_manifest_is_the_last_thing_written(manifest: dict[str, Any], tmp_path: Path) -> None:
    config = make_config(manifest, tmp_path / "cache")
    run(config, make_session(tmp_path / "cache"))
    store = store_of(config)
    assert store.folder is not None
    times = {path: (store.folder / path).stat().st_mtime_ns for path in [f.path for f in store.list()]}
    written = {path: at for path, at in times.items() if not path.startswith("attempts/")}
    assert max(written, key=lambda path: written[path]) == "manifest.json"


def test_the_golden_prompts_are_what_the_saved_tokenizer_makes(manifest: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    config = make_config(manifest, tmp_path / "cache")
    run(config, make_session(tmp_path / "cache"))
    folder = store_of(config).folder
    assert folder is not None
    tokenizer = AutoTokenizer.from_pretrained(folder / "adapter")
    golden = json.loads((folder / "adapter" / "golden_prompts.json").read_text())
    assert len(golden) == 3
    for prompt in golden:
        want = tokenizer.apply_chat_template(
            prompt["messages"], tokenize=True, add_generation_prompt=True, return_dict=False
        )
        assert prompt["ids"] == want


def test_only_a_passed_verdict_becomes_current(manifest: dict[str, Any], tmp_path: Path) -> None:
    manifest["spec"]["training"] |= {"epochs": 8, "maxEpochs": 8}
    manifest["spec"]["evaluation"] |= {"metrics": ["perplexity"], "primaryMetric": "perplexity"}
    good = make_config(manifest, tmp_path / "cache")
    assert run(good, make_session(tmp_path / "cache")).outcome.evaluation.verdict == "Passed"  # type: ignore[union-attr]
    pointer = tmp_path / "out" / "tests" / "tiny" / "current.json"
    assert json.loads(pointer.read_text())["runId"] == good.run_id
    manifest["spec"]["training"] |= {"epochs": 1, "maxEpochs": 1, "learningRate": 1e-9}
    idle = make_config(manifest, tmp_path / "cache")
    assert run(idle, make_session(tmp_path / "cache")).outcome.evaluation.verdict != "Passed"  # type: ignore[union-attr]
    assert json.loads(pointer.read_text())["runId"] == good.run_id


def test_a_run_that_died_before_its_promotion_is_promoted_by_the_next_look(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    manifest["spec"]["training"] |= {"epochs": 8, "maxEpochs": 8}
    manifest["spec"]["evaluation"] |= {"metrics": ["perplexity"], "primaryMetric": "perplexity"}
    config = make_config(manifest, tmp_path / "cache")
    report = run(config, make_session(tmp_path / "cache"))
    job = open_store(config.output_uri).under(config.job_path)
    want = job.read("current.json")
    job.delete("current.json")
    promote(job, report)
    assert job.read("current.json") == want
    promote(job, report.model_copy(update={"created": "2026-01-01T00:00:00+00:00", "name": "older"}))
    assert job.read("current.json") == want


def curve(config: Any) -> tuple[Any, Any]:
    report = Report.model_validate_json(store_of(config).read("report.json"))
    return report.training.train_loss, report.training.validation_loss


@pytest.fixture
def unbroken(manifest: dict[str, Any], tmp_path: Path) -> tuple[Any, Any]:
    """Losses of the same job, run without a break into another output."""
    other = {**manifest, "spec": {**manifest["spec"], "output": {"uri": f"file://{tmp_path}/unbroken"}}}
    config = make_config(other, tmp_path / "cache")
    run(config, make_session(tmp_path / "cache"))
    return curve(config)


@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate", "publish"])
def test_a_stop_in_any_stage_leaves_no_manifest_and_the_next_attempt_ends_alike(
    stage: str, manifest: dict[str, Any], unbroken: tuple[Any, Any], tmp_path: Path
) -> None:
    config = make_config(manifest, tmp_path / "cache")
    stop = threading.Event()

    def tell(progress: Progress) -> None:
        if progress.stage == stage and (stage != "train" or progress.step == 9):
            stop.set()

    if stage != "publish":  # nothing interrupts the few writes of publishing but a kill
        with pytest.raises(Stopped):
            run(config, make_session(tmp_path / "cache", tell, stop))
        assert not store_of(config).exists("manifest.json")
    report = run(config, make_session(tmp_path / "cache"))
    assert curve(config) == unbroken
    assert report.training.resumed_from == {"prepare": None, "train": 9, "evaluate": 24, "publish": None}[stage]
    assert report.outcome.attempt == (1 if stage == "publish" else 2)
    assert report.training.tokens_per_second > 0


KILLED = """
import sys
from pathlib import Path
from support.jobs import make_session
from finetune_api.run import RunConfig
from finetune_trainer.recipe import run

config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())
run(config, make_session(Path(sys.argv[2]), lambda progress: print(progress.step, flush=True)))
"""


def start(config: Any, tmp_path: Path) -> subprocess.Popen[str]:
    orders = tmp_path / "config.json"
    orders.write_text(config.model_dump_json(by_alias=True))
    command = [sys.executable, "-c", KILLED, str(orders), str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_killed_run_goes_on_from_its_last_checkpoint_with_the_same_losses(
    manifest: dict[str, Any], unbroken: tuple[Any, Any], tmp_path: Path
) -> None:
    config = make_config(manifest, tmp_path / "cache")
    process = start(config, tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "15":
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert not store_of(config).exists("manifest.json")
    report = run(config, make_session(tmp_path / "cache"))
    assert report.training.resumed_from == 12
    assert curve(config) == unbroken


def test_a_checkpoint_without_its_manifest_or_with_a_flipped_bit_is_not_resumed(
    manifest: dict[str, Any], unbroken: tuple[Any, Any], tmp_path: Path
) -> None:
    config = make_config(manifest, tmp_path / "cache")
    stop = threading.Event()
    with pytest.raises(Stopped):
        run(config, make_session(tmp_path / "cache", lambda p: stop.set() if p.step == 15 else None, stop))
    folder = store_of(config).folder
    assert folder is not None
    newest, older = sorted((folder / "checkpoints").iterdir(), reverse=True)
    weights = newest / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01"[:1] if weights.read_bytes()[-1] else b"\x01")
    (older / "manifest.json").unlink()
    assert run(config, make_session(tmp_path / "cache")).training.resumed_from is None
    assert curve(config) == unbroken


def test_a_second_run_on_the_same_output_is_refused_while_the_first_lives(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    config = make_config(manifest, tmp_path / "cache")
    process = start(config, tmp_path)
    try:
        assert process.stdout is not None
        next(line for line in process.stdout if line.strip() == "1")
        with pytest.raises(RunError, match=r"Another run .* is writing"):
            run(config, make_session(tmp_path / "cache"))
    finally:
        process.kill()
        process.wait()


def test_the_whole_run_works_against_a_real_s3_server(
    manifest: dict[str, Any], tiny_llama: Path, tmp_path: Path, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.make_bucket("whole-run")
    source = open_store("s3://whole-run/in")
    for file in tiny_llama.iterdir():
        source.write_file(f"model/{file.name}", file)
    source.write_file("rows.jsonl", Path(manifest["spec"]["dataset"]["uri"].removeprefix("file://")))
    manifest["spec"]["model"]["uri"] = "s3://whole-run/in/model"
    manifest["spec"]["dataset"]["uri"] = "s3://whole-run/in/rows.jsonl"
    manifest["spec"]["output"]["uri"] = "s3://whole-run/adapters"
    config = make_config(manifest, tmp_path / "cache")
    report = run(config, make_session(tmp_path / "cache"))
    store = store_of(config)
    assert verify(store) == []
    assert report.outcome.adapter is not None
    assert report.outcome.adapter.uri == f"s3://whole-run/adapters/tests/tiny/runs/{config.run_id}/adapter"
    assert Manifest.model_validate_json(store.read("manifest.json")).run_id == config.run_id


def test_a_server_that_dies_while_training_ends_the_run_in_one_sentence_and_without_a_manifest(
    manifest: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.s3_server import S3Server

    server = S3Server(tmp_path / "s3")
    server.start()
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("dying")
        manifest["spec"]["output"]["uri"] = "s3://dying/adapters"
        config = make_config(manifest, tmp_path / "cache")
        process = start(config, tmp_path)
        next(line for line in process.stdout or () if line.strip() == "5")
        server.kill()
        _, errors = process.communicate(timeout=180)
        assert "StorageError: s3://dying" in errors.splitlines()[-1]
        server.start()
        assert not store_of(config).exists("manifest.json")
        assert run(config, make_session(tmp_path / "cache")).outcome.attempt == 2
    finally:
        server.stop()


def test_a_run_on_local_files_opens_no_connection(
    manifest: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: attempts.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: attempts.append(address) or [])
    run(make_config(manifest, tmp_path / "cache"), make_session(tmp_path / "cache"))
    assert attempts == []


def test_a_failed_allocation_ends_with_what_to_lower_and_the_run_can_go_on(
    manifest: dict[str, Any], unbroken: tuple[Any, Any], tmp_path: Path
) -> None:
    config = make_config(manifest, tmp_path / "cache")

    def exhaust(progress: Progress) -> None:
        if progress.step == 15:
            torch.empty(2**60)  # a real failure: no machine has an exbibyte

    with pytest.raises(OutOfMemory, match=r"lower training\.maxLength.+goes on from its last checkpoint") as caught:
        run(config, make_session(tmp_path / "cache", exhaust))
    assert caught.value.code == ExitCode.OUT_OF_MEMORY
    assert not store_of(config).exists("manifest.json")
    assert run(config, make_session(tmp_path / "cache")).training.resumed_from == 12
    assert curve(config) == unbroken
