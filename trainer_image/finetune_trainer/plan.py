"""What a run would do, without doing it: rows, steps, memory, and what looks unwise."""

import math
from dataclasses import dataclass
from pathlib import Path

from finetune_api.memory import MemoryEstimate, ModelShape, estimate_memory
from finetune_api.report import DataReport
from finetune_api.run import RunConfig
from finetune_api.training import MethodSpec, TrainingSpec
from finetune_trainer.architecture import check_loadable, read_shape
from finetune_trainer.batches import steps_per_epoch
from finetune_trainer.fetch import fetch_model
from finetune_trainer.prepare import Prepared, prepare
from finetune_trainer.schedule import Schedule

FULL_TUNING_RATE = 5e-5
"""At and below this rate LoRA learns slowly: it wants about ten times the rate of full fine-tuning."""


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    data: DataReport
    schedule: Schedule
    shape: ModelShape
    trained_parameters: int
    memory: MemoryEstimate
    warnings: list[str]


def make_plan(config: RunConfig, cache: Path) -> Plan:
    """Read the data and the headers of the weights; write nothing. Raises RunError."""
    prepared = prepare(config, cache)
    folder = fetch_model(config.model, cache)
    check_loadable(folder)
    shape = read_shape(folder)
    schedule = Schedule.of(config.training, steps_per_epoch(len(prepared.splits["train"]), config.training.batch_size))
    tokens, taught = largest_pass(prepared, config.training)
    rank = config.method.lora.rank
    return Plan(
        data=prepared.report,
        schedule=schedule,
        shape=shape,
        trained_parameters=shape.lora_parameters(rank),
        memory=estimate_memory(shape, config.method.quantization, rank, tokens, taught),
        warnings=[*prepared.report.warnings, *doubts(config.method, config.training, schedule)],
    )


def doubts(method: MethodSpec, training: TrainingSpec, schedule: Schedule) -> list[str]:
    """Settings that work but will probably disappoint."""
    found = []
    if training.learning_rate <= FULL_TUNING_RATE:
        found.append(
            f"training.learningRate {training.learning_rate:g} is a rate for full fine-tuning; {method.type} usually "
            "learns more at 1e-4 to 5e-4."
        )
    if schedule.planned_steps < 30:
        found.append(
            f"Only {schedule.planned_steps} optimiser steps are planned; lower training.batchSize or raise "
            "training.epochs if the adapter learns too little."
        )
    return found


def largest_pass(prepared: Prepared, training: TrainingSpec) -> tuple[int, int]:
    """Tokens and taught tokens of the largest forward pass to expect."""
    rows = prepared.splits["train"]
    longest = sorted((len(row.ids) for row in rows), reverse=True)[: training.batch_size]
    tokens = max(longest[0], min(sum(longest), training.micro_batch_tokens))
    share = sum(row.taught for row in rows) / sum(len(row.ids) for row in rows)
    return tokens, math.ceil(tokens * share)
