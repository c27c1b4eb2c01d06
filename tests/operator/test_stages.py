"""One run: its stages, what is tried again and when, and how it ends."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.run import ExitCode, Progress
from finetune_operator.decision import decide
from finetune_operator.stages import LONGEST_WAIT, backoff
from finetune_operator.status import Situation
from support.moments import (
    evaluating,
    preparation_pending,
    preparing,
    queued,
    suspended_outside,
    training,
    training_pending,
    training_to_be_retried,
    unschedulable,
)
from support.objects import SETTINGS, START, failed_report, prepared_report
from support.world import World

Moment = Callable[[], World]
PASSING = (ExitCode.OUT_OF_MEMORY, ExitCode.STORAGE)
FINAL = (ExitCode.INVALID_CONFIG, ExitCode.DATA_REJECTED, ExitCode.DIVERGED, ExitCode.MODEL_NOT_LOADABLE)


def ready_reason(world: World) -> str:
    return next(condition.reason for condition in world.status.conditions if condition.type == "Ready")


def fail(world: World, **end: Any) -> None:
    """The pod runs and ends badly."""
    world.run_pod()
    world.end_pod(**end)


# Retries.


@pytest.mark.parametrize("code", FINAL)
@pytest.mark.parametrize("moment", [preparing, training], ids=lambda moment: moment.__name__)
def test_what_another_attempt_cannot_mend_ends_the_run(moment: Moment, code: ExitCode) -> None:
    world = moment()
    made = world.made

    world.end_pod(failed_report(code, "It cannot work."))
    world.pass_time(days=3)

    assert (world.phase, world.status.message, world.made) == ("Failed", "It cannot work.", made)
    assert world.status.failure is not None
    assert (world.status.failure.exit_code, world.status.failure.will_retry) == (int(code), False)
    assert world.status.failure.log == ["one", "two"]


@pytest.mark.parametrize("code", PASSING)
@pytest.mark.parametrize("moment", [preparing, training], ids=lambda moment: moment.__name__)
def test_what_may_pass_is_tried_again_and_may_succeed(moment: Moment, code: ExitCode) -> None:
    world = moment()
    last = world.made[-1]

    world.end_pod(failed_report(code, "It went wrong."))
    assert (world.phase, world.status.message) == ("Pending", "It went wrong. Attempt 2 follows.")
    assert world.status.failure is not None
    assert (world.status.failure.will_retry, world.status.failure.retry_at) == (True, START + timedelta(seconds=10))
    world.pass_time(seconds=9)
    assert world.made[-1] == last
    world.pass_time(seconds=1)
    assert world.made[-1] == last.replace("-1", "-2")
    world.finish_run()

    assert world.phase == "Succeeded"
    assert world.status.failure is None


@pytest.mark.parametrize("end", [{"code": 1}, {"code": 137, "reason": "OOMKilled"}, {"code": 0}, {"code": 139}])
def test_a_trainer_without_a_last_word_is_tried_again(end: dict[str, Any]) -> None:
    world = training()

    world.end_pod(**end)
    world.pass_time(seconds=10)

    assert world.made == ["prepare-1", "train-1", "train-2"]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_there_are_as_many_retries_as_the_manifest_says(retries: int) -> None:
    world = World(retries=retries)
    world.settle()
    for _ in range(10):
        if world.children.active:
            fail(world, report=failed_report(ExitCode.STORAGE))
        world.pass_time(minutes=11)

    assert world.phase == "Failed"
    assert world.made == [f"prepare-{attempt}" for attempt in range(1, retries + 2)]


def test_each_stage_has_retries_of_its_own() -> None:
    world = World(retries=1)
    world.settle()
    fail(world, report=failed_report(ExitCode.STORAGE))
    world.pass_time(seconds=10)
    world.finish_stage()

    fail(world, report=failed_report(ExitCode.STORAGE))
    world.pass_time(seconds=10)
    world.finish_run()

    assert world.made == ["prepare-1", "prepare-2", "train-1", "train-2"]
    assert world.phase == "Succeeded"


def test_deleting_the_jobs_of_failed_attempts_gives_no_further_ones() -> None:
    world = World(retries=1)
    world.settle()
    fail(world, report=failed_report(ExitCode.STORAGE))
    world.pass_time(seconds=10)
    world.children.delete(next(name for name in world.children.jobs if name.endswith("prepare-1")), world.now)

    fail(world, report=failed_report(ExitCode.STORAGE))
    world.pass_time(days=1)

    assert (world.phase, world.made) == ("Failed", ["prepare-1", "prepare-2"])


def test_waits_grow_and_end_at_ten_minutes() -> None:
    waits = [backoff(failures, SETTINGS).total_seconds() for failures in range(1, 9)]

    assert waits == [10, 20, 40, 80, 160, 320, 600, 600]
    assert backoff(101, SETTINGS) == LONGEST_WAIT


def test_the_last_of_very_many_attempts_is_still_tried() -> None:
    world = World(retries=100)
    world.settle()
    for _ in range(60):
        fail(world, report=failed_report(ExitCode.STORAGE))
        world.pass_time(minutes=10)

    assert world.made[-1] == "prepare-61"


def test_evictions_are_no_failures() -> None:
    world = training()
    world.edit(retries=0)

    for _ in range(20):
        world.evict_pod()
        world.run_pod()
        world.end_pod(failed_report(ExitCode.STOPPED))
    world.finish_run()

    assert world.made == ["prepare-1", "train-1"]
    assert world.phase == "Succeeded"
    assert world.status.failure is None


def test_a_lost_pod_is_tried_again() -> None:
    world = training()
    job = world.active
    world.children.remove_pods(job.view().name)
    job.failed(world.now)

    world.settle()
    assert ready_reason(world) == "PodLost"
    world.pass_time(seconds=10)

    assert world.made[-1] == "train-2"


def test_the_cause_of_a_failure_is_remembered_when_its_pod_is_deleted_while_waiting() -> None:
    world = training()
    world.end_pod(code=137, reason="OOMKilled")
    before = world.status

    world.children.pods.clear()
    world.settle()
    assert world.status == before
    world.pass_time(seconds=10)

    assert world.active.view().micro_batch_tokens == 4096


def test_a_cause_that_is_remembered_is_not_taken_for_that_of_a_later_attempt() -> None:
    world = training()
    world.end_pod(code=137, reason="OOMKilled")
    world.pass_time(seconds=10)
    world.run_pod()
    job = world.active
    world.children.pods.clear()
    job.failed(world.now)

    world.settle()

    assert ready_reason(world) == "PodLost"


@pytest.mark.parametrize("moment", [preparing, training], ids=lambda moment: moment.__name__)
def test_a_report_that_was_lost_is_asked_for_again(moment: Moment) -> None:
    world = moment()
    job, pod = world.active, world.pod
    pod.reported(world.speak(job), world.now)
    job.complete(world.now)
    world.children.pods.clear()

    world.pass_time(seconds=10)
    world.finish_run()

    assert world.phase == "Succeeded"


def test_a_job_that_is_seen_to_end_before_its_pod_is_not_judged_yet() -> None:
    for moment in (preparing, training):
        world = moment()
        before = world.status
        job, pod = world.active, world.pod
        report = world.speak(job)
        job.complete(world.now)

        world.settle()
        assert world.status == before
        pod.reported(report, world.now)
        world.settle()

        assert world.status.failure is None
        assert world.phase in ("Pending", "Succeeded")


def test_a_failed_job_whose_pod_still_seems_to_run_is_not_judged_yet() -> None:
    world = training()
    job, pod = world.active, world.pod
    job.failed(world.now)

    world.settle()
    assert world.phase == "Training"
    pod.reported(failed_report(ExitCode.DIVERGED, "The loss is NaN."), world.now)
    world.settle()

    assert (world.phase, world.status.message) == ("Failed", "The loss is NaN.")


# Memory.


def test_each_time_memory_runs_out_the_next_attempt_takes_half_the_tokens() -> None:
    world = World(retries=100, training={"microBatchTokens": 1024})
    world.settle()
    world.finish_stage()
    tokens = []
    for number in range(6):
        kind = {"report": failed_report(ExitCode.OUT_OF_MEMORY)} if number % 2 else {"code": 137, "reason": "OOMKilled"}
        fail(world, **kind)
        world.pass_time(minutes=10)
        tokens.append(world.active.view().micro_batch_tokens)

    assert tokens == [512, 256, 128, 128, 128, 128]


def test_other_failures_keep_what_was_halved_before() -> None:
    world = training()
    world.end_pod(failed_report(ExitCode.OUT_OF_MEMORY))
    world.pass_time(minutes=1)

    fail(world, report=failed_report(ExitCode.STORAGE))
    world.pass_time(minutes=1)

    assert world.active.view().micro_batch_tokens == 4096


def test_without_a_shortage_the_manifests_tokens_apply() -> None:
    world = training_to_be_retried()

    world.pass_time(minutes=1)

    assert world.made[-1] == "train-2"
    assert world.active.view().micro_batch_tokens is None


def test_preparation_is_tried_again_as_it_was() -> None:
    world = preparing()

    world.end_pod(code=137, reason="OOMKilled")
    world.pass_time(minutes=1)

    assert world.active.raw["spec"]["template"]["spec"]["containers"][0]["args"] == ["prepare"]


# Deadlines.


@pytest.mark.parametrize(
    "moment",
    [preparation_pending, preparing, training_pending, unschedulable, queued, training, evaluating],
    ids=lambda moment: moment.__name__,
)
def test_a_run_ends_at_its_deadline_wherever_it_is(moment: Moment) -> None:
    world = moment()
    world.edit(activeDeadlineSeconds=600)

    world.pass_time(seconds=599)
    assert world.phase != "Failed"
    world.pass_time(seconds=1)

    assert (world.phase, ready_reason(world)) == ("Failed", "DeadlineExceeded")
    assert world.status.message == "The run took longer than spec.activeDeadlineSeconds."
    assert world.children.active is None
    made = world.made
    world.pass_time(days=1)
    assert world.made == made


def test_a_deadline_comes_while_waiting_to_try_again() -> None:
    world = World(activeDeadlineSeconds=60, retries=9)
    world.settle()
    for _ in range(3):
        fail(world, report=failed_report(ExitCode.STORAGE))
        world.pass_time(seconds=20)

    assert (world.phase, world.status.run and world.status.run.finished_at) == ("Failed", START + timedelta(seconds=60))


def test_a_job_is_given_what_is_left_of_the_time() -> None:
    world = World(activeDeadlineSeconds=600)
    world.settle()
    assert world.active.raw["spec"]["activeDeadlineSeconds"] == 600
    world.pass_time(seconds=100)

    world.finish_stage()

    assert world.active.raw["spec"]["activeDeadlineSeconds"] == 500


@pytest.mark.parametrize("seconds", [None, 6000])
def test_a_deadline_that_was_raised_or_taken_away_counts_from_then_on(seconds: int | None) -> None:
    world = World(activeDeadlineSeconds=600)
    world.settle()
    world.finish_stage()
    world.run_pod()
    world.edit(activeDeadlineSeconds=seconds)

    world.pass_time(seconds=601)
    assert ready_reason(world) == "DeadlineExceeded"
    assert world.phase == "Pending"
    world.pass_time(seconds=10)
    world.finish_run()

    assert world.phase == "Succeeded"


def test_a_run_that_finished_in_time_succeeds_though_nobody_looked() -> None:
    world = World(activeDeadlineSeconds=600)
    world.settle()
    world.finish_stage()
    world.run_pod()
    job, pod = world.active, world.pod
    pod.reported(world.speak(job), world.now)
    job.complete(world.now)

    world.sleep_through(days=1)

    assert world.phase == "Succeeded"


def test_a_run_that_failed_in_time_shows_its_own_failure_though_nobody_looked() -> None:
    world = World(activeDeadlineSeconds=600)
    world.settle()
    world.run_pod()
    job, pod = world.active, world.pod
    pod.reported(failed_report(ExitCode.DATA_REJECTED, "Row 17 has no answer."), world.now)
    job.failed(world.now)

    world.sleep_through(days=1)

    assert (world.phase, world.status.message) == ("Failed", "Row 17 has no answer.")


# Waiting.


def test_what_keeps_a_pod_from_running_is_shown_until_it_is_mended() -> None:
    world = training_pending()
    world.pod.scheduled().waiting("CreateContainerConfigError", 'secret "s3" not found')

    world.settle()
    assert (world.phase, ready_reason(world)) == ("Pending", "SecretMissing")
    stalled = next(condition for condition in world.status.conditions if condition.type == "Stalled")
    assert stalled.status == "True"
    world.finish_run()

    assert world.phase == "Succeeded"


def test_a_job_that_waits_for_a_node_is_not_stalled() -> None:
    world = unschedulable()

    assert (world.phase, ready_reason(world)) == ("Pending", "Unschedulable")
    going = next(condition for condition in world.status.conditions if condition.type == "Reconciling")
    assert going.status == "True"


def test_a_complaint_about_a_job_without_a_pod_is_shown() -> None:
    world = training_pending()
    world.complaint = 'pods "x" is forbidden: exceeded quota: team'
    world.children.pods.clear()

    world.look()

    assert (world.phase, ready_reason(world)) == ("Pending", "QuotaExceeded")


@pytest.mark.parametrize(
    "change",
    [
        {"resources": {"gpus": 0}},
        {"podTemplate": {"nodeSelector": {"gpu": "a100"}}},
        {"output": {"uri": "s3://adapters/clinic", "secretRef": {"name": "s3"}}},
        {"queueName": "team-b"},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("moment", [training_pending, unschedulable, queued], ids=lambda moment: moment.__name__)
def test_a_pod_that_never_ran_is_made_anew_when_the_manifest_mends_it(moment: Moment, change: dict[str, Any]) -> None:
    world = moment()
    old = world.active

    world.edit(**change)
    world.settle()

    assert world.made == ["prepare-1", "train-1", "train-1"]
    assert world.active.raw["metadata"]["annotations"] != old.raw["metadata"]["annotations"]
    assert world.status.run is not None
    assert (world.status.run.trigger, world.status.run.attempt) == ("Created", 1)


def test_a_pod_that_never_ran_is_made_anew_when_the_operators_image_is_mended() -> None:
    world = preparation_pending()
    world.pod.scheduled().waiting("ImagePullBackOff", "not found")
    world.settle()
    assert ready_reason(world) == "ImagePullFailed"

    world.settings = SETTINGS.model_copy(update={"trainer_image": "registry.example/finetune-trainer@sha256:beef"})
    world.settle()

    assert world.pod.raw["spec"]["containers"][0]["image"].endswith("beef")
    assert ready_reason(world) == "Starting"


def test_a_pod_that_runs_is_left_alone_when_the_manifest_changes_what_pods_are_made_from() -> None:
    world = training()

    world.edit(resources={"gpus": 8}, podTemplate={"labels": {"team": "clinic"}})
    world.settle()

    assert world.made == ["prepare-1", "train-1"]
    assert world.phase == "Training"


def test_a_pod_that_is_being_moved_says_so() -> None:
    world = training()
    world.pod.disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint").deleted()

    world.settle()

    assert world.phase == "Training"
    assert world.status.message == (
        "The pod was told to leave node node-1; it saves its work, and another goes on from there."
    )


def test_an_attempt_waits_until_the_pod_before_it_has_stopped() -> None:
    world = training()
    world.children.delete(world.active.view().name, world.now)

    world.settle()
    assert world.made == ["prepare-1", "train-1"]
    assert world.status.message is not None
    assert world.status.message.startswith("Pod clinic-triage-")
    assert world.status.message.endswith(" on node node-1 is still stopping; the next one starts then.")
    world.stop_pods()

    assert world.made == ["prepare-1", "train-1", "train-1"]


# Queues and suspension from outside.


def test_a_queued_run_says_so_from_the_first_moment() -> None:
    world = World(queueName="team-a")
    world.settle()
    world.run_pod()
    world.pod.reported(world.speak(world.active), world.now)
    world.active.complete(world.now)

    world.look()

    assert (world.phase, world.status.message) == ("Queued", "Waiting for queue team-a to admit the Job.")


def test_a_queue_admits_preempts_and_admits_again() -> None:
    world = queued()

    world.suspend_outside(False)
    world.run_pod()
    assert world.phase == "Training"
    world.suspend_outside()
    assert world.phase == "Queued"
    world.suspend_outside(False)
    world.finish_run()

    assert (world.phase, world.made) == ("Succeeded", ["prepare-1", "train-1"])


def test_a_job_that_somebody_else_suspended_is_left_so() -> None:
    world = suspended_outside()
    writes = world.writes

    world.pass_time(days=1)
    assert (world.phase, ready_reason(world), world.writes) == ("Suspended", "SuspendedOutside", writes)
    world.suspend_outside(False)
    world.finish_run()

    assert (world.phase, world.made) == ("Succeeded", ["prepare-1", "train-1"])


def test_time_stands_still_while_somebody_else_suspends_the_job() -> None:
    world = training()
    world.edit(activeDeadlineSeconds=600)
    world.suspend_outside()
    world.pass_time(days=1)
    assert world.phase == "Suspended"

    world.suspend_outside(False)
    world.pass_time(seconds=599)
    assert world.phase == "Pending"
    world.pass_time(seconds=1)

    assert world.phase == "Failed"


# How far it is.


def test_progress_is_kept_when_a_pod_does_not_answer_for_a_moment() -> None:
    world = evaluating()

    world.progress = None
    world.settle()

    assert (world.phase, world.status.progress) == ("Evaluating", Progress(stage="evaluate"))


def test_progress_of_an_earlier_pod_is_not_shown_for_the_next() -> None:
    world = evaluating()
    world.evict_pod()
    assert world.status.progress is None

    world.run_pod()

    assert (world.phase, world.status.progress) == ("Training", None)


def test_the_message_tells_what_the_trainer_says_it_does() -> None:
    world = training_pending()

    world.run_pod(Progress(stage="train", message="loading the model"))

    assert world.status.message == "Training: loading the model."


def test_a_running_pod_is_asked_as_often_as_the_settings_say() -> None:
    world = training()

    assert world.wake_at == world.now + timedelta(seconds=SETTINGS.progress_seconds)


# One pod or two.


def test_a_preparation_that_goes_on_is_not_left_when_it_need_not_be_separate_any_more() -> None:
    world = preparing()

    world.edit(resources={"prepare": {"separate": False}})
    world.settle()
    assert world.phase == "Preparing"
    world.finish_run()

    assert world.made == ["prepare-1", "train-1"]


def test_a_training_that_prepares_itself_is_not_left_when_it_should_be_separate() -> None:
    world = World(resources={"gpus": 1, "prepare": {"separate": False}}, queueName="team-a")
    world.settle()

    world.edit(resources={"gpus": 1, "prepare": {"separate": True}})
    world.settle()
    world.finish_run()

    assert world.made == ["train-1"]


def test_the_name_that_preparation_gave_is_what_training_is_told() -> None:
    world = preparing()

    world.end_pod(prepared_report("20261123-0badcafe", "sha256:0badcafe"))

    arguments = world.active.raw["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments == ["run", "--run-id", "20261123-0badcafe", "--digest", "sha256:0badcafe"]
    assert world.status.run is not None
    assert (world.status.run.id, world.status.run.attempt) == ("20261123-0badcafe", 1)


def test_a_situation_without_a_run_limits_no_time() -> None:
    world = World(suspend=True, activeDeadlineSeconds=60)

    plan = decide(world.observe(), SETTINGS, START)

    assert plan.wake_at is None
    assert Situation("Suspended", "Suspended", "", None).run is None
