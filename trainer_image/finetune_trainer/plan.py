"""What a run would do, without doing it: rows, steps, memory, and what looks unwise."""

from dataclasses import dataclass
from pathlib import Path

from finetune_api.cards import CARDS, Card
from finetune_api.memory import ModelShape
from finetune_api.methods import Method, MethodSpec
from finetune_api.report import DataReport
from finetune_api.run import RunConfig
from finetune_api.speed import Forecast, foresee
from finetune_api.training import TrainingSpec
from finetune_trainer.architecture import check_loadable, read_shape
from finetune_trainer.batches import steps_per_epoch
from finetune_trainer.fetch import fetch_model
from finetune_trainer.lengths import measure
from finetune_trainer.machine import this_machine
from finetune_trainer.prepare import prepare
from finetune_trainer.schedule import Schedule

TOO_SLOW: dict[Method, float] = {"lora": 5e-5, "bottleneck": 5e-5, "prefix": 1e-3}
"""At and below these rates a method learns slowly: it wants ten times the rate of full fine-tuning, and more."""
WANTED: dict[Method, str] = {"lora": "1e-4 to 5e-4", "bottleneck": "1e-4 to 1e-3", "prefix": "5e-3 to 2e-2"}


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    data: DataReport
    schedule: Schedule
    shape: ModelShape
    trained_parameters: int
    here: Forecast | None
    """On the device of this machine; None if it does not fit."""
    cards: list[tuple[Card, Forecast | None]]
    """On cards that there are."""
    warnings: list[str]


def make_plan(config: RunConfig, cache: Path) -> Plan:
    """Read the data and the headers of the weights; write nothing. Raises RunError."""
    prepared = prepare(config, cache)
    folder = fetch_model(config.model, cache)
    check_loadable(folder)
    shape, rows = read_shape(folder), prepared.splits["train"]
    lengths = measure(config.training, rows)
    schedule = Schedule.of(config.training, steps_per_epoch(len(rows), config.training.batch_size))
    tokens = config.training.micro_batch_tokens

    def on(card: Card) -> Forecast | None:
        return foresee(shape, config.method, card, lengths, tokens)

    return Plan(
        data=prepared.report,
        schedule=schedule,
        shape=shape,
        trained_parameters=shape.trained_parameters(config.method),
        here=on(this_machine()),
        cards=[(card, on(card)) for card in CARDS],
        warnings=[*prepared.report.warnings, *doubts(config.method, config.training, schedule)],
    )


def doubts(method: MethodSpec, training: TrainingSpec, schedule: Schedule) -> list[str]:
    """Settings that work but will probably disappoint."""
    found = []
    if method.type in TOO_SLOW and training.peak_rate <= TOO_SLOW[method.type]:
        found.append(
            f"training.learningRate {training.peak_rate:g} is a rate for full fine-tuning; {method.type} usually "
            f"learns more at {WANTED[method.type]}."
        )
    if schedule.planned_steps < 30:
        found.append(
            f"Only {schedule.planned_steps} optimiser steps are planned; lower training.batchSize or raise "
            "training.epochs if too little is learnt."
        )
    return found
