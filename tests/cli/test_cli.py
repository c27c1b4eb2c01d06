"""The `finetune` command on good input."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_api.documents import load_yaml
from finetune_api.job import FineTuneJob
from finetune_api.run import ExitCode
from finetune_trainer.charts import MINUS
from support.cli import Ended, finetune, make_job, triage, write_job, write_records
from support.tiny_models import write_tiny_model

COMMANDS = ["", "run", "validate", "plan", "chat", "report", "verify"]


@dataclass(frozen=True)
class Finished:
    """A job that was run once."""

    manifest: Path
    store: Path
    """Folder of the job."""
    ended: Ended

    @property
    def run(self) -> Path:
        """Folder of its only run."""
        [folder] = (self.store / "runs").iterdir()
        return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Finished:
    return run_once(tmp_path_factory.mktemp("finished"), tiny_llama)


def run_once(folder: Path, model: Path, **spec: Any) -> Finished:
    data = write_records(folder / "rows.jsonl", triage(80))
    manifest = write_job(folder / "job.yaml", make_job(model, data, folder / "out", **spec))
    return Finished(manifest, folder / "out" / "default" / "triage", finetune("run", manifest))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def current(job: Path) -> str:
    run_id: str = json.loads((job / "current.json").read_text())["runId"]
    return run_id


def test_a_run_ends_with_the_comparison_and_where_everything_is(finished: Finished) -> None:
    assert finished.ended.code == 0, finished.ended.err
    assert "Passed. On 12 held-out rows, the adapter has a perplexity of" in finished.ended.out
    assert f"Report:  file://{finished.run}/report.html" in finished.ended.out
    assert f'Try it:  finetune chat file://{finished.run}/adapter "…"' in finished.ended.out
    assert (finished.run / "manifest.json").exists()
    assert current(finished.store) == finished.run.name


def test_a_run_tells_its_stages_on_standard_error(finished: Finished) -> None:
    first = {line.partition(" ")[0] for line in finished.ended.err.splitlines()}
    assert first >= {"prepare", "train", "evaluate", "publish"}


def test_a_finished_run_is_not_repeated(finished: Finished) -> None:
    want = contents(finished.store)
    again = finetune("run", finished.manifest)
    assert again.code == 0
    assert "Nothing to do" in again.err
    assert again.out == finished.ended.out
    assert contents(finished.store) == want


def test_yaml_output_is_the_resource_with_its_status(finished: Finished) -> None:
    ended = finetune("run", finished.manifest, "-o", "yaml")
    assert ended.code == 0
    job = FineTuneJob.model_validate(load_yaml(ended.out))
    assert job.status is not None
    assert job.status.phase == "Succeeded"
    assert job.status.run is not None
    assert job.status.run.id == finished.run.name
    assert job.status.adapter is not None
    assert job.status.adapter.uri == f"file://{finished.run}/adapter"
    assert job.status.evaluation is not None
    assert job.status.evaluation.verdict == "Passed"
    assert job.status.progress is not None
    assert job.status.progress.stage == "publish"
    assert job.status.progress.step == job.status.progress.total_steps > 0


def test_a_manifest_can_come_from_standard_input(finished: Finished) -> None:
    text = finished.manifest.read_text()
    assert finetune("validate", "-", stdin=text).out == "standard input: FineTuneJob default/triage is valid.\n"
    bad = finetune("validate", "-", stdin=text.replace("rank:", "rnk:"))
    assert bad.code == ExitCode.INVALID_CONFIG
    assert "standard input: spec.method.lora.rnk" in bad.err


def test_validate_reads_nothing_but_the_manifest(tmp_path: Path) -> None:
    manifest = write_job(tmp_path / "job.yaml", make_job(Path("/no/model"), Path("/no/data"), Path("/no/output")))
    ended = finetune("validate", manifest)
    assert (ended.code, ended.out) == (0, f"{manifest}: FineTuneJob default/triage is valid.\n")


def test_a_plan_shows_what_a_run_would_do_and_writes_nothing(tmp_path: Path, tiny_llama: Path) -> None:
    data = write_records(tmp_path / "rows.jsonl", [*triage(40), triage(1)[0]])
    manifest = write_job(tmp_path / "job.yaml", make_job(tiny_llama, data, tmp_path / "out"))
    ended = finetune("plan", manifest)
    assert ended.code == 0, ended.err
    for want in (
        "41 rows, format prompt-completion (detected), 1 duplicate dropped",
        "Left out: 1 row exact duplicate of an earlier row, for instance 41",
        "4 (4 an epoch), at most 4; validation after step 4 of each epoch",
        "are trained",
        "here        ",
        " MiB, of which base ",
        "accelerator   memory needed   tokens a second   4 steps take",
        " H100 ",
        "Warning: Only 4 optimiser steps are planned",
    ):
        assert want in ended.out
    assert not (tmp_path / "out").exists()


def test_a_plan_names_every_setting_with_its_source_at_eighty_columns(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    data = write_records(tmp_path / "rows.jsonl", triage(40))
    ended = finetune("plan", write_job(tmp_path / "job.yaml", make_job(tiny_llama, data, tmp_path / "out")))
    rows = [line.split(maxsplit=2) for line in ended.out.splitlines()]
    assert ["training.learningRate", "0.01", "manifest"] in [[word.strip() for word in row] for row in rows]
    assert ["training.weightDecay", "0.01", "best-practice article"] in [[w.strip() for w in row] for row in rows]
    assert "training.earlyStopping.minDelta" in ended.out
    assert "…" not in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def test_a_report_fits_eighty_columns_without_breaking_numbers(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = finetune("report", finished.run)
    assert ended.code == 0
    [row] = [line.split(maxsplit=4) for line in ended.out.splitlines() if line.strip().startswith("perplexity")]
    assert re.fullmatch(rf"\[{MINUS}[\d.]+, {MINUS}[\d.]+\]", row[4].strip())


def test_a_report_shows_sample_answers(tmp_path: Path, tiny_llama: Path) -> None:
    judged = {"metrics": ["exactMatch", "perplexity"], "primaryMetric": "exactMatch", "maxNewTokens": 4}
    finished = run_once(tmp_path, tiny_llama, evaluation=judged)
    assert finished.ended.code == 0, finished.ended.err
    for want in ("exactMatch", "please book", "reference  ", "base       ", "adapter    "):
        assert want in finished.ended.out


def test_a_report_can_be_had_as_a_page(finished: Finished, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    ended = finetune("report", finished.run, "--html", page)
    assert (ended.code, ended.out) == (0, f"{page}\n")
    assert page.read_text() == (finished.run / "report.html").read_text()


def test_a_page_that_cannot_be_written_is_a_sentence(finished: Finished, tmp_path: Path) -> None:
    ended = finetune("report", finished.run, "--html", tmp_path / "no" / "report.html")
    assert ended.code == ExitCode.INVALID_CONFIG
    assert ended.err == f"finetune: {tmp_path}/no/report.html cannot be written: No such file or directory.\n"


def test_a_published_run_is_sound(finished: Finished) -> None:
    ended = finetune("verify", finished.run)
    assert (ended.code, ended.out) == (0, f"file://{finished.run}: every file is as it was published.\n")


def test_verify_names_the_file_of_which_one_byte_was_changed(finished: Finished, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished.run, tmp_path / "run"))
    weights = run / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    ended = finetune("verify", run)
    assert ended.code == ExitCode.STORAGE
    assert "adapter/adapter_model.safetensors: its content has changed" in ended.err
    assert ended.out == ""


@pytest.mark.parametrize("command", ["report", "verify"])
def test_a_folder_that_is_no_run_is_a_sentence(command: str, tmp_path: Path) -> None:
    ended = finetune(command, tmp_path)
    assert ended.code == ExitCode.STORAGE
    assert "no manifest.json" in ended.err
    assert str(tmp_path) in ended.err


def test_a_damaged_report_is_a_sentence(finished: Finished, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished.run, tmp_path / "run"))
    (run / "report.json").write_text("{")
    ended = finetune("report", run)
    assert ended.code == ExitCode.STORAGE
    assert "report.json is damaged" in ended.err


def test_an_adapter_answers_a_message(finished: Finished) -> None:
    ended = finetune("chat", finished.run / "adapter", triage(1)[0]["prompt"], "--longest", "4")
    assert ended.code == 0, ended.err
    assert re.match(r"today|week|routine", ended.out)


def test_base_and_adapter_answer_every_typed_line(finished: Finished) -> None:
    ended = finetune("chat", finished.run, "--base", "--longest", "4", stdin="book dental\n\nbook routine\n")
    assert ended.code == 0, ended.err
    names = [line.split(":")[0] for line in ended.out.splitlines() if line.startswith(("base:", "adapter:"))]
    assert names == ["base", "adapter", "base", "adapter"]


def test_an_adapter_is_found_by_a_relative_path(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.run.parent)
    want = finetune("chat", finished.run / "adapter", "book dental", "--longest", "4")
    got = finetune("chat", f"./{finished.run.name}/adapter/", "book dental", "--longest", "4")
    assert (got.code, got.out) == (0, want.out)


def test_an_adapter_that_was_copied_away_from_its_run_still_answers(finished: Finished, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(finished.run / "adapter", tmp_path / "adapter"))
    want = finetune("chat", finished.run, "book dental", "--longest", "4")
    got = finetune("chat", adapter, "book dental", "--longest", "4")
    assert (got.code, got.out) == (0, want.out), got.err


def test_chat_with_something_else_than_an_adapter_is_a_sentence(tmp_path: Path) -> None:
    ended = finetune("chat", tmp_path, "hello")
    assert ended.code == ExitCode.MODEL_NOT_LOADABLE
    assert f"file://{tmp_path} holds no adapter" in ended.err


def test_chat_without_its_base_model_is_a_sentence(finished: Finished, tmp_path: Path) -> None:
    ended = finetune("chat", finished.run, "hello", "--model", f"file://{tmp_path}/nowhere")
    assert ended.code == ExitCode.MODEL_NOT_LOADABLE
    assert ended.err == f"finetune: file://{tmp_path}/nowhere does not exist or is empty.\n"


def test_chat_on_a_base_model_of_another_shape_is_a_sentence(finished: Finished, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", hidden_size=32)
    ended = finetune("chat", finished.run, "hello", "--model", f"file://{other}")
    assert ended.code == ExitCode.MODEL_NOT_LOADABLE
    message = ended.err[ended.err.index("finetune: ") :]
    assert "does not fit the base model" in message
    assert len(message.splitlines()) == 1


def test_changed_data_start_a_new_run_and_the_old_one_stays(tmp_path: Path, tiny_llama: Path) -> None:
    first = run_once(tmp_path, tiny_llama)
    old = first.run
    want = contents(old)
    write_records(tmp_path / "rows.jsonl", triage(81))
    second = finetune("run", first.manifest)
    assert second.code == 0, second.err
    assert "Nothing to do" not in second.err
    [new] = {path.name for path in (first.store / "runs").iterdir()} - {old.name}
    assert contents(old) == want
    assert current(first.store) == new


def test_only_a_passed_verdict_moves_the_current_adapter(tmp_path: Path, tiny_llama: Path) -> None:
    first = run_once(tmp_path, tiny_llama)
    want = current(first.store)
    training = {**make_job(tiny_llama, tmp_path, tmp_path)["spec"]["training"]}
    never_better = {**training, "earlyStopping": {"minDelta": 10}}  # so the best adapter is the untrained one
    job = make_job(tiny_llama, tmp_path / "rows.jsonl", tmp_path / "out", training=never_better)
    second = finetune("run", write_job(tmp_path / "second.yaml", job), "-o", "yaml")
    assert second.code == 0, second.err
    found = FineTuneJob.model_validate(load_yaml(second.out))
    assert found.status is not None
    assert found.status.phase == "Rejected"
    assert len(list((first.store / "runs").iterdir())) == 2
    assert current(first.store) == want


def test_a_changed_label_does_nothing(finished: Finished, tmp_path: Path) -> None:
    want = contents(finished.store)
    job = load_yaml(finished.manifest.read_text())
    assert isinstance(job, dict)
    job["metadata"]["labels"] = {"team": "triage"}
    ended = finetune("run", write_job(tmp_path / "labelled.yaml", job))
    assert "Nothing to do" in ended.err
    assert contents(finished.store) == want


@pytest.mark.parametrize(
    ("arguments", "want"),
    [(["frobnicate"], "frobnicate"), (["run"], "MANIFEST"), (["chat", ".", "hi", "--longest", "0"], "--longest")],
)
def test_a_wrong_command_line_says_what_is_wrong(arguments: list[str], want: str) -> None:
    ended = finetune(*arguments)
    assert ended.code == ExitCode.INVALID_CONFIG
    assert want in ended.err


def test_an_unknown_output_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    ended = finetune("run", tmp_path / "nowhere.yaml", "-o", "xml")
    assert (ended.code, ended.err) == (2, "finetune: --output must be table or yaml, got xml.\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick_and_loads_no_heavy_library(command: str) -> None:
    code = (
        "import sys, time, atexit\n"
        "heavy = ('torch', 'transformers', 'peft', 'bitsandbytes', 'datasets', 'obstore', 'pyarrow', 'sklearn')\n"
        "atexit.register(lambda: print([n for n in heavy if n in sys.modules], time.process_time(), file=sys.stderr))\n"
        "from finetune_cli.__main__ import main\n"
        f"sys.argv = ['finetune', *{[command] if command else []}, '--help']\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, seconds = ended.stderr.rsplit(" ", 1)
    assert "Usage: finetune" in ended.stdout
    assert loaded == "[]"
    assert float(seconds) < 1.5


@pytest.mark.parametrize(
    "method", [{"lora": {"rank": 4}}, {"type": "full"}, {"type": "prefix"}, {"type": "bottleneck"}], ids=str
)
def test_a_real_run_prints_nothing_but_its_own_lines(method: dict[str, Any], tmp_path: Path, tiny_qwen: Path) -> None:
    data = write_records(tmp_path / "rows.jsonl", triage(40))
    job = make_job(tiny_qwen, data, tmp_path / "out", method=method)
    manifest = write_job(tmp_path / "job.yaml", job)
    command = [sys.executable, "-m", "finetune_cli", "run", str(manifest)]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    ended = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    assert ended.returncode == 0, ended.stderr
    own = ("default/triage  run ", "prepare  ", "train  ", "evaluate  ", "publish  ")
    assert [line for line in ended.stderr.splitlines() if not line.startswith(own)] == []
