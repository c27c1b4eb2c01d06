"""A run is named by what decides its result, and by nothing else."""

import re
from datetime import date
from typing import Any

import pytest

from finetune_api.identity import DECIDING, digest8, run_config, run_digest, run_id, spec_digest
from finetune_api.job import FineTuneJob, FineTuneJobSpec
from finetune_api.methods import PrefixSpec
from finetune_api.problems import parse_job
from finetune_api.schema import fields_of
from finetune_api.settings import settings_of
from support.manifests import make_manifest

DATA = "sha256:5d1f"
MODEL, DATASET = (make_manifest()["spec"][part]["uri"] for part in ("model", "dataset"))
INDIFFERENT: dict[str, Any] = {
    "output": {"uri": "file:///results", "secretRef": {"name": "s3"}},
    "resources": {"nodes": 4, "gpus": 8, "gpuMemory": "40Gi", "memory": "8Gi", "prepare": {"separate": False}},
    "podTemplate": {"labels": {"team": "a"}, "env": [{"name": "HF_ENDPOINT", "value": "https://mirror"}]},
    "queueName": "team-a",
    "retrain": {"schedule": "0 3 * * 0", "onDatasetChange": True},
    "suspend": True,
    "retries": 0,
    "activeDeadlineSeconds": 3600,
    "ttlSecondsAfterFinished": 60,
    "historyLimit": 0,
}
"""Another value for each part of a spec that says how to run, not what to make."""


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
        {"model": {"uri": MODEL, "revision": "main"}},
        {"dataset": {"uri": DATASET, "format": None, "split": {"test": 0.15, "seed": 42}}},
        {"method": {"quantization": "nf4", "lora": {}}},
        {"method": {"lora": {"rslora": False, "dora": False, "init": "default"}}},
    ],
)
def test_a_default_written_out_is_the_same_run(spec: dict[str, Any]) -> None:
    assert digest(**spec) == digest()


@pytest.mark.parametrize(
    ("method", "rate"),
    [
        ({"type": "full", "quantization": "none"}, 2e-5),
        ({"type": "prefix", "quantization": "nf4", "prefix": {"length": 50, "init": "rows"}}, 5e-3),
        ({"type": "bottleneck", "bottleneck": {"width": 64, "placement": "pfeiffer", "dropout": 0}}, 1e-4),
    ],
)
def test_a_default_of_a_method_written_out_is_the_same_run(method: dict[str, Any], rate: float) -> None:
    short = digest(method={"type": method["type"]})

    assert digest(method=method, training={"learningRate": rate}) == short
    assert digest(method={"type": method["type"]}, training={"learningRate": 3e-4}) != short
    assert short != digest()


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"uri": "hf://HuggingFaceTB/SmolLM2-360M-Instruct"}},
        {"model": {"uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "v2"}},
        {"dataset": {"uri": "s3://clinic/triage.jsonl", "split": {"seed": 1}}},
        {"method": {"lora": {"rank": 8}}},
        {"method": {"lora": {"dora": True}}},
        {"method": {"quantization": "none"}},
        {"method": {"type": "prefix"}, "training": {"learningRate": 2e-5}},
        {"training": {"learningRate": 3e-5}},
        {"evaluation": {"primaryMetric": "perplexity"}},
    ],
)
def test_what_decides_the_result_makes_another_run(spec: dict[str, Any]) -> None:
    assert digest(**spec) != digest()


def test_other_data_under_the_same_name_makes_another_run() -> None:
    assert digest(data="sha256:77aa") != digest()


def test_every_default_that_the_api_server_writes_out_is_the_same_run() -> None:
    sparse = parse_job(make_manifest())
    complete = parse_job(sparse.to_manifest())

    assert complete.spec.model_fields_set > sparse.spec.model_fields_set
    assert run_digest(complete.spec, DATA) == run_digest(sparse.spec, DATA)
    assert spec_digest(complete.spec) == spec_digest(sparse.spec)


def test_the_last_epoch_counts_and_not_how_it_was_written() -> None:
    assert digest(training={"epochs": 8}) == digest(training={"epochs": 8, "maxEpochs": 8})
    assert digest(training={"maxEpochs": 4}) != digest()


@pytest.mark.parametrize("part", [name for name in fields_of(FineTuneJobSpec) if name not in DECIDING])
def test_what_does_not_decide_the_result_never_makes_another_run(part: str) -> None:
    assert digest(**{part: INDIFFERENT[part]}) == digest()


@pytest.mark.parametrize(("part", "uri"), [("model", MODEL), ("dataset", DATASET)])
def test_who_may_read_does_not_make_another_run(part: str, uri: str) -> None:
    change: dict[str, Any] = {part: {"uri": uri, "secretRef": {"name": "new-token"}}}

    assert digest(**change) == digest()


def test_what_the_job_is_called_does_not_make_another_run() -> None:
    renamed = {"name": "other", "labels": {"team": "a"}, "annotations": {"note": "b"}}

    assert digest(metadata=renamed) == digest()


def test_the_digest_of_a_manifest_stays_as_it_is_for_ever() -> None:
    # A new release that computes another digest would train every finished job of every user again.
    assert digest() == "sha256:fa2e6eec963ce672919e56c7417f650700c45f871074bb1426c59a4d33309f57"
    assert (
        digest(training={"learningRate": 1e-4}, method={"lora": {"rank": 8}})
        == "sha256:ece6c340ef24d59fc0c9a97d696925e14dfcc0b76a725b487f475ad0abb6bc0a"
    )


def test_the_digest_of_the_manifest_leaves_the_data_out() -> None:
    spec = parse_job(make_manifest()).spec

    assert spec_digest(spec) != run_digest(spec, DATA)
    assert spec_digest(spec) == spec_digest(parse_job(make_manifest({"name": "other"})).spec)


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
    assert config.gpu_memory is None
    assert next(setting.source for setting in config.settings if setting.path == "training.learningRate") == "manifest"


def test_the_trainers_orders_leave_nothing_of_the_method_open() -> None:
    job = parse_job(make_manifest(method={"type": "prefix"}, resources={"gpuMemory": "40Gi"}))
    config = run_config(job, "20261103-3f9a1c2b", digest(), [])

    assert config.training.peak_rate == 5e-3
    assert config.method.quantization == "nf4"
    assert config.method.prefix == PrefixSpec(length=50, init="rows")
    assert config.method.lora is None
    assert config.gpu_memory == 40 * 2**30
