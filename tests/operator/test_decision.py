"""Whole lives of jobs: what is started, when, and what stays. Each look is checked against the laws of every life."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.run import ExitCode, Progress
from finetune_operator.decision import decide
from finetune_operator.observed import Observed
from support.moments import FINISHED, GOING_ON, MOMENTS, failed, rejected, succeeded, training, training_in_one_pod
from support.objects import SETTINGS, START, failed_report, make_object, make_subject
from support.world import World

Moment = Callable[[], World]
at_every_moment = pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
while_it_goes_on = pytest.mark.parametrize("moment", GOING_ON, ids=lambda moment: moment.__name__)
when_finished = pytest.mark.parametrize("moment", FINISHED, ids=lambda moment: moment.__name__)
HARMLESS: list[dict[str, Any]] = [
    {"activeDeadlineSeconds": 60},
    {"retries": 0},
    {"historyLimit": 0},
    {"ttlSecondsAfterFinished": 0},
    {"queueName": "team-b"},
    {"resources": {"gpus": 8, "prepare": {"separate": False}}},
    {"podTemplate": {"labels": {"team": "clinic"}}},
    {"output": {"uri": "s3://adapters/clinic", "secretRef": {"name": "s3"}}},
    {"retrain": {"schedule": "0 3 29 2 *"}},
]


def adapter_of(world: World) -> str:
    assert world.status.current is not None
    return world.status.current.run_id


# The plain life.


def test_a_job_prepares_trains_evaluates_and_succeeds() -> None:
    world, phases = World(), list[str]()

    world.settle()
    phases.append(world.phase)
    world.run_pod(Progress(stage="prepare"))
    phases.append(world.phase)
    world.end_pod(world.speak(world.active))
    phases.append(world.phase)
    world.run_pod(Progress(stage="train"))
    phases.append(world.phase)
    world.progress = Progress(stage="evaluate")
    world.settle()
    phases.append(world.phase)
    world.end_pod(world.speak(world.active))
    phases.append(world.phase)

    assert phases == ["Pending", "Preparing", "Pending", "Training", "Evaluating", "Succeeded"]
    assert world.made == ["prepare-1", "train-1"]
    assert adapter_of(world) == world.identity[0]


def test_where_preparation_gets_no_pod_of_its_own_one_job_does_everything() -> None:
    world = training_in_one_pod()
    assert world.phase == "Preparing"

    world.end_pod(world.speak(world.active))

    assert world.phase == "Succeeded"
    assert world.made == ["train-1"]
    assert world.status.run is not None
    assert world.status.run.id == world.identity[0]


def test_an_adapter_that_is_not_better_is_published_but_not_in_use() -> None:
    world = rejected()

    assert world.phase == "Rejected"
    assert world.status.adapter is not None
    assert world.status.evaluation is not None
    assert world.status.current is None


@at_every_moment
def test_looking_again_writes_nothing(moment: Moment) -> None:
    world = moment()
    world.settle()
    writes, made = world.writes, world.made

    for _ in range(5):
        world.settle()

    assert (world.writes, world.made) == (writes, made)


@at_every_moment
def test_the_operator_remembers_nothing_that_the_cluster_does_not_hold(moment: Moment) -> None:
    """Every look of these tests starts from the objects alone; so does the one after a restart, however late it is."""
    world = moment()
    world.settle()
    seen = world.observe()

    assert decide(seen, SETTINGS, world.now) == decide(world.observe(), SETTINGS, world.now)
    assert seen.subject == world.subject


def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    raw = make_object(status={"phase": "Training"})
    raw["metadata"]["deletionTimestamp"] = "2026-11-23T09:00:00Z"
    world = World()
    world.raw = raw

    plan = decide(world.observe(), SETTINGS, START)

    assert (plan.create, plan.delete, plan.status.phase) == ((), (), "Training")


# A finished run is finished.


@when_finished
@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: next(iter(change)))
def test_a_finished_run_stays_finished_whatever_else_changes(moment: Moment, change: dict[str, Any]) -> None:
    world = moment()
    before, made = world.status, world.made

    world.edit(**change)
    world.raw["metadata"]["labels"] = {"team": "clinic"}
    world.pass_time(days=3)
    for name in list(world.children.jobs):
        world.children.delete(name, world.now)
    world.pass_time(days=3)

    assert world.made == made
    assert world.phase == before.phase
    assert world.status.run == before.run
    assert world.status.adapter == before.adapter
    assert world.status.evaluation == before.evaluation
    assert world.status.current == before.current


@when_finished
@pytest.mark.parametrize("seconds", [0, 600])
def test_what_a_finished_run_left_is_removed_in_time_and_nothing_follows(moment: Moment, seconds: int) -> None:
    world = moment()
    made = world.made

    world.edit(ttlSecondsAfterFinished=seconds)
    if seconds:
        world.pass_time(seconds=seconds - 1)
        assert world.children.jobs
    world.pass_time(seconds=2)

    assert (world.children.jobs, world.children.pods) == ({}, {})
    world.pass_time(days=30)
    assert world.made == made


def test_without_a_time_to_live_the_jobs_of_the_last_run_stay_for_their_logs() -> None:
    world = succeeded()

    world.pass_time(days=300)

    assert len(world.children.jobs) == 2


def test_a_job_that_goes_on_under_a_finished_run_is_stopped() -> None:
    world = succeeded()
    stray = world.children.jobs[next(name for name in world.children.jobs if "train" in name)]
    stray.raw["status"] = {}

    world.settle()

    assert "train" not in "".join(world.children.jobs)


# A changed manifest.


@at_every_moment
def test_a_changed_manifest_starts_the_next_run(moment: Moment) -> None:
    world = moment()
    world.settle()
    before = world.status.run

    world.edit(training={"epochs": 2})
    world.finish_run()

    assert world.phase == "Succeeded"
    assert world.status.run is not None
    assert before is not None
    assert (world.status.run.trigger, world.status.run.id) == ("SpecChanged", world.identity[0])
    assert (world.status.history[0].id, world.status.history[0].outcome) == (before.id, before.outcome)
    assert {job.view().run for job in world.children.jobs.values()} == {world.status.run.key}


def test_the_old_adapter_stays_in_use_until_a_new_one_passed() -> None:
    world = succeeded()
    old = adapter_of(world)

    world.edit(training={"epochs": 2})
    world.settle()
    assert adapter_of(world) == old
    world.finish_run("Failed")
    assert (world.phase, adapter_of(world)) == ("Rejected", old)
    world.edit(training={"epochs": 1})
    world.settle()
    world.run_pod()
    world.end_pod(failed_report(ExitCode.DATA_REJECTED))
    assert (world.phase, adapter_of(world)) == ("Failed", old)
    world.edit(training={"epochs": 4})
    world.finish_run()

    assert adapter_of(world) == world.identity[0] != old
    assert [past.outcome for past in world.status.history] == ["Failed", "Rejected", "Succeeded"]
    assert world.status.history[2].adapter_uri is not None


def test_going_back_to_an_earlier_manifest_uses_its_adapter_without_training() -> None:
    world = succeeded()
    first = adapter_of(world)
    world.edit(training={"epochs": 2})
    world.finish_run()
    assert adapter_of(world) != first
    made = len(world.made)

    world.edit(training=None)
    world.finish_run()

    assert world.made[made:] == ["prepare-1"]
    assert (world.phase, adapter_of(world)) == ("Succeeded", first)


def test_a_new_run_waits_until_the_pod_of_the_old_one_has_stopped() -> None:
    world = training()
    world.edit(training={"epochs": 2})

    world.settle()
    assert world.made == ["prepare-1", "train-1"]
    assert "is still stopping" in str(world.status.message)
    world.stop_pods()

    assert world.made == ["prepare-1", "train-1", "prepare-1"]


def test_the_history_forgets_the_oldest_runs() -> None:
    world = World(historyLimit=2)
    for epochs in range(1, 5):
        world.edit(training={"epochs": epochs})
        world.finish_run()
    assert len(world.status.history) == 2

    world.edit(historyLimit=0)
    world.settle()

    assert world.status.history == []


# Requests.


@at_every_moment
def test_a_request_starts_one_more_run_of_the_same_manifest_once_none_goes_on(moment: Moment) -> None:
    world = moment()
    world.settle()
    before = world.status.run
    assert before is not None

    world.request("monday")
    world.pass_time(minutes=1)
    world.finish_run()
    world.settle()

    assert world.status.run is not None
    assert (world.status.run.trigger, len(world.status.history)) == ("Requested", 1)
    assert world.phase == ("Rejected" if moment is rejected else "Succeeded")
    assert world.status.history[0].trigger == "Created"
    made = world.made
    world.pass_time(days=30)
    assert world.made == made


def test_a_request_that_came_with_the_manifest_is_answered_by_the_first_run() -> None:
    world = World(annotations={"finetuning.dev/requested-at": "monday"})

    world.finish_run()
    world.pass_time(days=1)

    assert world.made == ["prepare-1", "train-1"]


def test_a_request_may_replace_a_run_if_the_policy_says_so() -> None:
    world = training()
    world.edit(retrain={"concurrencyPolicy": "Replace"})

    world.request("monday")
    world.settle()
    world.stop_pods()

    assert world.made == ["prepare-1", "train-1", "prepare-1"]
    assert world.status.history[0].outcome is None


# Suspension.


@at_every_moment
def test_a_job_is_suspended_and_goes_on_to_its_end(moment: Moment) -> None:
    world = moment()
    world.edit(suspend=True)
    world.settle()
    going = moment in GOING_ON
    assert world.phase == ("Suspended" if going else moment().phase)
    assert world.children.active is None
    world.stop_pods()
    world.pass_time(days=2)
    assert world.phase == ("Suspended" if going else moment().phase)
    made = world.made

    world.edit(suspend=False)
    world.finish_run()

    assert world.phase == ("Succeeded" if going else moment().phase)
    assert len(world.made) - len(made) <= (2 if going else 0)


def test_a_suspended_run_goes_on_with_the_attempt_it_was_at() -> None:
    world = training()
    world.end_pod(code=137, reason="OOMKilled")
    world.pass_time(seconds=11)
    world.run_pod()
    world.edit(suspend=True)
    world.settle()
    world.stop_pods()

    world.edit(suspend=False)
    world.settle()

    assert world.made == ["prepare-1", "train-1", "train-2", "train-2"]
    assert world.active.view().micro_batch_tokens == 4096


def test_a_job_that_is_born_suspended_starts_nothing() -> None:
    world = World(suspend=True)

    world.pass_time(days=1)
    assert (world.made, world.phase) == ([], "Suspended")
    world.edit(suspend=False)
    world.finish_run()

    assert world.phase == "Succeeded"


def test_a_suspended_job_says_that_its_pod_still_saves() -> None:
    world = training()
    world.edit(suspend=True)

    world.settle()
    assert world.status.message == "Suspended by spec.suspend; the pod saves its work and stops."
    world.stop_pods()

    assert world.status.message == "Suspended by spec.suspend."


def test_a_change_while_suspended_loses_nothing_that_is_known_and_starts_when_resumed() -> None:
    world = succeeded()
    adapter, evaluation = world.status.adapter, world.status.evaluation
    world.edit(suspend=True, training={"epochs": 2})

    world.settle()
    assert world.phase == "Suspended"
    assert (world.status.adapter, world.status.evaluation) == (adapter, evaluation)
    assert world.status.message == "Suspended by spec.suspend; the next run starts when it is set to false."
    world.edit(suspend=False, training=None)
    world.settle()
    assert world.phase == "Succeeded"
    assert (world.status.adapter, world.status.evaluation) == (adapter, evaluation)
    assert world.made == ["prepare-1", "train-1"]


def test_a_suspended_jobs_time_stands_still() -> None:
    world = training()
    world.edit(activeDeadlineSeconds=600, suspend=True)
    world.settle()
    world.stop_pods()
    world.pass_time(hours=5)

    world.edit(suspend=False)
    world.settle()
    world.pass_time(seconds=599)
    assert world.phase == "Pending"
    world.pass_time(seconds=1)

    assert world.phase == "Failed"


# Schedules.


NIGHTLY = {"schedule": "0 3 * * *"}
SOON = {"schedule": "5 * * * *"}
DAY = timedelta(days=1)


def test_a_schedule_starts_a_run_at_each_tick_and_none_between() -> None:
    world = World(retrain=SOON)
    world.finish_run()
    world.pass_time(minutes=4, seconds=59)
    assert world.made == ["prepare-1", "train-1"]
    world.pass_time(seconds=1)

    for _ in range(3):
        assert world.status.run is not None
        assert (world.status.run.trigger, world.status.run.outcome) == ("Schedule", None)
        world.finish_run()
        world.pass_time(hours=1)

    assert world.made == ["prepare-1", "train-1", *["prepare-1"] * 4]
    assert adapter_of(world) == world.identity[0]


def test_a_schedule_that_finds_new_data_trains() -> None:
    world = World(retrain=SOON)
    world.finish_run()
    world.data = "v2"

    world.pass_time(minutes=5)
    world.finish_run()

    assert world.made == ["prepare-1", "train-1", "prepare-1", "train-1"]
    assert adapter_of(world) == world.identity[0]


def test_ticks_that_were_missed_while_the_operator_was_down_count_once() -> None:
    world = World(retrain=NIGHTLY)
    world.finish_run()

    world.sleep_through(days=10)
    world.finish_run()
    world.settle()

    assert world.made == ["prepare-1", "train-1", "prepare-1"]
    assert world.status.retrain is not None
    assert world.status.retrain.next_schedule_time == START.replace(hour=3) + 11 * DAY


def test_a_tick_while_a_run_goes_on_is_forgotten() -> None:
    world = training()
    world.edit(retrain=SOON)

    world.pass_time(minutes=6)
    assert world.made == ["prepare-1", "train-1"]
    assert world.status.retrain is not None
    assert world.status.retrain.last_schedule_time == START + timedelta(minutes=5)
    world.end_pod(world.speak(world.active))
    world.pass_time(minutes=50)

    assert world.made == ["prepare-1", "train-1"]


def test_a_tick_replaces_the_run_that_goes_on_if_the_policy_says_so() -> None:
    world = training()
    world.edit(retrain={**SOON, "concurrencyPolicy": "Replace"})

    world.pass_time(minutes=5)
    world.stop_pods()

    assert world.made == ["prepare-1", "train-1", "prepare-1"]
    assert world.status.run is not None
    assert world.status.run.trigger == "Schedule"


@pytest.mark.parametrize("policy", ["Forbid", "Replace"])
def test_ticks_while_suspended_are_skipped(policy: str) -> None:
    for moment in (succeeded, training):
        world = moment()
        world.edit(retrain={**NIGHTLY, "concurrencyPolicy": policy}, suspend=True)
        world.settle()
        world.stop_pods()
        writes = world.writes

        world.pass_time(days=3)
        assert world.writes == writes + 3, "one for each tick that is remembered as skipped"
        world.edit(suspend=False)
        world.settle()

        assert world.status.run is not None
        assert world.status.run.trigger == "Created"


def test_an_edited_schedule_does_not_start_a_run_by_itself() -> None:
    world = World(retrain=NIGHTLY)
    world.finish_run()
    world.pass_time(hours=1)

    for schedule in ("0 8 * * *", "0 9 * * *", "0 3 1 1 *"):
        world.edit(retrain={"schedule": schedule})
        world.pass_time(minutes=1)

    assert world.made == ["prepare-1", "train-1"]


def test_a_schedule_with_an_unknown_time_zone_stalls_a_new_job_until_it_is_mended() -> None:
    world = World(retrain={**NIGHTLY, "timeZone": "Europe/Atlantis"})

    world.pass_time(days=1)
    ready = next(condition for condition in world.status.conditions if condition.type == "Stalled")
    assert (world.phase, ready.status, ready.reason) == ("Pending", "True", "InvalidSchedule")
    assert world.status.message == "spec.retrain.timeZone Europe/Atlantis is not a known time zone."
    assert world.made == []
    world.edit(retrain={**NIGHTLY, "timeZone": "Europe/Berlin"})
    world.finish_run()

    assert world.phase == "Succeeded"


def test_a_schedule_without_meaning_takes_nothing_from_what_is_known() -> None:
    world = succeeded()
    before = world.status
    world.edit(retrain={**NIGHTLY, "timeZone": "Europe/Atlantis"})

    world.pass_time(days=1)
    assert world.phase == "Pending"
    world.edit(retrain=None)
    world.settle()

    assert world.phase == "Succeeded"
    assert (world.status.adapter, world.status.evaluation) == (before.adapter, before.evaluation)
    assert (world.status.run, world.status.current) == (before.run, before.current)
    assert world.made == ["prepare-1", "train-1"]


def test_a_schedule_without_meaning_disturbs_no_run_that_goes_on() -> None:
    world = training()
    world.edit(retrain={**NIGHTLY, "timeZone": "Europe/Atlantis"})

    world.settle()
    assert world.phase == "Training"
    world.edit(suspend=True)
    world.settle()
    assert world.phase == "Suspended"
    assert world.children.active is None


def test_an_output_inside_the_pod_is_refused_before_anything_starts() -> None:
    world = World(output={"uri": "file:///tmp/adapters"})

    world.pass_time(days=1)

    assert world.made == []
    assert world.status.message == (
        "spec.output.uri file:///tmp/adapters is a folder inside the pod and ends with it; use pvc:// or a bucket."
    )


# What is lost.


@while_it_goes_on
def test_a_job_whose_children_were_deleted_makes_them_anew(moment: Moment) -> None:
    world = moment()
    world.settle()
    for name in list(world.children.jobs):
        world.children.delete(name, world.now)

    world.settle()
    world.stop_pods()
    world.finish_run()

    assert world.phase == "Succeeded"


@at_every_moment
def test_a_job_that_lost_its_status_finds_its_children_or_its_results(moment: Moment) -> None:
    world = moment()
    world.settle()
    made = len(world.made)

    world.lose_status()
    world.pass_time(minutes=1)
    world.finish_run()

    assert world.phase == {failed: "Failed", rejected: "Rejected"}.get(moment, "Succeeded")
    assert len(world.made) - made <= 2
    if moment in FINISHED:
        assert world.made[made:] == []


def test_a_run_that_finished_long_ago_is_found_in_the_store_when_everything_else_is_lost() -> None:
    world = World(ttlSecondsAfterFinished=0)
    world.finish_run()
    world.settle()
    assert world.children.jobs == {}

    world.lose_status()
    world.finish_run()

    assert world.made == ["prepare-1", "train-1", "prepare-1"]
    assert adapter_of(world) == world.identity[0]
    assert world.status.run is not None
    assert world.status.run.data is None  # the preparation had nothing to do


@at_every_moment
def test_a_status_that_could_not_be_written_is_worked_out_again(moment: Moment) -> None:
    world = moment()
    world.edit(training={"epochs": 2})

    for _ in range(3):
        world.look(lose_status=True)
    world.finish_run()

    assert world.phase == "Succeeded"
    assert world.status.run is not None
    assert world.status.run.trigger in ("SpecChanged", "Created")


def test_an_observation_without_anything_is_enough_to_begin() -> None:
    plan = decide(Observed(make_subject()), SETTINGS, START)

    assert [(order.stage, order.attempt) for order in plan.create] == [("prepare", 1)]
    assert plan.wake_at == START + timedelta(seconds=15)
