"""hf:// against a small hub on this machine. Each fetch is a process of its own: the client reads HF_* at its start."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hub_server import Hub, serve_hub

MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
    "modeling_custom.py": b"import os",
    "original/model.safetensors": b"again",
}
FETCH = """
import sys
from pathlib import Path
from finetune_api.training import ModelSpec
from finetune_trainer.errors import RunError
from finetune_trainer.fetch import fetch_dataset, fetch_model
kind, uri, revision, cache = sys.argv[1:]
try:
    if kind == "dataset":
        data = fetch_dataset(uri, Path(cache))
        print(data.fingerprint, *[file.read_text() for file in data.files])
    else:
        folder = fetch_model(ModelSpec(uri=uri, revision=revision), Path(cache), weights=kind == "model")
        print(*sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
except RunError as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with a model, a dataset, a gated model, and a model of pickled weights."""
    repositories = {
        "models/team/base": MODEL,
        "models/team/gated": MODEL,
        "models/team/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
        "models/team/prose": {"README.md": b"words"},
        "datasets/team/triage": {
            "data/b.jsonl": b"two",
            "a.jsonl": b"one",
            "README.md": b"",
            "dataset_infos.json": b"",
        },
        "datasets/team/prose": {"README.md": b"words"},
    }
    with serve_hub(Hub(repositories, gated={"models/team/gated"})) as served:
        yield served


def fetch(endpoint: str, folder: Path, kind: str, uri: str, revision: str = "main") -> str:
    """What a fetching process prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, kind, uri, revision, str(folder / "cache")],
        env=environment | {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hub_model_comes_without_anything_that_could_be_code(hub: Hub, tmp_path: Path) -> None:
    assert fetch(hub.endpoint, tmp_path, "tokenizer", "hf://team/base") == "config.json tokenizer.json"
    assert sorted(hub.sent) == ["config.json", "tokenizer.json"]

    assert fetch(hub.endpoint, tmp_path, "model", "hf://team/base") == "config.json model.safetensors tokenizer.json"
    assert sorted(hub.sent) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_hub_model_that_was_fetched_before_needs_no_hub(hub: Hub, tmp_path: Path) -> None:
    want = fetch(hub.endpoint, tmp_path, "model", "hf://team/base")
    assert fetch("http://127.0.0.1:1", tmp_path, "model", "hf://team/base") == want


def test_a_hub_dataset_is_its_data_files_in_order(hub: Hub, tmp_path: Path) -> None:
    for name, content in {"a.jsonl": "one", "data/b.jsonl": "two"}.items():
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_text(content)

    got = fetch(hub.endpoint, tmp_path, "dataset", "hf://team/triage")

    assert got.endswith(" one two")
    assert got == fetch(hub.endpoint, tmp_path, "dataset", f"file://{tmp_path}/local")


@pytest.mark.parametrize(
    ("kind", "uri", "revision", "want"),
    [
        ("model", "hf://team/nothing", "main", "ModelNotLoadable: hf://team/nothing does not exist on the hub, or is"),
        ("model", "hf://team/gated", "main", "ModelNotLoadable: hf://team/gated is gated: accept its terms"),
        ("model", "hf://team/base", "v9", "ModelNotLoadable: hf://team/base has no revision v9."),
        ("model", "hf://team/pickled", "main", "ModelNotLoadable: hf://team/pickled holds no safetensors weights"),
        ("model", "hf://team/prose", "main", "ModelNotLoadable: hf://team/prose is no model: it holds no config.json."),
        ("model", "hf://team/base/file", "main", "ModelNotLoadable: hf://team/base/file is no hub repository"),
        ("model", "hf://te--am/..base", "main", "ModelNotLoadable: hf://te--am/..base is no hub repository"),
        ("dataset", "hf://team/nothing", "main", "DataRejected: hf://team/nothing does not exist on the hub"),
        ("dataset", "hf://team/prose", "main", "DataRejected: hf://team/prose does not exist or holds no data file"),
    ],
)
def test_what_a_hub_does_not_give_is_told_in_a_sentence(
    hub: Hub, tmp_path: Path, kind: str, uri: str, revision: str, want: str
) -> None:
    assert fetch(hub.endpoint, tmp_path, kind, uri, revision).startswith(want)


def test_a_hub_that_cannot_be_reached_is_a_matter_of_storage(tmp_path: Path) -> None:
    want = "StorageError: hf://team/base is not in this machine's hub cache, and the hub cannot be reached."
    assert fetch("http://127.0.0.1:1", tmp_path, "model", "hf://team/base") == want
