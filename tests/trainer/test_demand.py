"""What a run will ask of a card, told from the configuration of its model before there are weights."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.problems import parse_job
from finetune_api.report import DataReport
from finetune_api.speed import least_memory
from finetune_trainer.architecture import foretell_shape, read_shape
from finetune_trainer.demand import lengths_of, measure_demand
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.prepare import prepare
from finetune_trainer.runs import config_of, job_store
from support.jobs import make_job, write_dataset
from support.rows import echo_rows


@pytest.fixture
def configuration(tiny_llama: Path, tmp_path: Path) -> Path:
    """A folder with a model's configuration and tokenizer, without its weights."""
    folder = tmp_path / "configuration"
    shutil.copytree(tiny_llama, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture
def data(tiny_llama: Path, tmp_path: Path) -> DataReport:
    job = job_of(tiny_llama, tmp_path)
    return prepare(config_of(job, job_store(job), tmp_path / "cache"), tmp_path / "cache").report


def job_of(model: Path, tmp_path: Path, **resources: Any) -> FineTuneJob:
    rows = write_dataset(tmp_path / "rows.jsonl", echo_rows(60))
    return parse_job(make_job(model, rows, tmp_path / "out", resources={"gpus": 1, **resources}))


def demand(folder: Path, data: DataReport, tmp_path: Path, model: Path, **resources: Any) -> int | None:
    job = job_of(model, tmp_path, **resources)
    config = config_of(job, job_store(job), tmp_path / "cache")
    return measure_demand(config, folder, data, job.spec.resources)


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_qwen"])
def test_a_shape_foretold_is_that_of_the_weights(model: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    foretold, read = foretell_shape(folder), read_shape(folder)

    assert foretold is not None
    assert sorted(foretold.linear) == sorted(read.linear)
    assert foretold.parameters == pytest.approx(read.parameters, rel=0.01)
    assert foretold.vocabulary == read.vocabulary


def test_of_other_architectures_nothing_is_foretold(configuration: Path) -> None:
    config = configuration / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"mixtral"'))

    assert foretell_shape(configuration) is None


def test_the_demand_is_that_of_the_smallest_layout(
    configuration: Path, data: DataReport, tmp_path: Path, tiny_llama: Path
) -> None:
    shape, method = read_shape(tiny_llama), job_of(tiny_llama, tmp_path).spec.method
    alone, divided = (least_memory(shape, method, lengths_of(data), cards) for cards in (1, 8))

    assert demand(configuration, data, tmp_path, tiny_llama) == pytest.approx(alone, rel=1e-3)
    assert demand(configuration, data, tmp_path, tiny_llama, gpus=4, nodes=2) == pytest.approx(divided, rel=1e-3)
    assert demand(configuration, data, tmp_path, tiny_llama, gpus=0) is None


def test_less_than_that_is_refused_with_what_to_do(
    configuration: Path, data: DataReport, tmp_path: Path, tiny_llama: Path
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        demand(configuration, data, tmp_path, tiny_llama, gpuMemory="512Mi")

    assert str(refused.value).startswith("spec.resources.gpuMemory allows 512Mi of a card, but a model of 0.0 billion")
    assert "method.quantization" in str(refused.value)
    assert demand(configuration, data, tmp_path, tiny_llama, gpuMemory="8Gi") is not None
