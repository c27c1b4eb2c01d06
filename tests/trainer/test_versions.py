"""What a look at the data tells, for files, buckets and hubs: changes are seen, and nothing is downloaded."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.training import ModelSpec
from finetune_trainer.errors import DataRejected
from finetune_trainer.store import open_store
from finetune_trainer.versions import data_version
from support.hub_server import Hub, serve_hub
from support.s3_server import S3Server

LOCAL = ModelSpec(uri="file:///models/base")
LOOK = """
import sys
from finetune_api.training import ModelSpec
from finetune_trainer.errors import RunError
from finetune_trainer.versions import data_version
model, dataset = sys.argv[1:]
try:
    print(data_version(ModelSpec(uri=model), dataset))
except RunError as error:
    print(f"{type(error).__name__}: {error}")
"""


def version(uri: str) -> str:
    return data_version(LOCAL, uri)


def test_a_version_is_short_and_stays_while_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    want = version(f"file://{tmp_path}")
    assert want.startswith("sha256:")
    assert len(want) == len("sha256:") + 16
    assert version(f"file://{tmp_path}") == want


def test_new_bytes_of_the_same_number_are_seen_by_the_time_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("one")
    os.utime(file, (0, 1_000_000_000))
    want = version(f"file://{file}")
    file.write_text("two")
    assert version(f"file://{file}") != want


def test_only_data_files_count_but_each_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    want = version(f"file://{tmp_path}")
    (tmp_path / "README.md").write_text("words")
    assert version(f"file://{tmp_path}") == want
    (tmp_path / "b.parquet").write_text("more")
    assert version(f"file://{tmp_path}") != want


def test_a_claim_is_looked_at_where_it_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_PVC_ROOT", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("{}")
    assert version("pvc://data/rows.jsonl") == version("pvc://data/rows.jsonl")
    with pytest.raises(DataRejected, match=r"pvc://data/none\.jsonl does not exist"):
        version("pvc://data/none.jsonl")


def test_a_bucket_is_looked_at_by_etag(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_server.point_here(monkeypatch)
    store = open_store(s3_server.make_bucket(f"bucket-{uuid.uuid4().hex[:12]}"))
    store.write("in/rows.jsonl", b"one")
    single, folder = version(store.uri_of("in/rows.jsonl")), version(store.uri_of("in"))
    store.write("in/rows.jsonl", b"one")
    assert (version(store.uri_of("in/rows.jsonl")), version(store.uri_of("in"))) == (single, folder)
    store.write("in/rows.jsonl", b"two")
    assert single != version(store.uri_of("in/rows.jsonl"))
    assert folder != version(store.uri_of("in"))


@pytest.fixture
def hub() -> Iterator[Hub]:
    repositories = {"models/team/base": {"config.json": b"{}"}, "datasets/team/rows": {"rows.jsonl": b"{}"}}
    with serve_hub(Hub(repositories)) as served:
        yield served


def look(endpoint: str, folder: Path, model: str, dataset: str) -> str:
    """What a looking process prints: the hub's client reads its settings when it is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, model, dataset],
        env=environment | {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("model", "dataset"), [("hf://team/base", "file"), ("file:///m", "hf://team/rows")])
def test_a_hub_is_asked_for_the_commit_and_for_no_file(model: str, dataset: str, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    dataset = dataset if "://" in dataset else f"file://{tmp_path}/rows.jsonl"
    want = look(hub.endpoint, tmp_path, model, dataset)
    assert want.startswith("sha256:")
    assert look(hub.endpoint, tmp_path, model, dataset) == want
    hub.commits.append("f" * 40)
    assert look(hub.endpoint, tmp_path, model, dataset) != want
    assert hub.sent == []


@pytest.mark.parametrize(
    ("model", "dataset", "want"),
    [
        (
            "hf://team/none",
            "hf://team/rows",
            "ModelNotLoadable: hf://team/none does not exist on the hub, or is private",
        ),
        ("hf://team/base", "hf://team/none", "DataRejected: hf://team/none does not exist on the hub, or is private"),
        ("hf://team/base/x", "hf://team/rows", "ModelNotLoadable: hf://team/base/x is no hub repository"),
    ],
)
def test_what_is_not_on_the_hub_is_a_sentence(model: str, dataset: str, want: str, hub: Hub, tmp_path: Path) -> None:
    assert look(hub.endpoint, tmp_path, model, dataset).startswith(want)


def test_a_hub_that_cannot_be_reached_is_a_matter_of_storage(tmp_path: Path) -> None:
    got = look("http://127.0.0.1:1", tmp_path, "hf://team/base", "hf://team/rows")
    assert got.startswith("StorageError: hf://team/base could not be read: ")
