"""What a run says of itself: progress that forgets nothing, metrics for what is known and for nothing else."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from finetune_api.run import Progress
from finetune_trainer.session import Standing
from finetune_trainer.telemetry import carry_over, make_registry


def samples(standing: Standing) -> dict[tuple[str, ...], float]:
    text = generate_latest(make_registry(standing)).decode()
    return {
        (sample.name.removeprefix("finetune_trainer_"), *sample.labels.values()): sample.value
        for family in parse(text)
        for sample in family.samples
        if sample.name.startswith("finetune_trainer_")
    }


def test_before_training_only_the_stage_and_the_counts_are_known() -> None:
    assert samples(Standing()) == {
        ("step",): 0, ("total_steps",): 0, ("tokens_total",): 0,
        ("stage", "prepare"): 1, ("stage", "train"): 0, ("stage", "evaluate"): 0, ("stage", "publish"): 0,
    }  # fmt: skip


def test_memory_is_read_when_it_is_asked_for() -> None:
    readings = iter([{"allocated": 3, "reserved": 4, "total": 5}, {"allocated": 7, "reserved": 8, "total": 9}])
    standing = Standing(gpu_memory=lambda: next(readings))
    first, second = samples(standing), samples(standing)
    kinds = ("allocated", "reserved", "total")
    assert [first["gpu_memory_bytes", kind] for kind in kinds] == [3, 4, 5]
    assert [second["gpu_memory_bytes", kind] for kind in kinds] == [7, 8, 9]


def test_what_training_reached_is_still_told_while_evaluating() -> None:
    trained = Progress(
        stage="train", step=9, total_steps=9, epoch=3.0, train_loss=1.0, validation_loss=2.0, checkpoint_step=9,
        tokens_per_second=100.0, eta_seconds=1.0,
    )  # fmt: skip
    now = carry_over(trained, Progress(stage="evaluate", step=1, total_steps=40))
    assert now == Progress(
        stage="evaluate", step=1, total_steps=40, epoch=3.0, train_loss=1.0, validation_loss=2.0, checkpoint_step=9
    )
