"""Whole jobs on tiny models: manifests, datasets and sessions for the recipe and the command line."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_api.identity import run_config, run_digest, run_id
from finetune_api.problems import parse_job
from finetune_api.run import Progress, RunConfig
from finetune_api.settings import settings_of
from finetune_trainer.fetch import fetch_dataset
from finetune_trainer.rows import Row
from finetune_trainer.session import Session

SURE: dict[str, Any] = {"metrics": ["perplexity"], "primaryMetric": "perplexity"}
"""An evaluation by perplexity: there a trained adapter is surely better than the random base."""


def write_dataset(file: Path, rows: list[Row]) -> Path:
    """Write chat rows as JSONL in the messages layout."""
    lines = [
        json.dumps({"messages": [{"role": message.role, "content": message.content} for message in row.messages]})
        for row in rows
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def make_job(model: Path | str, dataset: Path | str, output: Path | str, **spec: Any) -> dict[str, Any]:
    """A manifest that trains a tiny model in a second or two."""
    training = {"learningRate": 5e-3, "epochs": 2, "maxEpochs": 2, "batchSize": 4, "validationsPerEpoch": 2}
    uri = {name: str(at) if "://" in str(at) else f"file://{at}" for name, at in zip(
        ("model", "dataset", "output"), (model, dataset, output), strict=True)}  # fmt: skip
    return {
        "apiVersion": "finetuning.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "tiny", "namespace": "tests"},
        "spec": {
            "model": {"uri": uri["model"]},
            "dataset": {"uri": uri["dataset"], **spec.pop("dataset", {})},
            "method": spec.pop("method", {}),
            "training": training | spec.pop("training", {}),
            "evaluation": {"maxNewTokens": 8, **spec.pop("evaluation", {})},
            "output": {"uri": uri["output"]},
            "resources": spec.pop("resources", {"gpus": 0}),
        },
    }


def make_config(manifest: dict[str, Any], cache: Path) -> RunConfig:
    """The run configuration that the command line would make of a manifest."""
    job = parse_job(manifest)
    digest = run_digest(job.spec, fetch_dataset(job.spec.dataset.uri, cache).fingerprint)
    return run_config(job, run_id(digest, datetime(2026, 11, 23, tzinfo=UTC).date()), digest, settings_of(job.spec))


def make_session(
    cache: Path, tell: Callable[[Progress], None] = lambda _: None, stop: threading.Event | None = None
) -> Session:
    """A session with a clock that stands still."""
    return Session(cache, tell, stop or threading.Event(), lambda: datetime(2026, 11, 23, 12, 0, tzinfo=UTC))
