"""A run is named by what decides its result, and by nothing else."""

import re
from datetime import date
from typing import Any

import pytest

from finetune_api.identity import digest8, run_config, run_digest, run_id
from finetune_api.job import FineTuneJob
from finetune_api.settings import settings_of
from support.manifests import make_manifest

DATA = "sha256:5d1f"


def digest(data: str = DATA, metadata: dict[str, Any] | None = None, **spec: Any) -> str:
    return run_digest(FineTuneJob.model_validate(make_manifest(metadata, **spec)).spec, data)


def test_the_order_of_fields_does_not_matter() -> None:
    assert digest(training={"epochs": 4, "seed": 1}) == digest(training={"seed": 1, "epochs": 4})


@pytest.mark.parametrize(
    "spec",
    [
        {"training": {}},
        {"training": {"learningRate": 0.00002, "epochs": 3, "maxEpochs": None, "maxGradNorm": 1}},
        {"method": {"type": "lora", "lora": {"targetModules": ["all-linear"]}}},
        {"evaluation": {"metrics": ["exactMatch", "tokenF1", "perplexity"]}},
    ],
)
def test_a_default_written_out_is_the_same_run(spec: dict[str, Any]) -> None:
    assert digest(**spec) == digest()


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"uri": "hf://HuggingFaceTB/SmolLM2-360M-Instruct"}},
        {"model": {"uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "v2"}},
        {"dataset": {"uri": "s3://clinic/triage.jsonl", "split": {"seed": 1}}},
        {"method": {"lora": {"rank": 8}}},
        {"training": {"learningRate": 3e-5}},
        {"evaluation": {"primaryMetric": "perplexity"}},
    ],
)
def test_what_decides_the_result_makes_another_run(spec: dict[str, Any]) -> None:
    assert digest(**spec) != digest()


def test_other_data_under_the_same_name_makes_another_run() -> None:
    assert digest(data="sha256:77aa") != digest()


def test_where_results_go_and_what_the_job_is_called_do_not_make_another_run() -> None:
    renamed = {"name": "other", "labels": {"team": "a"}, "annotations": {"note": "b"}}

    assert digest(metadata=renamed, output={"uri": "file:///results"}) == digest()


def test_a_digest_is_a_sha256() -> None:
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest())


def test_a_run_is_called_by_its_day_and_the_start_of_its_digest() -> None:
    name = run_id("sha256:3f9a1c2b77d0e1f2", date(2026, 11, 3))

    assert name == "20261103-3f9a1c2b"
    assert digest8("sha256:3f9a1c2b77d0e1f2") == "3f9a1c2b"


def test_the_trainers_orders_carry_the_job_and_its_settings() -> None:
    job = FineTuneJob.model_validate(make_manifest({"namespace": "clinic"}, training={"learningRate": 1e-4}))
    config = run_config(job, "20261103-3f9a1c2b", digest(), settings_of(job.spec))

    assert config.run_path == "clinic/clinic-triage/runs/20261103-3f9a1c2b"
    assert config.output_uri == "s3://adapters/clinic"
    assert config.training == job.spec.training
    assert next(setting.source for setting in config.settings if setting.path == "training.learningRate") == "manifest"
