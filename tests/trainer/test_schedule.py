"""The schedule as a table: when to validate, stop, extend, and how fast to learn."""

import math
from itertools import pairwise

import pytest

from finetune_api.training import EarlyStoppingSpec, TrainingSpec
from finetune_trainer.schedule import FLOOR, Schedule, State, learning_rate, next_action, validated


def run(losses: list[float], training: TrainingSpec, steps_per_epoch: int = 4) -> State:
    """Play a training whose validations give these losses (the last repeats)."""
    schedule = Schedule.of(training, steps_per_epoch)
    state, remaining = State(), list(losses)
    while (action := next_action(state, schedule, training)) != "finish":
        if action == "validate":
            state = validated(state, remaining.pop(0) if len(remaining) > 1 else remaining[0], training)
        else:
            state = State(**{**state.__dict__, "step": state.step + 1})
    return state


def falling(count: int) -> list[float]:
    return [2.0 - 0.01 * index for index in range(count)]


def test_the_base_is_validated_before_the_first_step() -> None:
    training = TrainingSpec(epochs=1)
    assert next_action(State(), Schedule.of(training, 4), training) == "validate"


def test_training_stops_after_patience_validations_without_gain_and_keeps_the_best() -> None:
    state = run([2.0, 1.5, 1.0, 1.1, 1.2, 0.1], TrainingSpec(epochs=5, validations_per_epoch=1))
    assert (state.step, state.best_step, state.best_loss) == (16, 8, 1.0)


def test_without_early_stopping_all_planned_epochs_run_and_no_more() -> None:
    training = TrainingSpec(epochs=3, early_stopping=EarlyStoppingSpec(enabled=False))
    assert run([1.0, 2.0, 3.0], training).step == 12


def test_a_loss_that_still_falls_extends_training_up_to_max_epochs() -> None:
    assert run(falling(99), TrainingSpec(epochs=3, validations_per_epoch=1)).step == 20
    assert run(falling(99), TrainingSpec(epochs=3, max_epochs=4, validations_per_epoch=1)).step == 16


def test_the_extension_ends_with_the_first_validation_that_gains_nothing() -> None:
    losses = [*falling(4), 3.0, 3.0]
    state = run(losses, TrainingSpec(epochs=3, validations_per_epoch=1))
    assert (state.step, state.best_step) == (16, 12)


def test_a_gain_smaller_than_min_delta_does_not_count() -> None:
    training = TrainingSpec(
        epochs=5, validations_per_epoch=1, early_stopping=EarlyStoppingSpec(patience=1, min_delta=0.1)
    )
    assert run([2.0, 1.95], training).best_step == 0


@pytest.mark.parametrize(("per_epoch", "want"), [(1, {10}), (2, {5, 10}), (3, {3, 7, 10}), (50, set(range(1, 11)))])
def test_validations_are_spread_over_the_epoch(per_epoch: int, want: set[int]) -> None:
    assert Schedule.of(TrainingSpec(validations_per_epoch=per_epoch), 10).validation_steps == want


def test_the_learning_rate_warms_up_decays_and_rests_at_the_floor() -> None:
    schedule = Schedule.of(TrainingSpec(epochs=10, max_epochs=20, warmup_ratio=0.1), 10)
    rates = [learning_rate(step, 1.0, schedule) for step in range(200)]
    assert rates[0] == 0.1
    assert rates[9] == max(rates) == 1.0
    assert all(later <= earlier for earlier, later in pairwise(rates[9:]))
    assert rates[100] == rates[199] == pytest.approx(FLOOR)
    assert rates[55] == pytest.approx(FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * 0.5)))


def test_a_restart_changes_no_decision() -> None:
    training, state = TrainingSpec(epochs=2), State(step=4, validated_step=2)
    schedule = Schedule.of(training, 4)
    assert (
        next_action(state, schedule, training) == next_action(State(**state.__dict__), schedule, training) == "validate"
    )
