"""manifest.json: what it names, and what a reader can trust it for."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from finetune_api.report import Manifest
from finetune_trainer.manifest import sha256_file, verify, write_manifest
from finetune_trainer.store import Store, open_store

DETAILS = Manifest(
    run_id="20261123-3f9a1c2b",
    name="clinic",
    namespace="default",
    attempt=1,
    digest="sha256:3f9a1c2b",
    created="2026-11-23T12:00:00Z",
    spec={"model": {"uri": "file://model"}},
    model_digest="sha256:01",
    dataset_fingerprint="sha256:02",
    verdict="Passed",
    versions={"torch": "2.11"},
    files=[],
)
CONTENTS = {"adapter/adapter_model.safetensors": os.urandom(5000), "data/train.parquet": b"rows", "report.json": b"{}"}


def hex_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """A run with its files, an attempt and a checkpoint, but no manifest."""
    store = open_store(f"file://{tmp_path}/run")
    for path, content in CONTENTS.items():
        store.write(path, content)
    store.write("attempts/000001.json", b"{}")
    store.write("checkpoints/step-000010/weights", b"1")
    return store


def test_the_manifest_names_every_result_with_size_and_sha256(run: Store) -> None:
    manifest = write_manifest(run, DETAILS)

    want = [(path, len(content), hex_digest(content)) for path, content in CONTENTS.items()]
    assert [(file.path, file.size, file.sha256) for file in manifest.files] == want
    stored = json.loads(run.read("manifest.json"))
    assert stored["runId"] == "20261123-3f9a1c2b"
    assert Manifest.model_validate(stored) == manifest
    assert DETAILS.files == []


def test_a_sound_run_has_no_problems_whatever_its_checkpoints_do(run: Store) -> None:
    write_manifest(run, DETAILS)
    run.delete("checkpoints")
    run.write("attempts/000002.json", b"{}")
    assert verify(run) == []


def test_known_digests_are_taken_over_and_only_the_others_read(run: Store) -> None:
    manifest = write_manifest(run, DETAILS, digests={"report.json": "known"})
    assert {file.path: file.sha256 for file in manifest.files} == {
        **{path: hex_digest(content) for path, content in CONTENTS.items()},
        "report.json": "known",
    }
    assert verify(run) == ["report.json: its content has changed (sha256 differs)"]


def test_a_run_without_manifest_is_not_complete(run: Store) -> None:
    assert verify(run) == ["no manifest.json: the run is not complete"]


def test_a_damaged_manifest_is_told(run: Store) -> None:
    run.write("manifest.json", b'{"runId": ')
    assert verify(run) == ["manifest.json is damaged"]


def test_every_kind_of_damage_is_told_by_file(run: Store) -> None:
    write_manifest(run, DETAILS)
    run.write("adapter/adapter_model.safetensors", os.urandom(5000))
    run.write("data/train.parquet", b"fewer rows"[:3])
    run.delete("report.json")
    run.write("adapter/extra.bin", b"1")

    assert verify(run) == [
        "adapter/adapter_model.safetensors: its content has changed (sha256 differs)",
        "data/train.parquet: 3 bytes instead of 4",
        "report.json: missing",
        "adapter/extra.bin: not in manifest.json",
    ]


def test_a_local_file_has_the_digest_that_the_manifest_gives_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_file(tmp_path / "file") == hex_digest(b"abc")
