"""A pod while it trains: what it serves over HTTP, and what a signal does to it."""

import json
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_metrics

from finetune_api.run import ExitCode, Progress
from finetune_trainer.store import open_store
from support.jobs import SURE, make_job, write_dataset
from support.rows import echo_rows
from support.s3_server import S3Server
from support.stages import Ended, run_stage, running_stage

LONG: dict[str, Any] = {
    "epochs": 1000, "maxEpochs": 1000, "earlyStopping": {"enabled": False}, "validationsPerEpoch": 1
}  # fmt: skip
"""Many minutes of training, of which a test waits for the first steps; 12 steps an epoch."""


def long_job(model: Path, folder: Path, output: Path | str, rows: int = 60) -> dict[str, Any]:
    data = write_dataset(folder / "rows.jsonl", echo_rows(rows))
    return make_job(model, data, output, training=LONG, evaluation=SURE)


@dataclass(frozen=True)
class Visited:
    """What a pod said while it trained, and how it ended when it was told to."""

    progress: Progress
    metrics: dict[str, Metric]
    openmetrics: dict[str, Metric]
    health: str
    ended: Ended
    checkpoints: set[int]
    """Steps of the checkpoints it left."""


@pytest.fixture(scope="module")
def visited(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visited]:
    folder = tmp_path_factory.mktemp("visited")
    with running_stage(long_job(tiny_llama, folder, folder / "out"), folder, "run") as stage:
        stage.wait_for("train: step 24 ")
        with pytest.raises(HTTPError, match="404"):
            stage.get("/nothing")
        progress, health = stage.progress(), stage.get("/healthz")
        metrics = {family.name: family for family in parse_metrics(stage.get("/metrics"))}
        wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
        families = parse_openmetrics(stage.get("/metrics", wanted))  # type: ignore[no-untyped-call]
        openmetrics = {family.name: family for family in families}
        stage.process.send_signal(signal.SIGTERM)
        ended = stage.wait()
        saved = open_store(f"file://{folder}/out/tests/tiny/runs/{ended.report.run_id}").list("checkpoints")
        steps = {int(file.path.split("/")[1].removeprefix("step-")) for file in saved}
        yield Visited(progress, metrics, openmetrics, health, ended, steps)


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """The value of one sample."""
    samples = [sample for family in families.values() for sample in family.samples]
    [found] = [sample.value for sample in samples if sample.name == name and sample.labels == labels]
    return found


def test_the_progress_says_how_far_it_is_and_where_it_would_go_on(visited: Visited) -> None:
    progress = visited.progress
    assert progress.stage == "train"
    assert progress.step >= 24
    assert progress.total_steps == 12000
    assert progress.epoch == pytest.approx(progress.step / 12)
    assert progress.checkpoint_step in (progress.step - progress.step % 12, progress.step - progress.step % 12 - 12)
    assert 0 < (progress.train_loss or 0) < 10
    assert 0 < (progress.validation_loss or 0) < 10
    assert (progress.tokens_per_second or 0) > 0
    assert (progress.eta_seconds or 0) > 0


def test_the_metrics_say_the_same(visited: Visited) -> None:
    metrics = visited.metrics
    assert value(metrics, "finetune_trainer_step") >= visited.progress.step
    assert value(metrics, "finetune_trainer_total_steps") == 12000
    assert value(metrics, "finetune_trainer_epoch") >= 2
    assert 0 < value(metrics, "finetune_trainer_loss", split="train") < 10
    assert 0 < value(metrics, "finetune_trainer_loss", split="validation") < 10
    assert value(metrics, "finetune_trainer_tokens_per_second") > 0
    assert value(metrics, "finetune_trainer_tokens_total") > 24 * 4 * 5
    assert 0 < value(metrics, "finetune_trainer_learning_rate") <= 5e-3
    assert value(metrics, "finetune_trainer_checkpoint_step") >= 12
    stages = {stage: value(metrics, "finetune_trainer_stage", stage=stage) for stage in ("prepare", "train", "publish")}
    assert stages == {"prepare": 0, "train": 1, "publish": 0}
    assert value(metrics, "process_resident_memory_bytes") > 2**20


