"""The models hold the article's defaults and refuse what contradicts itself."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.job import FineTuneJob
from finetune_api.methods import LoraSpec
from finetune_api.status import FineTuneJobStatus, RunStatus
from support.manifests import make_manifest
from support.statuses import SITUATIONS, make_status


def read(metadata: dict[str, Any] | None = None, **spec: Any) -> FineTuneJob:
    return FineTuneJob.model_validate(make_manifest(metadata, **spec))


def refusal(**spec: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        read(**spec)
    return str(caught.value)


def test_the_defaults_are_the_articles() -> None:
    spec = read().spec

    assert spec.method.type == "lora"
    assert spec.method.storage == "nf4"
    assert spec.method.part == LoraSpec(rank=16, dropout=0.05)
    assert spec.method.defaults.learning_rate == 2e-5
    assert spec.training.epochs == 3
    assert spec.training.last_epoch == 5
    assert spec.training.batch_size == 8
    assert spec.training.weight_decay == 0.01
    assert spec.training.early_stopping.enabled
    assert spec.dataset.split.test == 0.15


def test_the_layers_that_get_an_adapter_default_to_all_linear_ones() -> None:
    part = read().spec.method.part
    assert isinstance(part, LoraSpec)
    assert part.target_modules == ["all-linear"]


@pytest.mark.parametrize(("training", "want"), [({}, 5), ({"epochs": 8}, 8), ({"epochs": 2, "maxEpochs": 3}, 3)])
def test_training_ends_after_five_epochs_or_the_planned_ones_unless_told(training: dict[str, int], want: int) -> None:
    assert read(training=training).spec.training.last_epoch == want


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        (
            {"dataset": {"uri": "s3://a", "split": {"test": 0.5, "validation": 0.4}}},
            "test and validation together may take at most 0.8 of the rows",
        ),
        ({"training": {"epochs": 6, "maxEpochs": 5}}, "maxEpochs must be at least epochs"),
        ({"evaluation": {"metrics": ["exactMatch"]}}, "primaryMetric must be one of metrics"),
        (
            {"method": {"lora": {"targetModules": ["all-linear", "q_proj"]}}},
            "all-linear stands alone: it already means every linear layer",
        ),
        ({"method": {"type": "full", "quantization": "nf4"}}, "while they are quantised: leave quantization out"),
        ({"method": {"type": "full", "quantization": "int8"}}, "while they are quantised: leave quantization out"),
        (
            {"method": {"type": "full", "lora": {"rank": 8}}},
            "lora holds settings of type lora: leave it out, or set type to lora",
        ),
        (
            {"method": {"prefix": {"length": 8}}},
            "prefix holds settings of type prefix: leave it out, or set type to prefix",
        ),
        (
            {"method": {"type": "prefix", "bottleneck": {}}},
            "bottleneck holds settings of type bottleneck: leave it out, or set type to bottleneck",
        ),
        *[
            ({"method": {**storage, "lora": {"init": init}}}, "must not be quantised: set quantization to none")
            for init in ("orthogonal", "pissa", "olora")
            for storage in ({}, {"quantization": "nf4"}, {"quantization": "int8"})
        ],
    ],
)
def test_fields_that_contradict_each_other_are_refused(spec: dict[str, Any], want: str) -> None:
    assert want in refusal(**spec)


def test_the_limits_of_the_cross_field_rules_are_allowed() -> None:
    spec = read(
        dataset={"uri": "s3://a", "split": {"test": 0.5, "validation": 0.3}},
        training={"epochs": 6, "maxEpochs": 6},
        evaluation={"metrics": ["exactMatch"], "primaryMetric": "exactMatch"},
        method={"lora": {"targetModules": ["q_proj", "v_proj"]}},
    ).spec

    assert spec.training.last_epoch == 6


@pytest.mark.parametrize(
    "method",
    [
        {"type": "full", "quantization": "none"},
        {"lora": {"init": "pissa"}, "quantization": "none"},
        {"lora": {"init": "gaussian", "dora": True, "rslora": True}, "quantization": "int8"},
        {"type": "prefix", "prefix": {"length": 8}, "quantization": "int8"},
        {"type": "bottleneck", "bottleneck": {"placement": "houlsby"}, "quantization": "none"},
    ],
)
def test_methods_take_what_fits_them(method: dict[str, Any]) -> None:
    assert read(method=method).spec.method.storage == method["quantization"]


@pytest.mark.parametrize(
    "spec",
    [
        {"learningRate": 1e-4},
        {"training": {"learning-rate": 1e-4}},
        {"method": {"lora": {"r": 8}}},
        {"output": {"uri": "s3://a", "secret": "b"}},
    ],
)
def test_unknown_fields_are_refused(spec: dict[str, Any]) -> None:
    assert "Extra inputs are not permitted" in refusal(**spec)


@pytest.mark.parametrize("uri", ["adapters", "hf://owner/name", "https://host/x", "s3://", "s3://a b"])
def test_an_output_that_cannot_be_written_is_refused(uri: str) -> None:
    assert "spec.output.uri" in refusal(output={"uri": uri})


def test_times_are_written_in_utc_to_the_second_as_kubernetes_writes_them() -> None:
    local = datetime(2026, 11, 23, 15, 2, 51, 999, tzinfo=timezone(timedelta(hours=1)))
    status = FineTuneJobStatus(run=RunStatus(attempt=1, started_at=local))

    assert status.model_dump(mode="json", by_alias=True)["run"]["startedAt"] == "2026-11-23T14:02:51Z"


def test_a_published_status_is_read_back_unchanged() -> None:
    for situation in SITUATIONS:
        status = make_status(situation.name)
        plain = status.model_dump(mode="json", by_alias=True, exclude_none=True)

        assert FineTuneJobStatus.model_validate(plain) == status


def test_further_metadata_is_allowed_and_kept() -> None:
    manifest = make_manifest({"uid": "1234", "finalizers": ["a"]})

    assert FineTuneJob.model_validate(manifest).to_manifest()["metadata"]["uid"] == "1234"


def test_a_manifest_survives_the_way_through_the_models() -> None:
    job = read(
        {"namespace": "clinic", "labels": {"team": "a"}},
        training={"learningRate": 1e-4, "maxEpochs": 9},
        dataset={"uri": "s3://a", "format": "alpaca", "split": {"groupBy": "patient"}},
    )
    manifest = job.to_manifest()

    assert manifest["spec"]["training"]["learningRate"] == 1e-4
    assert manifest["spec"]["dataset"]["split"]["groupBy"] == "patient"
    assert "status" not in manifest
    assert FineTuneJob.model_validate(manifest) == job
