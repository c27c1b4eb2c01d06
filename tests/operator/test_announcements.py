"""The story of a job as its events tell it."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_api.run import ExitCode, Progress
from finetune_api.status import FineTuneJobStatus
from finetune_operator.announcements import LONGEST_MESSAGE, Announcement, announce, build_event
from support.moments import MOMENTS, queued, succeeded, training, training_pending, unschedulable
from support.objects import START, failed_report, make_subject
from support.world import World


def story(world: World) -> list[str]:
    return [f"{said.kind} {said.reason}" for said in world.told]


def test_the_story_of_a_run_is_short() -> None:
    world = succeeded()

    assert story(world) == [
        "Normal RunStarted",
        "Normal DataPrepared",
        "Normal Training",
        "Normal Succeeded",
    ]
    assert world.told[0].message == f"Run {world.status.run and world.status.run.key} begins: the job was created."
    assert world.told[1].message == f"Run {world.identity[0]}: Rows are ready."


def test_progress_is_no_news() -> None:
    world = training()
    before = len(world.told)

    for step in range(5):
        world.progress = Progress(stage="train", step=step, message=f"step {step}")
        world.settle()

    assert len(world.told) == before


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"training": {"epochs": 2}}, "the manifest changed in what decides the result."),
        ({"retrain": {"schedule": "5 * * * *"}}, "it was due."),
        ({"retrain": {"onDatasetChange": True, "checkIntervalSeconds": 10}}, "the data changed."),
    ],
)
def test_a_run_tells_why_it_began(change: dict[str, Any], want: str) -> None:
    world = succeeded()
    world.data = "v2"

    world.edit(**change)
    world.pass_time(minutes=5)
    if world.children.checking:
        world.finish_check()

    begun = [said.message for said in world.told if said.reason == "RunStarted"]
    assert len(begun) == 2
    assert begun[1].endswith(f" begins: {want}")


def test_a_run_that_was_asked_for_says_so() -> None:
    world = succeeded()

    world.request("monday")
    world.settle()

    assert world.told[-1].message.endswith(" begins: it was asked for.")


def test_a_failure_that_passes_is_a_warning_that_says_it_is_tried_again() -> None:
    world = training()

    world.end_pod(failed_report(ExitCode.STORAGE, "The bucket did not answer."))

    assert world.told[-1] == Announcement(
        "Warning", "StorageFailed", "The bucket did not answer. It will be tried again."
    )


def test_each_failure_is_told_once() -> None:
    world = training()
    for _ in range(4):
        world.end_pod(failed_report(ExitCode.STORAGE, "The bucket did not answer."))
        world.pass_time(minutes=10)
        if world.children.active:
            world.run_pod()

    told = [said for said in world.told if said.reason == "StorageFailed"]
    assert [said.message.endswith("It will be tried again.") for said in told] == [True, True, True, False]


def test_the_end_is_told_even_when_it_has_the_reason_of_the_failure_before() -> None:
    world = training()
    world.end_pod(failed_report(ExitCode.STORAGE, "The bucket did not answer."))

    world.edit(retries=0)
    world.settle()

    assert world.phase == "Failed"
    assert world.told[-1] == Announcement("Warning", "StorageFailed", "The bucket did not answer.")


@pytest.mark.parametrize(
    ("verdict", "want"),
    [("Passed", "Normal Succeeded"), ("Failed", "Warning Rejected"), ("Inconclusive", "Warning Rejected")],
)
def test_the_verdict_decides_how_the_end_sounds(verdict: Any, want: str) -> None:
    world = World()

    world.finish_run(verdict)

    assert story(world)[-1] == want


def test_what_keeps_a_pod_waiting_is_told_once() -> None:
    world = unschedulable()
    world.pass_time(minutes=5)

    assert story(world)[2:] == ["Warning Unschedulable"]


def test_what_needs_a_person_is_a_warning() -> None:
    world = training_pending()
    world.pod.scheduled().waiting("CreateContainerConfigError", 'secret "s3" not found')
    world.settle()

    assert story(world)[-1] == "Warning SecretMissing"
    world.finish_run()
    assert story(world)[-1] == "Normal Succeeded"


def test_waiting_in_a_queue_and_being_suspended_are_news() -> None:
    world = queued()
    world.edit(suspend=True)
    world.settle()

    assert story(world)[2:] == ["Normal Queued", "Normal Suspended"]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_a_status_that_stays_tells_nothing(moment: Callable[[], World]) -> None:
    status = moment().status

    assert announce(status, status) == []


def test_everything_told_is_a_sentence_for_people() -> None:
    for moment in MOMENTS:
        for said in moment().told:
            assert said.reason.isalnum()
            assert said.message[0].isupper()
            assert said.message.endswith(".")


def test_an_event_belongs_to_its_job() -> None:
    subject = make_subject()

    event = build_event(subject, Announcement("Warning", "Unschedulable", "No node fits."), START, "operator-1")

    assert event["metadata"] == {"generateName": "clinic-triage.", "namespace": "clinic"}
    assert event["involvedObject"] == {
        "apiVersion": "finetuning.dev/v1alpha1",
        "kind": "FineTuneJob",
        "namespace": "clinic",
        "name": "clinic-triage",
        "uid": subject.uid,
    }
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "Unschedulable", "No node fits.")
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-11-23T09:00:00Z"
    assert event["reportingInstance"] == "operator-1"


def test_an_event_is_no_longer_than_the_api_server_takes() -> None:
    event = build_event(make_subject(), Announcement("Normal", "X", "x" * 5000), START, "operator-1")

    assert len(event["message"]) == LONGEST_MESSAGE <= 1024


def test_a_job_without_a_status_begins_its_story() -> None:
    told = announce(FineTuneJobStatus(), training().status)

    assert [said.reason for said in told] == ["RunStarted", "DataPrepared", "Training"]