def test_the_metrics_follow_the_conventions_of_prometheus(visited: Visited) -> None:
    ours = {name: family for name, family in visited.openmetrics.items() if name.startswith("finetune_trainer_")}
    assert {name: family.type for name, family in ours.items() if family.type != "gauge"} == {
        "finetune_trainer_tokens": "counter"
    }
    assert [name for name, family in ours.items() if not family.documentation.endswith(".")] == []
    assert {"finetune_trainer_gpu_memory_bytes", "finetune_trainer_stage"} <= set(ours)
    assert visited.health == "ok\n"


def test_a_signal_saves_and_ends_in_an_exit_code_that_asks_to_go_on(visited: Visited) -> None:
    report = visited.ended.report
    assert visited.ended.code == report.exit_code == ExitCode.STOPPED
    assert report.stage == "train"
    step = int(report.message.removeprefix("Stopped after step ").partition(";")[0])
    assert step >= visited.progress.step
    assert step in visited.checkpoints
    assert report.log == []
    assert "asked to stop; saving first" in visited.ended.log


@pytest.mark.parametrize("line", ["on port", "loading the libraries"])
def test_a_signal_before_there_is_anything_to_save_ends_the_pod_at_once(
    line: str, tiny_llama: Path, tmp_path: Path
) -> None:
    with running_stage(long_job(tiny_llama, tmp_path, tmp_path / "out"), tmp_path, "run") as stage:
        stage.wait_for(line)
        stage.process.send_signal(signal.SIGTERM)
        ended = stage.wait()
    assert ended.code == ended.report.exit_code == ExitCode.STOPPED
    assert "Traceback" not in ended.log
    assert "validation loss" not in ended.log


def test_a_signal_while_the_run_is_published_comes_too_late(tiny_llama: Path, tmp_path: Path) -> None:
    job = long_job(tiny_llama, tmp_path, tmp_path / "out")
    job["spec"]["training"] |= {"epochs": 1, "maxEpochs": 1}
    with running_stage(job, tmp_path, "run") as stage:
        stage.wait_for("publish: ")
        stage.process.send_signal(signal.SIGTERM)
        ended = stage.wait()
    assert ended.code == ended.report.exit_code == ExitCode.DONE
    assert ended.report.stage == "publish"
    pointer = json.loads((tmp_path / "out" / "tests" / "tiny" / "current.json").read_text())
    assert pointer["runId"] == ended.report.run_id


def test_a_second_signal_ends_a_pod_that_cannot_save(tiny_llama: Path, tmp_path: Path) -> None:
    server = S3Server(tmp_path / "s3")
    server.start()
    try:
        bucket = server.make_bucket("unreachable")
        job = long_job(tiny_llama, tmp_path, bucket, rows=400)  # seconds between two checkpoints
        with running_stage(job, tmp_path, "run", **server.environment) as stage:
            stage.wait_for("train: step 75 ")
            server.kill()
            stage.process.send_signal(signal.SIGTERM)
            stage.wait_for("asked to stop; saving first")
            stage.process.send_signal(signal.SIGTERM)
            assert stage.process.wait(timeout=5) == ExitCode.STOPPED
            assert stage.last_word.read_text() == ""
    finally:
        server.stop()


def test_a_port_that_is_taken_does_not_keep_a_pod_from_its_work(tiny_llama: Path, tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        job = long_job(tiny_llama, tmp_path, tmp_path / "out")
        ended = run_stage(job, tmp_path, "prepare", "--port", str(port))
    assert ended.code == ExitCode.DONE
    assert f"Progress and metrics are not served: port {port} cannot be opened" in ended.log
