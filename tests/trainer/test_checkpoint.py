"""Checkpoints: whole or not there."""

from pathlib import Path

import pytest
import torch

from finetune_trainer.checkpoint import Checkpoint, latest_checkpoint, remove_checkpoints, save_checkpoint
from finetune_trainer.schedule import State
from finetune_trainer.store import Store, open_store


def checkpoint(step: int) -> Checkpoint:
    weights = {"a": torch.full((2, 3), float(step)), "b": torch.ones(4, dtype=torch.bfloat16)}
    state = State(step=step, validated_step=step, best_step=step, train_loss=((1, 0.1), (2, 1 / 3)), tokens=7)
    return Checkpoint(state, weights, {"a": torch.zeros(2, 3)}, {"step/a": torch.tensor(float(step))}, 12.5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/run")


def folders(store: Store) -> list[str]:
    return sorted({file.path.split("/")[1] for file in store.list("checkpoints")})


def test_a_checkpoint_comes_back_bit_by_bit(store: Store) -> None:
    want = checkpoint(300)
    assert save_checkpoint(store, want) == "checkpoints/step-000300"
    got = latest_checkpoint(store)
    assert got is not None
    assert (got.state, got.seconds) == (want.state, 12.5)
    for mine, theirs in ((want.weights, got.weights), (want.best, got.best), (want.optimizer, got.optimizer)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) and mine[name].dtype == theirs[name].dtype for name in mine)


def test_the_newest_two_are_kept(store: Store) -> None:
    for step in (5, 10, 100, 1000):
        save_checkpoint(store, checkpoint(step))
    assert folders(store) == ["step-000100", "step-001000"]


def test_a_state_before_the_first_validation_survives(store: Store) -> None:
    save_checkpoint(store, Checkpoint(State(), {}, {}, {}, 0.0))
    got = latest_checkpoint(store)
    assert got is not None
    assert got.state == State()


@pytest.mark.parametrize("name", ["weights.safetensors", "best.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(store: Store, name: str, damage: str) -> None:
    save_checkpoint(store, checkpoint(5))
    path = f"{save_checkpoint(store, checkpoint(10))}/{name}"
    content = store.read(path)
    if damage == "missing":
        store.delete(path)
    else:
        store.write(path, content[:-1] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    got = latest_checkpoint(store)
    assert got is not None
    assert got.state.step == 5


def test_without_its_manifest_a_checkpoint_does_not_exist(store: Store) -> None:
    store.delete(f"{save_checkpoint(store, checkpoint(5))}/manifest.json")
    assert latest_checkpoint(store) is None


def test_removing_leaves_nothing(store: Store) -> None:
    save_checkpoint(store, checkpoint(5))
    remove_checkpoints(store)
    assert store.list() == []
    assert latest_checkpoint(store) is None
