"""Which run a manifest belongs to: when a hub's branch moves on, and when it comes back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.run import ExitCode
from finetune_trainer.store import Store, open_store
from support.cli import QUICK, finetune, triage, write_job, write_records
from support.cli import make_job as make_quick_job
from support.hub_server import COMMIT, Hub, serve_hub
from support.jobs import SURE, make_job, write_dataset
from support.rows import echo_rows
from support.stages import run_stage

NEXT_COMMIT = "f" * 40


@pytest.fixture
def hub(tiny_llama: Path) -> Iterator[Hub]:
    """A hub with the tiny model."""
    with serve_hub(Hub({"models/team/base": {file.name: file.read_bytes() for file in tiny_llama.iterdir()}})) as hub:
        yield hub


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    return make_job(
        "hf://team/base", write_dataset(tmp_path / "rows.jsonl", echo_rows(60)), tmp_path / "out", evaluation=SURE
    )


def revision(store: Store, run: str) -> str:
    """The commit of the base model that a run was told to use."""
    return str(json.loads(store.read(f"runs/{run}/config.json"))["model"]["revision"])


def test_a_branch_that_moves_on_is_a_new_run_and_a_begun_run_keeps_its_commit(
    hub: Hub, job: dict[str, Any], tmp_path: Path
) -> None:
    here = {"HF_ENDPOINT": hub.endpoint, "NO_PROXY": "127.0.0.1"}
    store = open_store(f"file://{tmp_path}/out/tests/tiny")
    first = run_stage(job, tmp_path, "prepare", **here).report
    assert revision(store, first.run_id) == COMMIT
    job["spec"]["model"]["revision"] = COMMIT
    assert run_stage(job, tmp_path, "prepare", **here).report.run_id == first.run_id
    del job["spec"]["model"]["revision"]

    hub.commits.append(NEXT_COMMIT)
    second = run_stage(job, tmp_path, "prepare", **here).report
    assert revision(store, second.run_id) == NEXT_COMMIT
    assert (first.digest, first.data_version) != (second.digest, second.data_version)

    ended = run_stage(job, tmp_path, "run", "--run-id", first.run_id, "--digest", first.digest, **here)
    assert ended.code == ExitCode.DONE, ended.log
    report = json.loads(store.read(f"runs/{first.run_id}/report.json"))
    assert report["model"]["revision"] == COMMIT
    weights = (tmp_path / "cache").rglob("model.safetensors")
    assert [path.parent.name for path in weights] == [COMMIT]


def test_going_back_to_an_earlier_manifest_on_a_laptop_makes_its_adapter_current_again(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    data = write_records(tmp_path / "rows.jsonl", triage(80))
    first, second = (
        write_job(
            tmp_path / f"{seed}.yaml",
            make_quick_job(tiny_llama, data, tmp_path / "out", training=QUICK["training"] | {"seed": seed}),
        )
        for seed in (1, 2)
    )
    pointer = tmp_path / "out" / "default" / "triage" / "current.json"
    ran = []
    for manifest in (first, second, first):
        ended = finetune("run", manifest)
        assert ended.code == 0, ended.err
        ran.append(json.loads(pointer.read_text())["runId"])
    assert ran[0] == ran[2] != ran[1]
    assert "Nothing to do" in ended.err
