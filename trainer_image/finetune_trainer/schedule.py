"""When to validate, when to stop and how fast to learn: pure functions of the step and what was measured."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from finetune_api.training import TrainingSpec

FLOOR = 0.1
"""Learning rate after the planned epochs, as a share of the peak."""

Action = Literal["validate", "step", "finish"]


@dataclass(frozen=True)
class Schedule:
    """The shape of a training run, fixed before it starts."""

    steps_per_epoch: int
    planned_steps: int
    max_steps: int
    warmup_steps: int
    validation_steps: frozenset[int]
    """Steps within an epoch (1 to steps_per_epoch) after which the validation loss is measured."""

    @classmethod
    def of(cls, training: TrainingSpec, steps_per_epoch: int) -> "Schedule":
        """The schedule for a dataset that takes this many steps a pass."""
        planned = training.epochs * steps_per_epoch
        marks = min(training.validations_per_epoch, steps_per_epoch)
        return cls(
            steps_per_epoch=steps_per_epoch,
            planned_steps=planned,
            max_steps=training.last_epoch * steps_per_epoch,
            warmup_steps=math.ceil(training.warmup_ratio * planned),
            validation_steps=frozenset(round(mark * steps_per_epoch / marks) for mark in range(1, marks + 1)),
        )


@dataclass(frozen=True)
class State:
    """Where training stands. Together with weights and optimiser state it decides everything that follows."""

    step: int = 0
    validated_step: int = -1
    best_step: int = 0
    best_loss: float = math.inf
    validations_without_gain: int = 0
    train_loss: tuple[tuple[int, float], ...] = field(default=())
    validation_loss: tuple[tuple[int, float], ...] = field(default=())
    tokens: int = 0
    """Tokens trained on since step 0."""


def next_action(state: State, schedule: Schedule, training: TrainingSpec) -> Action:
    """What to do now. Level-triggered: the same state always gives the same answer, whoever asks after a restart."""
    if _is_validation_step(state.step, schedule) and state.validated_step < state.step:
        return "validate"
    stopping = training.early_stopping
    if stopping.enabled and state.validations_without_gain >= stopping.patience:
        return "finish"
    if state.step >= schedule.max_steps:
        return "finish"
    if state.step >= schedule.planned_steps and not _still_falling(state, training):
        return "finish"
    return "step"


def validated(state: State, loss: float, training: TrainingSpec) -> State:
    """The state after a validation."""
    gained = loss < state.best_loss - (training.early_stopping.min_delta if math.isfinite(state.best_loss) else 0)
    return replace(
        state,
        validated_step=state.step,
        validation_loss=(*state.validation_loss, (state.step, loss)),
        best_step=state.step if gained else state.best_step,
        best_loss=loss if gained else state.best_loss,
        validations_without_gain=0 if gained else state.validations_without_gain + 1,
    )


def learning_rate(step: int, peak: float, schedule: Schedule) -> float:
    """Linear warm-up, then a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5) to FLOOR, then FLOOR.

    `step` counts from 0; the rate is the one used to make step `step + 1`.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    decay_steps = max(1, schedule.planned_steps - schedule.warmup_steps)
    done = min(1.0, (step - schedule.warmup_steps) / decay_steps)
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done)))


def _is_validation_step(step: int, schedule: Schedule) -> bool:
    if step == 0:
        return True
    return (step - 1) % schedule.steps_per_epoch + 1 in schedule.validation_steps


def _still_falling(state: State, training: TrainingSpec) -> bool:
    """Whether the planned epochs may be extended: the validation just made was the best so far."""
    return training.early_stopping.enabled and state.best_step == state.validated_step > 0
