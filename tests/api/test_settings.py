"""Every effective setting is listed, as a person would write it, with its origin."""

from typing import Any

import pytest
from pydantic.fields import FieldInfo

from finetune_api.identity import DECIDING
from finetune_api.job import FineTuneJob, FineTuneJobSpec
from finetune_api.methods import METHOD_DEFAULTS, PARTS
from finetune_api.run import Setting
from finetune_api.schema import Model, fields_of, nested_model, written
from finetune_api.settings import settings_of, source_of
from support.manifests import make_manifest


def settings(**spec: Any) -> dict[str, Setting]:
    job = FineTuneJob.model_validate(make_manifest(**spec))
    return {setting.path: setting for setting in settings_of(job.spec)}


def leaves(model: type[Model], prefix: str = "") -> list[str]:
    """Paths of all fields below a model that are not objects themselves."""
    found: list[str] = []
    for name, field in fields_of(model).items():
        nested = nested_model(field.annotation)
        found += leaves(nested, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return found


@pytest.mark.parametrize("method", METHOD_DEFAULTS)
def test_every_field_that_decides_the_result_is_listed_once_in_order(method: str) -> None:
    job = FineTuneJob.model_validate(make_manifest(method={"type": method}))
    others = tuple(f"method.{part}." for part in PARTS if part != method)
    deciding = [
        path
        for path in leaves(FineTuneJobSpec)
        if path.split(".")[0] in DECIDING and not path.endswith(".secretRef.name") and not path.startswith(others)
    ]

    assert [setting.path for setting in settings_of(job.spec)] == deciding


def test_how_a_job_runs_is_no_setting_of_its_result() -> None:
    found = settings(
        model={"uri": "hf://owner/name", "secretRef": {"name": "token"}},
        resources={"gpus": 2},
        retries=7,
        suspend=True,
        output={"uri": "s3://elsewhere", "secretRef": {"name": "s3"}},
    )

    assert set(found) == set(settings())
    assert not any("secretRef" in path for path in found)


def test_entries_of_a_list_are_shown_as_one_setting() -> None:
    found = settings(method={"lora": {"targetModules": ["q_proj", "v_proj"]}})

    assert found["method.lora.targetModules"].value == "q_proj, v_proj"


def test_a_field_in_the_manifest_is_said_to_come_from_there() -> None:
    found = settings(training={"learningRate": 2e-5, "seed": 7})

    assert found["training.learningRate"] == Setting(path="training.learningRate", value="2e-5", source="manifest")
    assert found["training.seed"] == Setting(path="training.seed", value="7", source="manifest")
    assert found["model.uri"].source == "manifest"


@pytest.mark.parametrize(
    ("path", "value", "source"),
    [
        ("training.learningRate", "2e-5", "default: best-practice article"),
        ("training.maxGradNorm", "1", "default: common LoRA practice"),
        ("training.earlyStopping.enabled", "true", "default: best-practice article"),
        ("training.earlyStopping.minDelta", "0", "default: this product"),
        ("dataset.split.test", "0.15", "default: best-practice article"),
        ("dataset.split.groupBy", "equal prompts", "default: this product"),
        ("dataset.format", "detected", "default: this product"),
        ("method.lora.targetModules", "all-linear", "default: common LoRA practice"),
        ("training.microBatchTokens", "what fits", "default: this product"),
        ("evaluation.metrics", "exactMatch, tokenF1, perplexity", "default: this product"),
    ],
)
def test_a_default_is_shown_with_its_origin(path: str, value: str, source: str) -> None:
    assert settings()[path] == Setting(path=path, value=value, source=source)


@pytest.mark.parametrize(
    ("method", "path", "value", "source"),
    [
        ("full", "method.quantization", "none", "default: best-practice article"),
        ("full", "training.learningRate", "2e-5", "default: best-practice article"),
        ("prefix", "method.quantization", "nf4", "default: best-practice article"),
        ("prefix", "training.learningRate", "0.005", "default: PEFT's comparison of methods"),
        ("prefix", "method.prefix.length", "50", "default: PEFT's comparison of methods"),
        ("bottleneck", "training.learningRate", "0.0001", "default: common adapter practice"),
        ("bottleneck", "method.bottleneck.placement", "pfeiffer", "default: common adapter practice"),
    ],
)
def test_the_default_of_a_method_is_shown_as_its_own(method: str, path: str, value: str, source: str) -> None:
    assert settings(method={"type": method})[path] == Setting(path=path, value=value, source=source)


def test_what_the_manifest_says_of_a_method_is_told_apart_from_what_it_leaves_open() -> None:
    found = settings(method={"type": "prefix", "quantization": "nf4", "prefix": {"length": 50}})

    assert found["method.quantization"].source == found["method.prefix.length"].source == "manifest"
    assert found["method.prefix.init"].source == "default: PEFT's comparison of methods"


def test_the_last_epoch_is_shown_as_it_takes_effect() -> None:
    article = "default: best-practice article"

    assert settings()["training.maxEpochs"] == Setting(path="training.maxEpochs", value="5", source=article)
    found = settings(training={"epochs": 8})["training.maxEpochs"]
    assert found == Setting(path="training.maxEpochs", value="8", source=article)
    found = settings(training={"epochs": 8, "maxEpochs": 9})["training.maxEpochs"]
    assert found == Setting(path="training.maxEpochs", value="9", source="manifest")


def test_a_field_written_as_null_is_not_called_a_choice() -> None:
    assert settings(training={"maxEpochs": None})["training.maxEpochs"].source == "default: best-practice article"


def test_every_default_has_an_origin() -> None:
    def without_origin(model: type[Model]) -> list[str]:
        found: list[str] = []
        for name, field in fields_of(model).items():
            nested = nested_model(field.annotation)
            if nested:
                found += without_origin(nested)
            elif takes_effect(field) and not source_of(field):
                found.append(f"{model.__name__}.{name}")
        return found

    assert without_origin(FineTuneJobSpec) == []


def takes_effect(field: FieldInfo) -> bool:
    """Whether something happens by default: there is a value, or the description says what."""
    return not field.is_required() and (bool(field.default) or " Default: " in str(field.description))


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (2e-5, "2e-5"),
        (2.5e-5, "2.5e-5"),
        (1e-10, "1e-10"),
        (1e22, "1e22"),
        (0.15, "0.15"),
        (10.0, "10"),
        (0.0, "0"),
        (123456.789, "123456.789"),
        (16, "16"),
        (False, "false"),
        (["q_proj", "v_proj"], "q_proj, v_proj"),
        (None, "nothing"),
    ],
)
def test_values_are_written_as_a_person_would(value: object, want: str) -> None:
    assert written(value) == want
