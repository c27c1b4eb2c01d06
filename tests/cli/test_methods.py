"""The commands on runs of every method."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune_api.run import ExitCode
from support.cli import QUICK, Ended, finetune, make_job, triage, write_job, write_records

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"quantization": "none", "lora": {"rank": 4}},
    "full": {"type": "full"},
    "prefix": {"type": "prefix", "quantization": "none", "prefix": {"length": 8}},
    "bottleneck": {"type": "bottleneck", "quantization": "none"},
}
RATES = {"lora": 1e-2, "full": 2e-3, "prefix": 2e-2, "bottleneck": 1e-2}


@dataclass(frozen=True)
class Finished:
    """A job of one method that was run."""

    method: str
    manifest: Path
    run: Path
    """Folder of the run."""
    ended: Ended

    @property
    def result(self) -> str:
        """What it made, by the name of its folder."""
        return "model" if self.method == "full" else "adapter"


@pytest.fixture(scope="module", params=METHODS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Finished:
    method = str(request.param)
    folder = tmp_path_factory.mktemp(method)
    data = write_records(folder / "rows.jsonl", triage(80))
    training = QUICK["training"] | {"learningRate": RATES[method], "epochs": 4, "maxEpochs": 4}
    job = make_job(tiny_llama, data, folder / "out", method=METHODS[method], training=training)
    manifest = write_job(folder / "job.yaml", job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_CACHE", str(folder / "cache"))
        ended = finetune("run", manifest)
    assert ended.code == 0, ended.err
    [run] = (folder / "out" / "default" / "triage" / "runs").iterdir()
    return Finished(method, manifest, run, ended)


def test_a_run_ends_with_a_verdict_on_what_it_made_and_where_that_is(finished: Finished) -> None:
    noun = "tuned model" if finished.method == "full" else "adapter"
    told = " ".join(finished.ended.out.split())
    assert f"Passed. On 12 held-out rows, the {noun} has a perplexity of" in told
    assert f"so the {noun} is better." in told
    assert f'Try it:  finetune chat file://{finished.run}/{finished.result} "…"' in finished.ended.out
    assert finished.method == "full" or "tuned model" not in told


def test_a_report_tells_speed_and_memory_and_is_what_the_run_printed(finished: Finished) -> None:
    report = finetune("report", finished.run)
    told = " ".join(report.out.split())
    assert report.out == finished.ended.out
    assert " after warm-up memory " in told
    assert " were foreseen" in told
    assert "Each pass took up to" in told


def test_a_plan_counts_what_the_method_trains(finished: Finished) -> None:
    planned, report = finetune("plan", finished.manifest), (finished.run / "report.json").read_text()
    told = planned.out.split(", of which ")[1].split(" are trained")[0].replace(",", "")
    assert f'"trainableParameters": {told},' in report


def test_every_file_is_as_it_was_published(finished: Finished) -> None:
    assert finetune("verify", finished.run).code == 0
    published = {path.name for path in (finished.run / finished.result).iterdir()}
    assert {"README.md", "golden_prompts.json", "tokenizer.json"} < published


def test_what_was_made_answers_from_the_run_and_from_its_folder_alone(finished: Finished, tmp_path: Path) -> None:
    prompt = triage(1)[0]["prompt"]
    want = finetune("chat", finished.run, prompt, "--longest", "4")
    assert want.code == 0, want.err
    folder = finished.run / finished.result
    moved = shutil.copytree(folder, tmp_path / "moved")
    for place in (folder, f"{folder}/", moved):
        assert finetune("chat", place, prompt, "--longest", "4").out == want.out


def test_the_base_answers_too_where_it_is_known(finished: Finished, tiny_llama: Path, tmp_path: Path) -> None:
    prompt = triage(1)[0]["prompt"]
    both = finetune("chat", finished.run, prompt, "--base", "--longest", "4")
    alone = finetune("chat", finished.run, prompt, "--longest", "4")
    assert [line.split(":")[0] for line in both.out.splitlines()] == ["base", finished.result]
    assert both.out.splitlines()[1].endswith(f": {alone.out.strip()}")
    moved = shutil.copytree(finished.run / finished.result, tmp_path / "moved")
    asked = finetune("chat", moved, prompt, "--base", "--longest", "4")
    if finished.method != "full":
        assert asked.out == both.out
        return
    assert (asked.code, asked.out) == (ExitCode.INVALID_CONFIG, "")
    assert "does not say which base it was trained from. Name it with --model" in asked.err
    named = finetune("chat", moved, prompt, "--base", "--longest", "4", "--model", f"file://{tiny_llama}")
    assert named.out == both.out


# Merging.


def test_a_merged_model_answers_as_base_and_adapter_do(finished: Finished, tmp_path: Path) -> None:
    prompt = triage(1)[0]["prompt"]
    merged = finetune("merge", finished.run, tmp_path / "merged")
    if finished.method != "lora":
        assert (merged.code, merged.out) == (ExitCode.INVALID_CONFIG, "")
        reason = {"full": "whole model already", "prefix": "keys and values", "bottleneck": "after blocks of the base"}
        assert reason[finished.method] in merged.err
        assert not (tmp_path / "merged").exists()
        return
    assert (merged.code, merged.out) == (0, f"{tmp_path / 'merged'}\n"), merged.err
    want = finetune("chat", finished.run, prompt, "--longest", "4").out
    assert finetune("chat", tmp_path / "merged", prompt, "--longest", "4").out == want
    again = finetune("merge", finished.run, tmp_path / "merged")
    assert again.code == ExitCode.INVALID_CONFIG
    assert "not empty. Name a new folder." in again.err


def test_a_run_publishes_the_merged_model_too_if_it_is_wanted(tiny_llama: Path, tmp_path: Path) -> None:
    data = write_records(tmp_path / "rows.jsonl", triage(80))
    job = make_job(tiny_llama, data, tmp_path / "out", method={"lora": {"rank": 4}})
    job["spec"]["output"]["merged"] = True
    ended = finetune("run", write_job(tmp_path / "job.yaml", job))
    assert ended.code == 0, ended.err
    [run] = (tmp_path / "out" / "default" / "triage" / "runs").iterdir()
    assert f"Merged:  file://{run}/merged" in ended.out

    assert finetune("verify", run).code == 0
    model = AutoModelForCausalLM.from_pretrained(run / "merged", dtype="auto")
    assert (model.dtype, model.config.to_dict().get("quantization_config")) == (torch.bfloat16, None)
    again = finetune("merge", run, tmp_path / "again")
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (run / "merged/model.safetensors").read_bytes()
