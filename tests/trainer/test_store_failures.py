"""What a person reads when a store fails, and what a failure leaves behind."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune_trainer.errors import NotFound, StorageError
from finetune_trainer.store import Retries, open_store
from support.hub_server import Hub, serve_hub
from support.s3_server import S3Server

IMPATIENT = Retries(times=3, seconds=3.0, first_wait=0.1, longest_wait=0.5)
PATIENT = Retries(times=100, seconds=20.0, first_wait=0.1, longest_wait=0.5)


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of an empty bucket that the environment has the keys of."""
    s3_server.point_here(monkeypatch)
    return s3_server.make_bucket(f"bucket-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that a test may kill, with one bucket named runs."""
    server = S3Server(tmp_path / "buckets")
    server.make_bucket("runs")
    server.start()
    server.point_here(monkeypatch)
    yield server
    server.stop()


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("a file")
    with pytest.raises(StorageError, match=f"file://{tmp_path}/output: a file is where a folder is needed"):
        open_store(f"file://{tmp_path}/output").check_writable()


READ_ONLY = """
import os, sys
from finetune_trainer.errors import StorageError
from finetune_trainer.store import open_store
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    open_store(sys.argv[1]).check_writable()
except StorageError as error:
    print(error)
"""


def test_a_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)

    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, f"file://{locked}/x"], capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith(f"file://{locked}/x: permission denied; change the owner")


FULL = """
import sys
from pathlib import Path
from finetune_trainer.errors import StorageError
from finetune_trainer.store import open_store
full, source = open_store(f"file://{sys.argv[1]}"), open_store(f"file://{sys.argv[2]}")
for action in (
    lambda: full.write("weights", bytes(2**22)),
    lambda: full.create("weights", bytes(2**22)),
    lambda: full.write_file("weights", Path(sys.argv[2]) / "big"),
    lambda: source.read_file("big", Path(sys.argv[1]) / "copy"),
):
    try:
        action()
    except StorageError as error:
        print(error)
print([file.name for file in Path(sys.argv[1]).iterdir()])
"""


def test_a_full_disk_is_named_and_nothing_half_written_stays(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "big").write_bytes(bytes(2**24))
    mount = f'mount -t tmpfs -o size=1m none "{tmp_path}/full" || exit 99; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]

    done = subprocess.run(
        [*command, sys.executable, "-c", FULL, str(tmp_path / "full"), str(tmp_path)], capture_output=True, text=True
    )

    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("a small disk cannot be mounted here")
    *told, left = done.stdout.splitlines()
    assert [line.partition(": ")[2] for line in told] == [
        "the disk is full; free some space or choose another place."
    ] * 4
    assert left == "[]"


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_keys_name_the_variables_to_check(bucket: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "wrong")
    store = open_store(bucket)
    for action in (store.check_writable, store.list, lambda: store.read("a"), lambda: store.create("a", b"")):
        with pytest.raises(StorageError, match=r"refused the credentials .*check AWS_ACCESS_KEY_ID") as caught:
            action()
        assert not isinstance(caught.value, NotFound)


def test_half_of_the_keys_name_the_variables_to_set(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="no complete credentials were found; set AWS_ACCESS_KEY_ID"):
        open_store(bucket).list()


def test_an_azure_container_without_an_account_names_the_variables_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(StorageError, match=r"az://models/x: no complete credentials .* AZURE_STORAGE_ACCOUNT_NAME"):
        open_store("az://models/x")


def test_a_google_bucket_with_a_missing_key_file_names_the_variable_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(StorageError, match=r"gs://models: no complete credentials .* GOOGLE_APPLICATION_CREDENTIALS"):
        open_store("gs://models")


@pytest.mark.usefixtures("bucket")
def test_a_missing_bucket_is_named() -> None:
    store = open_store("s3://no-such-bucket/team")
    actions: list[Callable[[], object]] = [store.check_writable, store.list, lambda: store.read("a")]
    for action in actions:
        with pytest.raises(NotFound, match="the bucket s3://no-such-bucket does not exist; create it"):
            action()


def test_a_server_that_is_no_store_is_named(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    with serve_hub(Hub({})) as hub:
        monkeypatch.setenv("AWS_ENDPOINT_URL", hub.endpoint)
        with pytest.raises(StorageError, match=rf"{hub.endpoint} does not know how to write .+AWS_ENDPOINT_URL name"):
            open_store(bucket).check_writable()


def test_a_server_killed_between_writes_ends_in_a_sentence_and_leaves_no_later_file(own_server: S3Server) -> None:
    store = open_store("s3://runs/one", IMPATIENT)
    files = ["adapter/weights", "report.json", "manifest.json"]

    def write_all() -> None:
        for path in files:
            store.write(path, b"1")
            if path == "adapter/weights":
                own_server.kill()

    started = time.monotonic()
    with pytest.raises(StorageError) as caught:
        write_all()

    want = f"s3://runs/one/report.json: {own_server.endpoint} could not be reached (tried 4 times); check the address"
    assert str(caught.value).startswith(want)
    assert time.monotonic() - started < IMPATIENT.seconds + 2
    own_server.start()
    assert [file.path for file in store.list()] == ["adapter/weights"]


def test_a_server_killed_in_the_middle_of_a_large_upload_leaves_no_part_of_it(
    own_server: S3Server, tmp_path: Path
) -> None:
    store = open_store("s3://runs/one", IMPATIENT)
    local = tmp_path / "weights"
    local.write_bytes(bytes(2**27))
    parts = own_server.folder / "runs"
    caught: list[BaseException] = []

    def upload() -> None:
        try:
            store.write_file("weights", local)
        except StorageError as error:
            caught.append(error)

    uploading = threading.Thread(target=upload)
    uploading.start()
    wait_until(lambda: any(file.is_file() for file in parts.rglob("*")))
    own_server.kill()
    uploading.join()

    assert "could not be reached" in str(caught[0])
    own_server.start()
    assert store.list() == []


def test_a_server_that_comes_back_in_time_gets_the_write(own_server: S3Server) -> None:
    store = open_store("s3://runs/one", PATIENT)
    own_server.kill()
    writing = threading.Thread(target=store.write, args=("manifest.json", b"{}"))
    writing.start()
    own_server.start()
    writing.join()

    assert store.read("manifest.json") == b"{}"


def test_a_download_goes_on_where_a_restarted_server_broke_it_off(own_server: S3Server) -> None:
    store = open_store("s3://runs/one", PATIENT)
    content = os.urandom(2**20) * 64
    store.write("weights", content)
    pieces = store.stream("weights")
    got = next(pieces)

    own_server.kill()
    own_server.start()

    assert got + b"".join(pieces) == content


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll a condition; fail the test if it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
