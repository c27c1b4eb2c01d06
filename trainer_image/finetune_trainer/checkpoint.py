"""Checkpoints in the store: written whole or not at all, verified before they are used.

A checkpoint is a folder checkpoints/step-000300/ of safetensors and a state.json; its manifest.json, with the sha256
of each file, is written last. Without it, or when a hash differs, the checkpoint does not exist.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from finetune_trainer.errors import NotFound
from finetune_trainer.schedule import State
from finetune_trainer.store import Store

FOLDER = "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """Everything needed to go on exactly: dropout and row order are functions of the seed and the step."""

    state: State
    weights: dict[str, Tensor]
    best: dict[str, Tensor]
    """Weights at state.best_step."""
    optimizer: dict[str, Tensor]
    seconds: float
    """Time spent on training steps so far, by all attempts."""


def save_checkpoint(store: Store, checkpoint: Checkpoint, keep: int = 2) -> str:
    """Write a checkpoint, then remove all but the newest `keep`. Returns its folder."""
    folder = f"{FOLDER}/step-{checkpoint.state.step:06d}"
    store.delete(f"{folder}/manifest.json")
    files = {
        "weights.safetensors": save(checkpoint.weights),
        "best.safetensors": save(checkpoint.best),
        "optimizer.safetensors": save(checkpoint.optimizer),
        "state.json": json.dumps({"state": asdict(checkpoint.state), "seconds": checkpoint.seconds}).encode(),
    }
    for name, content in files.items():
        store.write(f"{folder}/{name}", content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    store.write(f"{folder}/manifest.json", json.dumps(digests).encode())
    for stale in _complete(store)[keep:]:
        store.delete(stale)
    return folder


def latest_checkpoint(store: Store) -> Checkpoint | None:
    """The newest checkpoint that is complete and sound."""
    for folder in _complete(store):
        files = _read_verified(store, folder)
        if files is not None:
            written = json.loads(files["state.json"])
            return Checkpoint(
                state=_state(written["state"]),
                seconds=written["seconds"],
                weights=load(files["weights.safetensors"]),
                best=load(files["best.safetensors"]),
                optimizer=load(files["optimizer.safetensors"]),
            )
    return None


def remove_checkpoints(store: Store) -> None:
    """Remove all checkpoints: once a run is published nothing resumes from them."""
    store.delete(FOLDER)


def _complete(store: Store) -> list[str]:
    """Folders with a manifest, newest first."""
    marks = [file.path for file in store.list(FOLDER) if file.path.endswith("/manifest.json")]
    return sorted((path.rsplit("/", 1)[0] for path in marks), reverse=True)


def _read_verified(store: Store, folder: str) -> dict[str, bytes] | None:
    try:
        digests: dict[str, str] = json.loads(store.read(f"{folder}/manifest.json"))
        files = {name: store.read(f"{folder}/{name}") for name in digests}
    except (NotFound, ValueError):
        return None
    sound = all(hashlib.sha256(content).hexdigest() == digests[name] for name, content in files.items())
    return files if sound else None


def _state(values: dict[str, Any]) -> State:
    curves = {name: tuple(map(tuple, values[name])) for name in ("train_loss", "validation_loss")}
    return State(**{**values, **curves})
