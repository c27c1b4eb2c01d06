"""Stores: what holds for folders and for a real S3 server alike."""

import os
import shutil
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from finetune_trainer.errors import InvalidConfig, NotFound
from finetune_trainer.store import Store, open_store
from support.s3_server import S3Server


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of an empty bucket that the environment has the keys of."""
    s3_server.point_here(monkeypatch)
    return s3_server.make_bucket(f"bucket-{uuid.uuid4().hex[:12]}")


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of either kind."""
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/output/team")
    return open_store(f"{request.getfixturevalue('bucket')}/team")


def test_what_is_written_is_read_listed_and_deleted(store: Store) -> None:
    store.write("runs/one/report.json", b"{}")
    store.write("runs/one/adapter/weights", b"abc")
    store.write("runs/one-more", b"x")

    assert store.read("runs/one/adapter/weights") == b"abc"
    assert b"".join(store.stream("runs/one/adapter/weights")) == b"abc"
    assert [(file.path, file.size) for file in store.list("runs/one")] == [
        ("runs/one/adapter/weights", 3),
        ("runs/one/report.json", 2),
    ]
    assert len(store.list()) == 3

    store.delete("runs/one")

    assert [file.path for file in store.list()] == ["runs/one-more"]


def test_one_object_is_deleted_by_its_path_and_a_missing_one_is_no_error(store: Store) -> None:
    store.write("a", b"1")
    store.write("b", b"2")

    store.delete("a")
    store.delete("a")

    assert not store.exists("a")
    assert store.exists("b")


def test_a_store_below_a_store_sees_only_its_own_files(store: Store) -> None:
    run = store.under("default/clinic").under("runs/1")
    run.write("manifest.json", b"{}")
    store.write("other", b"")

    assert run.uri == f"{store.uri}/default/clinic/runs/1"
    assert run.uri_of("manifest.json") == f"{run.uri}/manifest.json"
    assert [file.path for file in run.list()] == ["manifest.json"]
    assert store.read("default/clinic/runs/1/manifest.json") == b"{}"


def test_an_etag_changes_with_the_content(store: Store) -> None:
    store.write("a", b"1")
    before = store.list()[0]
    store.write("a", b"22")

    assert store.stat("a") == store.list()[0]
    assert store.list()[0].etag != before.etag
    assert store.stat("b") is None


def test_of_many_creators_exactly_one_wins(store: Store) -> None:
    won: list[int] = []
    creators = [
        threading.Thread(target=lambda n=n: won.append(n) if store.create("attempt", b"%d" % n) else None)
        for n in range(8)
    ]
    for creator in creators:
        creator.start()
    for creator in creators:
        creator.join()

    assert len(won) == 1
    assert store.read("attempt") == b"%d" % won[0]


CREATE_TWICE = """
import sys
from finetune_trainer.store import open_store
store = open_store(sys.argv[1])
print(store.create("attempt", b"1"), store.create("attempt", b"2"), store.read("attempt"), len(store.list()))
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace plays the volume without hard links")
@pytest.mark.parametrize("failure", ["EPERM", "EOPNOTSUPP", "ENOSYS"])
def test_create_only_holds_on_a_volume_without_hard_links(tmp_path: Path, failure: str) -> None:
    strace = ["strace", "-f", "-o", str(tmp_path / "log"), "-e", "trace=linkat", "-e", f"inject=linkat:error={failure}"]
    done = subprocess.run(
        [*strace, sys.executable, "-c", CREATE_TWICE, f"file://{tmp_path}/volume"],
        capture_output=True,
        text=True,
    )
    if done.stderr.startswith("strace:"):
        pytest.skip("processes may not be traced here")
    assert failure in (tmp_path / "log").read_text()
    assert done.stdout == "True False b'1' 1\n"


def test_a_missing_object_is_not_found_by_its_uri(store: Store, tmp_path: Path) -> None:
    for read in (
        store.read,
        lambda path: store.read_file(path, tmp_path / "copy"),
        lambda path: list(store.stream(path)),
    ):
        with pytest.raises(NotFound, match=f"{store.uri}/nothing does not exist"):
            read("nothing")
    assert store.list("nothing") == []
    assert not (tmp_path / "copy").exists()


def test_a_large_file_travels_in_parts_and_arrives_whole(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "weights.safetensors"
    local.write_bytes(os.urandom(2**20) * 40)

    store.write_file("adapter/weights.safetensors", local)
    store.read_file("adapter/weights.safetensors", tmp_path / "back" / "weights.safetensors")

    assert (tmp_path / "back" / "weights.safetensors").read_bytes() == local.read_bytes()
    assert os.listdir(tmp_path / "back") == ["weights.safetensors"]


def test_large_bytes_arrive_whole(store: Store) -> None:
    content = os.urandom(2**20) * 11
    store.write("optimizer.pt", content)
    assert store.read("optimizer.pt") == content


def test_a_store_that_can_be_written_passes_the_check_and_keeps_no_trace(store: Store) -> None:
    store.check_writable()
    assert store.list() == []


def test_opening_a_folder_creates_nothing(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/a/b")
    assert store.list() == []
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("uri", ["file://out/x", "file://./out/x", "file://./out/x/"])
def test_a_relative_folder_lies_below_the_working_directory(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_store(uri).write("file", b"1")
    assert (tmp_path / "out" / "x" / "file").read_bytes() == b"1"


def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = open_store(f"file://{tmp_path}/link")
    store.write("a/b", b"1")
    assert [file.path for file in store.list()] == ["a/b"]
    assert (tmp_path / "real" / "a" / "b").exists()


def test_a_volume_is_the_folder_where_its_claim_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_PVC_ROOT", str(tmp_path))
    (tmp_path / "models").mkdir()

    open_store("pvc://models/base").write("config.json", b"{}")

    assert (tmp_path / "models" / "base" / "config.json").exists()
    with pytest.raises(NotFound, match="the volume of claim other is not mounted at"):
        open_store("pvc://other/base")
    with pytest.raises(InvalidConfig, match="leaves its volume"):
        open_store("pvc://models/../../etc")


def test_half_written_files_are_not_listed_and_are_deleted_with_their_folder(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    store.write("step-1/weights", b"1")
    (tmp_path / "step-1" / "weights#1").write_bytes(b"left by a crash")

    assert [file.path for file in store.list()] == ["step-1/weights"]
    store.delete("step-1")
    assert not (tmp_path / "step-1").exists()


def test_a_scheme_that_is_no_store_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="hf:// is not a store"):
        open_store("hf://owner/name")
