"""The latest version of every job, in little memory."""

import json
import tracemalloc
from typing import Any

from finetune_operator.observed import Key
from finetune_operator.shelf import Shelf
from support.moments import succeeded
from support.objects import Object, make_object

KEY = Key("clinic", "clinic-triage")


def job(version: int, **parts: Any) -> Object:
    raw = make_object(**parts)
    raw["metadata"]["resourceVersion"] = str(version)
    return raw


def test_what_is_put_can_be_got() -> None:
    shelf = Shelf()

    assert shelf.put(job(7))

    assert shelf.get(KEY) == job(7)
    assert list(shelf) == [KEY]
    assert shelf.version(KEY) == 7


def test_older_versions_never_replace_newer_ones() -> None:
    shelf = Shelf()
    shelf.put(job(10, status={"phase": "Training"}))

    assert not shelf.put(job(9, status={"phase": "Pending"}))
    assert not shelf.put(job(10, status={"phase": "Pending"}))

    assert shelf.phases() == [("clinic", "Training")]
    assert shelf.put(job(11, status={"phase": "Succeeded"}))
    assert shelf.phases() == [("clinic", "Succeeded")]


def test_versions_are_numbers_and_not_text() -> None:
    shelf = Shelf()
    shelf.put(job(9))

    assert shelf.put(job(10))


def test_a_job_that_was_deleted_is_gone() -> None:
    shelf = Shelf()
    shelf.put(job(7))

    shelf.drop(KEY)
    shelf.drop(KEY)

    assert shelf.get(KEY) is None
    assert (list(shelf), shelf.version(KEY), shelf.phases()) == ([], 0, [])


def test_a_job_of_the_same_name_may_come_back() -> None:
    shelf = Shelf()
    shelf.put(job(7))
    shelf.drop(KEY)

    assert shelf.put(job(8))


def test_a_job_without_a_status_counts_as_pending() -> None:
    shelf = Shelf()
    shelf.put(job(1))

    assert shelf.phases() == [("clinic", "Pending")]


def test_who_wrote_which_field_is_not_kept() -> None:
    shelf, raw = Shelf(), job(7)
    raw["metadata"]["managedFields"] = [{"manager": "kubectl"}]

    shelf.put(raw)

    kept = shelf.get(KEY)
    assert kept is not None
    assert "managedFields" not in kept["metadata"]
    assert "managedFields" in raw["metadata"], "what was put belongs to the watch and is not changed"


def test_what_is_got_can_be_changed_without_changing_the_shelf() -> None:
    shelf = Shelf()
    shelf.put(job(7))

    got = shelf.get(KEY)
    assert got is not None
    got["spec"].clear()

    assert shelf.get(KEY) == job(7)


def test_thousands_of_finished_jobs_fit_into_little_memory() -> None:
    raw = succeeded().raw
    shelf, count = Shelf(), 1000
    plain = len(json.dumps(raw))

    tracemalloc.start()
    for number in range(count):
        raw["metadata"] |= {"name": f"job-{number}", "resourceVersion": str(number + 1), "uid": f"uid-{number}"}
        shelf.put(raw)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert used / count < plain / 2
    assert used / count < 4096
