"""The queue of jobs to look at: each once, by one worker at a time, in the end always."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from finetune_operator import work_queue
from finetune_operator.observed import Key
from finetune_operator.work_queue import LONGEST_WAIT, WorkQueue

A, B = Key("clinic", "a"), Key("clinic", "b")
SOON = 5.0
"""Seconds within which something that is due must have come."""
NEVER = 0.05
"""Seconds after which something that is not due would have come."""


def now() -> datetime:
    return datetime.now(UTC)


def in_ms(milliseconds: float) -> datetime:
    return now() + timedelta(milliseconds=milliseconds)


@pytest.fixture
def queue() -> WorkQueue:
    return WorkQueue(now)


async def take(queue: WorkQueue, seconds: float = SOON) -> Key | None:
    """The next key, or None if there is none in time."""
    try:
        return await asyncio.wait_for(queue.take(), seconds)
    except TimeoutError:
        return None


@pytest.mark.asyncio
async def test_keys_come_in_their_order_and_each_once(queue: WorkQueue) -> None:
    for key in (A, B, A, A):
        queue.add(key)

    assert len(queue) == 2
    assert [await take(queue), await take(queue), await take(queue, NEVER)] == [A, B, None]


@pytest.mark.asyncio
async def test_a_key_is_not_given_to_two_workers_at_once(queue: WorkQueue) -> None:
    queue.add(A)
    assert await take(queue) == A

    queue.add(A)
    queue.add_soon(A)
    assert await take(queue, NEVER) is None
    assert (len(queue), queue.idle) == (1, False)
    queue.done(A, None)

    assert await take(queue) == A
    queue.done(A, None)
    assert await take(queue, 0.3) is None
    assert queue.idle


@pytest.mark.asyncio
async def test_a_key_comes_again_at_its_time(queue: WorkQueue) -> None:
    queue.add(A)
    await take(queue)
    planned = in_ms(80)

    queue.done(A, planned)

    assert await take(queue) == A
    assert now() >= planned - timedelta(milliseconds=5)


@pytest.mark.asyncio
async def test_a_time_that_has_passed_means_at_once(queue: WorkQueue) -> None:
    queue.add(A)
    await take(queue)

    queue.done(A, in_ms(-5000))

    assert await take(queue) == A


@pytest.mark.asyncio
async def test_the_latest_plan_counts(queue: WorkQueue) -> None:
    queue.add(A)
    await take(queue)
    queue.done(A, in_ms(50))
    queue.add(A)
    await take(queue)

    queue.done(A, None)

    assert await take(queue, 0.2) is None


@pytest.mark.asyncio
async def test_an_event_does_not_wait_for_a_time_far_off(queue: WorkQueue) -> None:
    queue.add(A)
    await take(queue)
    queue.done(A, in_ms(3_600_000))

    queue.add_soon(A)

    assert await take(queue) == A


@pytest.mark.asyncio
async def test_many_events_in_a_moment_are_one_look(queue: WorkQueue) -> None:
    for _ in range(50):
        queue.add_soon(A)

    assert await take(queue) == A
    queue.done(A, None)
    assert await take(queue, 0.3) is None


@pytest.mark.asyncio
async def test_a_step_on_the_way_is_looked_at_in_the_end(queue: WorkQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_queue, "LEISURE", 0.3)
    queue.add(A)
    await take(queue)
    queue.add_at_leisure(A)  # while it is being looked at
    queue.done(A, in_ms(3_600_000))

    assert await take(queue, 0.2) is None
    assert await take(queue) == A


@pytest.mark.asyncio
async def test_steps_of_a_crowd_wait_longer_and_news_overtakes_them(queue: WorkQueue) -> None:
    for number in range(300):
        queue.add_at_leisure(Key("crowd", str(number)))
    queue.add_at_leisure(A)

    assert await take(queue, 0.2) is None
    queue.add_soon(A)
    assert await take(queue) == A


@pytest.mark.asyncio
async def test_events_that_never_stop_do_not_put_off_the_look(queue: WorkQueue) -> None:
    async def chatter() -> None:
        while True:
            queue.add_soon(A)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(chatter())
    try:
        assert await take(queue, 2.0) == A
    finally:
        task.cancel()


@pytest.mark.asyncio
async def test_an_event_during_a_look_is_looked_at_afterwards_whatever_the_look_planned(queue: WorkQueue) -> None:
    for planned in (None, in_ms(3_600_000)):
        queue.add(A)
        await take(queue)
        queue.add_soon(A)
        queue.done(A, planned)

        assert await take(queue) == A
        queue.done(A, None)


@pytest.mark.asyncio
async def test_after_a_failure_a_key_comes_again(queue: WorkQueue) -> None:
    queue.add(A)
    await take(queue)

    queue.failed(A)

    assert await take(queue, NEVER) is None
    assert await take(queue) == A


@pytest.mark.asyncio
async def test_waits_after_failures_grow_end_and_start_anew(queue: WorkQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def note(delay: float, *rest: object) -> asyncio.TimerHandle:
        waits.append(delay)
        return call_later(3600, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_later", note)
    for _ in range(2000):
        queue.failed(A)
    queue.done(A, None)
    queue.failed(A)

    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[1999] == max(waits) == LONGEST_WAIT
    assert waits[2000] == 1.0
    queue.forget(A)


@pytest.mark.asyncio
async def test_a_job_that_is_gone_is_not_waited_for(queue: WorkQueue) -> None:
    queue.add(A)
    await take(queue)
    queue.done(A, in_ms(50))

    queue.forget(A)

    assert await take(queue, 0.2) is None


@pytest.mark.asyncio
async def test_several_workers_share_the_keys(queue: WorkQueue) -> None:
    looked: list[Key] = []
    busy: set[Key] = set()

    async def work() -> None:
        while True:
            key = await queue.take()
            assert key not in busy
            busy.add(key)
            await asyncio.sleep(0.001)
            busy.discard(key)
            looked.append(key)
            queue.done(key, None)

    workers = [asyncio.create_task(work()) for _ in range(8)]
    keys = [Key("clinic", str(number)) for number in range(50)]
    for _ in range(3):
        for key in keys:
            queue.add(key)
        await asyncio.sleep(0.002)
    async with asyncio.timeout(SOON):
        while not queue.idle:
            await asyncio.sleep(0.005)
    for worker in workers:
        worker.cancel()

    assert set(looked) == set(keys)
    assert all(worker.cancelled() or not worker.done() for worker in workers)
