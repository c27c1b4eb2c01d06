"""What a dataset, and a hub model's branch, are just now: told from names and marks, without downloading anything."""

import hashlib
import json
from pathlib import Path

from finetune_api.training import ModelSpec
from finetune_trainer.fetch import find_data
from finetune_trainer.hub import commit_of
from finetune_trainer.store import Store, StoredFile

MAIN = "main"
"""The branch that a hub dataset is read from."""
DIGITS = 16

Mark = str | int | None


def data_version(model: ModelSpec, dataset_uri: str) -> str:
    """A short digest that changes when the data files do, or when a hub points to another commit.

    It may also change when nothing did, as when a file is written anew; what decides is the digest of a run.
    Raises DataRejected, ModelNotLoadable or StorageError.
    """
    seen = json.dumps([_model_marks(model), _dataset_marks(dataset_uri)])
    return f"sha256:{hashlib.sha256(seen.encode()).hexdigest()[:DIGITS]}"


def _model_marks(model: ModelSpec) -> str | None:
    """Models in stores do not change behind their URI; branches of a hub do."""
    return commit_of(model.uri, "model", model.revision) if model.uri.startswith("hf://") else None


def _dataset_marks(uri: str) -> list[tuple[Mark, ...]]:
    if uri.startswith("hf://"):
        return [(commit_of(uri, "dataset", MAIN),)]
    store, files = find_data(uri)
    return [(file.path, file.size, _mark(store, file)) for file in files]


def _mark(store: Store, file: StoredFile) -> Mark:
    """ETag of an object, or the time of a file's last change, nanoseconds since 1970."""
    return file.etag if store.folder is None else Path(store.folder, file.path).stat().st_mtime_ns
