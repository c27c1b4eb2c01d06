"""Has the data changed? When it is looked at, and what follows."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_api.run import ExitCode
from finetune_api.status import RetrainStatus
from support.objects import failed_report
from support.world import World

WATCHED = {"onDatasetChange": True, "checkIntervalSeconds": 600}
ONE_RUN = ["prepare-1", "train-1"]


def finished(retrain: dict[str, Any] = WATCHED, **spec: Any) -> World:
    world = World(retrain=retrain, **spec)
    world.finish_run()
    return world


def known(world: World) -> RetrainStatus:
    assert world.status.retrain is not None
    return world.status.retrain


def looks(world: World) -> int:
    return sum(name.startswith("check-") for name in world.made)


def test_nobody_looks_at_the_data_unless_asked_to() -> None:
    world = finished({})

    world.pass_time(days=30)

    assert world.made == ONE_RUN


def test_the_first_run_tells_what_the_data_was() -> None:
    assert known(finished()).data_version == "v1"


def test_the_data_is_looked_at_once_per_interval() -> None:
    world = finished()
    world.pass_time(seconds=599)
    assert looks(world) == 0

    for number in range(1, 4):
        world.pass_time(seconds=1 if number == 1 else 600)
        assert looks(world) == number
        world.finish_check()
        assert world.children.checking is None

    assert known(world).last_check_time == world.now
    assert len(world.made) == len(ONE_RUN) + 3, "unchanged data starts nothing"
    assert world.phase == "Succeeded"


def test_new_data_starts_a_run_that_knows_it() -> None:
    world = finished()
    world.data = "v2"

    world.pass_time(seconds=600)
    world.finish_check()
    assert world.status.run is not None
    assert world.status.run.trigger == "DatasetChanged"
    world.finish_run()

    assert world.phase == "Succeeded"
    assert known(world).data_version == "v2"
    world.pass_time(seconds=600)
    world.finish_check()
    assert len(world.status.history) == 1


def test_data_that_changes_while_a_run_reads_it_is_noticed_afterwards() -> None:
    world = World(retrain=WATCHED)
    world.settle()
    world.finish_stage()
    world.data = "v2"
    world.run_pod()
    report = world.speak(world.active).model_copy(update={"data_version": None})
    world.end_pod(report)
    assert known(world).data_version == "v1"

    world.pass_time(seconds=600)
    world.finish_check()

    assert world.status.run is not None
    assert world.status.run.trigger == "DatasetChanged"


def test_a_look_that_fails_is_explained_and_starts_nothing() -> None:
    world = finished()
    world.pass_time(seconds=600)

    world.finish_check(code=1)
    assert known(world).check_message == "The trainer ended unexpectedly with exit code 1."
    assert (world.phase, known(world).data_version) == ("Succeeded", "v1")
    assert world.children.checking is None
    world.pass_time(seconds=600)
    world.finish_check()

    assert known(world).check_message is None
    assert world.made[:2] == ONE_RUN
    assert looks(world) == 2


def test_a_look_that_hangs_is_ended_and_done_again_later() -> None:
    world = finished()
    world.pass_time(seconds=600)
    assert looks(world) == 1

    world.pass_time(seconds=600)
    assert known(world).check_message == "Looking at the data took longer than 10 minutes."
    world.pass_time(seconds=600)

    assert looks(world) == 2


def test_no_two_looks_share_a_name() -> None:
    world = finished({"onDatasetChange": True, "checkIntervalSeconds": 10})

    for _ in range(8):
        world.pass_time(seconds=10)
        world.finish_check()

    assert looks(world) == 8
    assert len(set(world.made)) == len(world.made)


def test_a_look_that_was_lost_is_done_again_under_the_same_name() -> None:
    world = finished()
    world.pass_time(seconds=600)
    (name,) = [name for name in world.children.jobs if "check" in name]

    world.children.delete(name, world.now)
    world.pass_time(seconds=30)

    assert looks(world) == 2
    assert name in world.children.jobs


def test_while_a_run_goes_on_nobody_looks_unless_it_may_be_replaced() -> None:
    world = World(retrain=WATCHED)
    world.settle()
    world.finish_stage()
    world.run_pod()
    world.pass_time(seconds=601)
    assert looks(world) == 0

    world.edit(retrain={**WATCHED, "concurrencyPolicy": "Replace"})
    world.settle()

    assert looks(world) == 1


def test_a_run_that_has_not_read_the_data_yet_is_not_replaced_for_new_data() -> None:
    world = finished({**WATCHED, "concurrencyPolicy": "Replace"})
    world.pass_time(seconds=600)
    world.finish_check()
    world.data = "v2"
    world.request("monday")

    world.pass_time(seconds=1200)
    assert looks(world) == 1
    world.finish_run()

    assert world.status.run is not None
    assert world.status.run.trigger == "Requested"
    assert known(world).data_version == "v2"


def test_data_that_changed_while_a_long_run_went_on_is_found_right_after_it() -> None:
    world = World(retrain=WATCHED)
    world.settle()
    world.finish_stage()
    world.run_pod()
    world.data = "v2"
    world.pass_time(seconds=900)

    world.end_pod(world.speak(world.active).model_copy(update={"data_version": None}))

    assert looks(world) == 1


def test_new_data_replaces_the_run_that_goes_on_if_the_policy_says_so() -> None:
    world = World(retrain={**WATCHED, "concurrencyPolicy": "Replace"})
    world.settle()
    world.finish_stage()
    world.run_pod()
    world.data = "v2"

    world.pass_time(seconds=600)
    world.finish_check()
    world.stop_pods()

    assert [name for name in world.made if not name.startswith("check")] == [*ONE_RUN, "prepare-1"]
    assert world.status.run is not None
    assert world.status.run.trigger == "DatasetChanged"


def test_a_look_makes_way_for_a_run() -> None:
    world = finished()
    world.pass_time(seconds=600)
    assert world.children.checking is not None

    world.edit(training={"epochs": 1})
    world.settle()

    assert world.children.checking is None
    assert world.made[-1] == "prepare-1"


def test_a_run_that_starts_when_a_look_is_due_does_without_it() -> None:
    world = finished()
    world.pass_time(seconds=599)
    world.now += timedelta(seconds=1)

    world.edit(training={"epochs": 1})
    world.settle()

    assert looks(world) == 0


@pytest.mark.parametrize("change", [{"suspend": True}, {"retrain": None}, {"retrain": {"onDatasetChange": False}}])
def test_a_look_that_nobody_wants_any_more_is_ended(change: dict[str, Any]) -> None:
    world = finished()
    world.pass_time(seconds=600)

    world.edit(**change)
    world.pass_time(days=1)

    assert world.children.checking is None
    assert looks(world) == 1
    assert world.phase == "Succeeded"


def test_a_short_time_to_live_does_not_end_looks() -> None:
    world = finished(ttlSecondsAfterFinished=0)
    world.settle()
    assert world.children.jobs == {}
    world.data = "v2"

    world.pass_time(seconds=600)
    assert looks(world) == 1
    world.finish_check()

    assert world.status.run is not None
    assert world.status.run.trigger == "DatasetChanged"


def test_data_that_was_rejected_and_mended_starts_a_run() -> None:
    world = World(retrain=WATCHED)
    world.settle()
    world.run_pod()
    world.end_pod(failed_report(ExitCode.DATA_REJECTED, "Row 17 has no answer.", "v1"))
    world.pass_time(seconds=600)
    world.finish_check()
    assert world.phase == "Failed"

    world.data = "v2"
    world.pass_time(seconds=600)
    world.finish_check()
    world.finish_run()

    assert world.phase == "Succeeded"


def test_data_mended_before_the_first_look_starts_a_run_too() -> None:
    world = World(retrain=WATCHED)
    world.settle()
    world.run_pod()
    world.end_pod(failed_report(ExitCode.DATA_REJECTED, "Row 17 has no answer.", "v1"))

    world.data = "v2"
    world.pass_time(seconds=600)
    world.finish_check()

    assert world.status.run is not None
    assert world.status.run.trigger == "DatasetChanged"


def test_to_a_run_that_never_saw_the_data_any_data_is_news_but_only_once() -> None:
    world = World(retrain=WATCHED)
    for _ in range(2):
        world.settle()
        world.run_pod()
        world.end_pod(failed_report(ExitCode.INVALID_CONFIG, "s3://clinic/triage.jsonl does not exist."))
        assert world.phase == "Failed"
        world.pass_time(seconds=600)
        world.finish_check()

    assert world.phase == "Failed"
    assert world.status.run is not None
    assert world.status.run.trigger == "DatasetChanged"
    assert [name for name in world.made if not name.startswith("check")] == ["prepare-1", "prepare-1"]


def test_a_change_is_not_forgotten_while_the_schedule_is_bad() -> None:
    world = finished()
    world.edit(retrain={**WATCHED, "schedule": "0 3 * * *", "timeZone": "Europe/Atlantis"})
    world.data = "v2"
    world.pass_time(days=1)
    assert looks(world) == 0

    world.edit(retrain=WATCHED)
    world.settle()
    world.finish_check()

    assert world.status.run is not None
    assert world.status.run.trigger == "DatasetChanged"
