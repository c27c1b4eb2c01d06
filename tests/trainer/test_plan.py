"""What a run would do, told before it does it."""

from pathlib import Path

import pytest

from finetune_api.methods import LoraSpec, MethodSpec
from finetune_api.training import TrainingSpec
from finetune_trainer.architecture import check_loadable, read_shape
from finetune_trainer.base import parameter_count
from finetune_trainer.errors import ModelNotLoadable
from finetune_trainer.plan import doubts, make_plan
from finetune_trainer.recipe import run
from finetune_trainer.schedule import Schedule
from support.jobs import make_config, make_job, make_session, write_dataset
from support.rows import echo_rows
from support.training import load_adapted


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen"])
def test_the_headers_tell_the_parameters_that_loading_finds(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(family)
    shape, tuned = read_shape(folder), load_adapted(folder, "nf4", rank=8)
    assert shape.parameters == parameter_count(tuned)
    method = MethodSpec(lora=LoraSpec(rank=8))
    assert shape.trained_parameters(method) == sum(parameter.numel() for parameter in tuned.parameters.values())
    assert shape.vocabulary == tuned.base.config.vocab_size
    assert (shape.layers, shape.hidden, shape.queries, shape.keys, shape.feed_forward) == (2, 64, 64, 32, 128)


def test_the_plan_is_what_the_run_then_does(tiny_llama: Path, tmp_path: Path) -> None:
    job = make_job(tiny_llama, write_dataset(tmp_path / "rows.jsonl", echo_rows(40)), tmp_path / "out")
    config = make_config(job, tmp_path / "cache")
    plan = make_plan(config, tmp_path / "cache")
    assert not (tmp_path / "out").exists()
    report = run(config, make_session(tmp_path / "cache"))
    assert plan.data == report.data
    assert plan.schedule.planned_steps == report.training.planned_steps
    assert plan.trained_parameters == report.model.trainable_parameters
    assert plan.shape.parameters == report.model.parameters


def test_rates_and_step_counts_that_will_disappoint_are_doubted() -> None:
    slow, few = TrainingSpec(learning_rate=2e-5), TrainingSpec(learning_rate=2e-4)
    assert "rate for full fine-tuning" in doubts(MethodSpec(), slow, Schedule.of(slow, 100))[0]
    assert doubts(MethodSpec(), few, Schedule.of(few, 100)) == []
    assert doubts(MethodSpec(type="full"), slow, Schedule.of(slow, 100)) == []
    assert "prefix usually learns more at 5e-3" in doubts(MethodSpec(type="prefix"), few, Schedule.of(few, 100))[0]
    assert "Only 15 optimiser steps" in doubts(MethodSpec(), few, Schedule.of(few, 5))[0]


def test_a_folder_without_a_configuration_of_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(ModelNotLoadable, match="is not a model configuration"):
        check_loadable(tmp_path)
