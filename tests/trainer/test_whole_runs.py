"""Every method as a whole run: from the manifest to a folder that answers as the report says, through a break."""

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from finetune_api.report import Manifest, Report
from finetune_api.run import Progress, RunConfig
from finetune_trainer.base import pick_device
from finetune_trainer.errors import Stopped
from finetune_trainer.manifest import verify
from finetune_trainer.method import load
from finetune_trainer.prepare import prepare
from finetune_trainer.recipe import run
from finetune_trainer.store import Store, open_store
from support.jobs import SURE, make_config, make_job, make_session, write_dataset
from support.rows import echo_rows
from support.training import losses_of

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": {"lora": {"rank": 8}}},
    "pissa": {"method": {"quantization": "none", "lora": {"init": "pissa", "rank": 8}}},
    "full": {"method": {"type": "full"}, "training": {"learningRate": 2e-3}},
    "prefix": {"method": {"type": "prefix", "prefix": {"length": 8}}, "training": {"learningRate": 2e-2}},
    "bottleneck": {"method": {"type": "bottleneck", "quantization": "int8", "bottleneck": {"width": 16}}},
}
FILES = {
    "lora": {"adapter_model.safetensors", "adapter_config.json"},
    "pissa": {"adapter_model.safetensors", "adapter_config.json"},
    "full": {"model.safetensors", "config.json", "generation_config.json"},
    "prefix": {"adapter_model.safetensors", "adapter_config.json"},
    "bottleneck": {"bottleneck.safetensors", "bottleneck_config.json"},
}
BESIDE = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "golden_prompts.json", "README.md"}


def config_of(name: str, model: Path, folder: Path, output: str) -> RunConfig:
    data = write_dataset(folder / "rows.jsonl", echo_rows(60))
    return make_config(make_job(model, data, folder / output, evaluation=SURE, **METHODS[name]), folder / "cache")


def store_of(config: RunConfig) -> Store:
    return open_store(config.output_uri).under(config.run_path)


def run_with_a_break(config: RunConfig, cache: Path) -> Report:
    """Stopped in the middle of training, and carried on."""
    stop = threading.Event()

    def tell(progress: Progress) -> None:
        if progress.stage == "train" and progress.step == 9:
            stop.set()

    with pytest.raises(Stopped):
        run(config, make_session(cache, tell, stop))
    assert not store_of(config).exists("manifest.json")
    return run(config, make_session(cache))


@pytest.mark.parametrize("name", METHODS)
def test_a_run_of_any_method_survives_a_break_and_publishes_what_it_reports(
    name: str, tiny_llama: Path, tmp_path: Path
) -> None:
    broken, whole = (config_of(name, tiny_llama, tmp_path, output) for output in ("broken", "whole"))
    want, report = run(whole, make_session(tmp_path / "cache")), run_with_a_break(broken, tmp_path / "cache")
    store, result = store_of(broken), "model" if name == "full" else "adapter"
    assert report.training.resumed_from == 9
    assert report.training.train_loss == want.training.train_loss
    assert report.training.validation_loss == want.training.validation_loss
    assert report.outcome.evaluation == want.outcome.evaluation
    assert report.outcome.evaluation is not None
    assert report.outcome.evaluation.verdict == "Passed"
    assert verify(store) == []
    assert {path.name for path in (tmp_path / "broken").glob(f"*/*/runs/*/{result}/*")} == FILES[name] | BESIDE
    assert report.outcome.adapter is not None
    assert report.outcome.adapter.uri == store.uri_of(result)
    listed = {file.path for file in Manifest.model_validate_json(store.read("manifest.json")).files}
    assert {f"{result}/{file}" for file in FILES[name] | BESIDE} <= listed
    assert json.loads((tmp_path / "broken/tests/tiny/current.json").read_text())["adapter"] == store.uri_of(result)
    assert report.model.method == broken.method.type
    assert perplexity(broken, tiny_llama, tmp_path) == pytest.approx(metric(report), rel=0.02)


def perplexity(config: RunConfig, model: Path, folder: Path) -> float:
    """Of the published weights on the held-out rows."""
    [published] = Path(config.output_uri.removeprefix("file://")).glob("*/*/runs/*/*/README.md")
    tuned = load(model, config.method.storage, published.parent, pick_device())
    with tuned.inference(adapted=True):
        losses = losses_of(tuned, prepare(config, folder / "cache").splits["test"])
    return math.exp(losses.mean().item())


def metric(report: Report) -> float:
    assert report.outcome.evaluation is not None
    [found] = report.outcome.evaluation.metrics
    assert found.adapter < 0.9 * found.base
    return found.adapter
