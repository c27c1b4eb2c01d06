"""Fencing: one process writes to a run, a dead one is replaced at once, a stale one stops."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from finetune_trainer.attempts import (
    Attempt,
    Holder,
    Record,
    claim,
    current_holder,
    is_alive,
    newest_number,
    parse_holder,
)
from finetune_trainer.errors import StorageError
from finetune_trainer.store import Store, open_store
from support.s3_server import S3Server

HOLD = """
import sys, time
from finetune_trainer.attempts import claim
from finetune_trainer.store import open_store
attempt = claim(open_store(sys.argv[1]), beat_seconds=0.1)
print(attempt.number, flush=True)
sys.stdin.read()
attempt.end()
"""
ELSEWHERE = Holder("other-node@00000000", 7, 1_700_000_000.0)


@pytest.fixture(params=["folder", "bucket"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty run in either kind of store."""
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/runs/one")
    server: S3Server = request.getfixturevalue("s3_server")
    server.point_here(monkeypatch)
    return open_store(f"{server.make_bucket(f'bucket-{uuid.uuid4().hex[:12]}')}/runs/one")


@pytest.fixture
def holder(run: Store) -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed attempt 1 and works until its input closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, run.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    yield process
    process.kill()
    process.communicate()


def stored(run: Store, number: int) -> Record:
    return Record.model_validate_json(run.read(f"attempts/{number:06d}.json"))


def write_record(run: Store, record: Record) -> None:
    run.write(f"attempts/{record.attempt:06d}.json", record.model_dump_json().encode())


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll a condition; fail the test if it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_attempts_count_up_and_say_when_they_end(run: Store) -> None:
    assert newest_number(run) == 0
    for number in (1, 2):
        with claim(run) as attempt:
            assert attempt.number == number
            attempt.check()
            assert not stored(run, number).ended
        assert stored(run, number).ended


def test_an_attempt_is_stored_in_plain_words(run: Store) -> None:
    with claim(run):
        content = json.loads(run.read("attempts/000001.json"))
    assert content == {"attempt": 1, "holder": str(current_holder()), "beat": 0, "ended": False}
    assert parse_holder(content["holder"]).pid == os.getpid()


def test_a_living_process_keeps_others_out(run: Store, holder: subprocess.Popen[str]) -> None:
    want = rf"Another run \(host .+, process {holder.pid}, attempt 1\) is writing to {run.uri}; wait for it or stop it"
    with pytest.raises(StorageError, match=want):
        claim(run)
    assert newest_number(run) == 1


def test_a_living_process_beats(run: Store, holder: subprocess.Popen[str]) -> None:
    wait_until(lambda: stored(run, 1).beat >= 2)
    assert holder.poll() is None


def test_a_killed_process_is_replaced_at_once(run: Store, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with claim(run) as attempt:
        assert attempt.number == 2
    assert time.monotonic() - started < 5


def test_a_killed_process_that_nobody_has_waited_for_is_dead(run: Store, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    wait_until(lambda: psutil.Process(holder.pid).status() == psutil.STATUS_ZOMBIE)
    with claim(run) as attempt:
        assert attempt.number == 2


def test_a_process_that_ended_in_order_is_followed_at_once(run: Store, holder: subprocess.Popen[str]) -> None:
    holder.communicate("")
    with claim(run) as attempt:
        assert attempt.number == 2


def test_a_process_that_inherited_the_number_of_the_holder_is_not_the_holder(run: Store) -> None:
    earlier = Holder(current_holder().machine, os.getpid(), current_holder().start - 3600)
    write_record(run, Record(attempt=1, holder=str(earlier)))
    with claim(run) as attempt:
        assert attempt.number == 2


def test_a_silent_holder_on_another_machine_is_replaced_after_patience(run: Store) -> None:
    write_record(run, Record(attempt=1, holder=str(ELSEWHERE), beat=3))
    started = time.monotonic()
    with claim(run, patience=0.5) as attempt:
        assert attempt.number == 2
    assert time.monotonic() - started >= 0.5


def test_a_beating_holder_on_another_machine_keeps_others_out(run: Store) -> None:
    record = Record(attempt=1, holder=str(ELSEWHERE))
    write_record(run, record)
    stop = threading.Event()

    def beat() -> None:
        for number in range(1, 1000):
            write_record(run, record.model_copy(update={"beat": number}))
            if stop.wait(0.2):
                return

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(StorageError, match=r"host other-node, process 7, attempt 1"):
            claim(run, patience=20)
    finally:
        stop.set()
        beating.join()


def test_a_holder_on_another_machine_that_ends_while_watched_is_followed_at_once(run: Store) -> None:
    record = Record(attempt=1, holder=str(ELSEWHERE))
    write_record(run, record)
    ending = threading.Timer(0.3, write_record, (run, record.model_copy(update={"ended": True})))
    ending.start()
    started = time.monotonic()
    assert not is_alive(run, record, patience=20)
    assert time.monotonic() - started < 10
    ending.join()


def test_a_process_that_was_replaced_must_not_go_on(run: Store) -> None:
    with claim(run) as stale:
        write_record(run, Record(attempt=2, holder=str(ELSEWHERE)))
        with pytest.raises(StorageError, match=f"Attempt 2 has taken over {run.uri}; attempt 1 stops"):
            stale.check()


def test_of_claims_made_at_once_one_wins(run: Store) -> None:
    won: list[Attempt] = []
    refused: list[str] = []
    start = threading.Barrier(4)

    def attempt() -> None:
        start.wait()
        try:
            won.append(claim(run))
        except StorageError as error:
            refused.append(str(error))

    claimants = [threading.Thread(target=attempt) for _ in range(4)]
    for claimant in claimants:
        claimant.start()
    for claimant in claimants:
        claimant.join()

    assert [attempt.number for attempt in won] == [1]
    won[0].end()
    assert len(refused) == 3
    assert all("is writing to" in text for text in refused)


def test_a_torn_record_of_a_crashed_machine_does_not_block(run: Store) -> None:
    run.write("attempts/000001.json", b"")
    with claim(run) as attempt:
        assert attempt.number == 2


def test_a_vanished_store_does_not_turn_the_end_of_an_attempt_into_a_failure(tmp_path: Path) -> None:
    with claim(open_store(f"file://{tmp_path}/run")):
        (tmp_path / "run").rename(tmp_path / "moved")
        (tmp_path / "run").write_text("a file")
