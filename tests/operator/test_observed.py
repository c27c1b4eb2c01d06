"""From objects of the API server to what decisions need."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from finetune_api.run import ExitCode, RunReport
from finetune_api.status import RunStatus
from finetune_operator.observed import Key, last_report, parse_time, report_of, view_job, view_pod, view_subject
from support.objects import (
    DIGEST,
    RUN,
    RUN_ID,
    START,
    make_job,
    make_object,
    make_order,
    make_pod,
    make_subject,
    prepared_report,
    published_report,
)

SUBJECT = make_subject()
LATER = START + timedelta(minutes=5)


def test_a_job_is_known_by_its_labels() -> None:
    view = make_job(SUBJECT, make_order("train", 3, micro_batch_tokens=2048)).view()

    assert (view.namespace, view.owner, view.run, view.stage, view.attempt) == (
        "clinic",
        "clinic-triage",
        RUN,
        "train",
        3,
    )
    assert view.micro_batch_tokens == 2048
    assert len(view.template) == 8
    assert view.created == START


def test_a_job_of_an_older_operator_has_no_digest_of_its_template() -> None:
    raw = make_job(SUBJECT).raw
    del raw["metadata"]["annotations"]

    assert view_job(raw).template == ""


def test_a_job_that_was_just_made_goes_on() -> None:
    view = make_job(SUBJECT, make_order("prepare")).view()

    assert (view.ended, view.ended_at, view.suspended, view.deleted) == (None, None, False, False)
    assert view.micro_batch_tokens is None


def test_the_end_of_a_job_is_that_of_its_condition() -> None:
    complete = make_job(SUBJECT).complete(LATER).view()
    failed = make_job(SUBJECT).failed(LATER, "PodFailurePolicy").view()

    assert (complete.ended, complete.ended_at) == ("Complete", LATER)
    assert (failed.ended, failed.ended_at, failed.reason) == ("Failed", LATER, "PodFailurePolicy")


def test_conditions_that_are_not_true_or_not_final_do_not_end_a_job() -> None:
    job = make_job(SUBJECT)
    job.raw["status"] = {
        "conditions": [
            {"type": "Suspended", "status": "True", "reason": "JobSuspended"},
            {"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"},
            {"type": "SuccessCriteriaMet", "status": "True", "reason": "CompletionsReached"},
            {"type": "Failed", "status": "False"},
        ]
    }

    assert job.view().ended is None


def test_a_pod_is_followed_from_its_making_to_its_end() -> None:
    pod = make_pod(make_job(SUBJECT))

    assert (pod.view().phase, pod.view().over, pod.view().node) == ("Pending", False, "")
    pod.unschedulable("0/1 nodes are available.")
    assert pod.view().unschedulable == "0/1 nodes are available."
    pod.scheduled("node-7")
    assert (pod.view().unschedulable, pod.view().node, pod.view().waiting) == ("", "node-7", "ContainerCreating")
    pod.running(LATER, "127.64.0.1")
    assert (pod.view().running, pod.view().ip, pod.view().started_at) == (True, "127.64.0.1", LATER)
    pod.ended(137, "killed", "OOMKilled", LATER + timedelta(hours=1))

    view = pod.view()
    assert (view.over, view.running, view.exit_code, view.ended_reason) == (True, False, 137, "OOMKilled")
    assert (view.last_word, view.started_at, view.ended_at) == ("killed", LATER, LATER + timedelta(hours=1))


def test_a_pod_that_nobody_has_looked_at_has_nothing_but_its_name() -> None:
    raw = make_pod(make_job(SUBJECT)).raw
    del raw["status"]

    view = view_pod(raw)

    assert (view.phase, view.running, view.exit_code, view.last_word) == ("Pending", False, None, "")


def test_only_the_trainers_container_counts() -> None:
    """Meshes add containers, and kubelets list containers by name."""
    pod = make_pod(make_job(SUBJECT)).scheduled().ended(3, "{}")
    mesh = {"name": "istio-proxy", "state": {"running": {"startedAt": "2026-11-23T09:00:00Z"}}}
    pod.raw["status"]["containerStatuses"].insert(0, mesh)

    assert (pod.view().exit_code, pod.view().running) == (3, False)


def test_a_container_that_never_started_took_no_time() -> None:
    pod = make_pod(make_job(SUBJECT)).scheduled().ended(128, "no such file", "StartError")
    pod.raw["status"]["containerStatuses"][0]["state"]["terminated"]["startedAt"] = "1970-01-01T00:00:00Z"

    assert pod.view().started_at is None


def test_an_eviction_is_seen_with_its_reason() -> None:
    evicted = make_pod(make_job(SUBJECT)).failed("Evicted", "The node was low on resource: memory.").view()
    moved = make_pod(make_job(SUBJECT)).running().disrupted("PreemptionByScheduler", "preempting").deleted().view()

    assert (evicted.over, evicted.reason, evicted.message) == (
        True,
        "Evicted",
        "The node was low on resource: memory.",
    )
    assert (moved.over, moved.running, moved.disrupted, moved.deleted) == (False, True, "preempting", True)


def test_a_condition_that_is_not_true_is_no_disruption() -> None:
    pod = make_pod(make_job(SUBJECT)).running()
    pod.raw["status"]["conditions"] = [
        {"type": "DisruptionTarget", "status": "False", "message": "it was, but not now"}
    ]

    assert pod.view().disrupted == ""


def test_a_finetunejob_is_known_by_name_and_uid() -> None:
    subject = view_subject(make_object(generation=4, annotations={"finetuning.dev/requested-at": "monday"}))

    assert subject.key == Key("clinic", "clinic-triage")
    assert (subject.generation, subject.requested, subject.deleted) == (4, "monday", False)
    assert subject.job.spec.training.epochs == 3
    assert subject.status.phase is None


def test_metadata_of_other_tools_does_not_matter() -> None:
    raw = make_object()
    raw["metadata"] |= {"managedFields": [{"manager": "kubectl"}], "finalizers": ["x/y"], "ownerReferences": []}

    assert view_subject(raw).job.metadata.labels == {}


def test_the_last_word_of_the_latest_pod_that_succeeded_counts() -> None:
    job = make_job(SUBJECT)
    first = make_pod(job, 1, START).reported(prepared_report())
    second = make_pod(job, 2, LATER).reported(published_report())
    third = make_pod(job, 3, LATER + timedelta(minutes=1)).ended(143)

    report = last_report([pod.view() for pod in (third, second, first)])

    assert report is not None
    assert (report.stage, report.run_id, report.digest) == ("publish", RUN_ID, DIGEST)


def test_without_a_pod_that_succeeded_there_is_no_last_word() -> None:
    assert last_report([]) is None
    assert last_report([make_pod(make_job(SUBJECT)).ended(1, prepared_report().model_dump_json()).view()]) is None


@pytest.mark.parametrize("by_alias", [True, False])
def test_a_report_is_read_as_the_trainer_wrote_it(by_alias: bool) -> None:
    want = published_report()
    pod = make_pod(make_job(SUBJECT)).ended(0, want.model_dump_json(by_alias=by_alias))

    assert report_of(pod.view()) == want


@pytest.mark.parametrize("text", ["", "done", "[]", "{}", published_report().model_dump_json()[:-1]])
def test_a_last_word_that_is_no_report_is_none(text: str) -> None:
    assert report_of(make_pod(make_job(SUBJECT)).ended(0, text).view()) is None


def test_of_a_later_trainers_report_what_is_known_counts() -> None:
    want = RunReport(exit_code=ExitCode.DONE, stage="publish", message="Done.")
    later = want.model_dump_json().replace("}", ',"energy": 7}')

    assert report_of(make_pod(make_job(SUBJECT)).ended(0, later).view()) == want


def test_of_a_later_operators_status_what_is_known_counts() -> None:
    subject = make_subject(status={"phase": "Training", "run": {"attempt": 2, "energy": 7}, "carbon": 1})

    assert (subject.status.phase, subject.status.run) == ("Training", RunStatus(attempt=2))


def test_what_a_later_version_may_ask_for_is_not_left_out() -> None:
    with pytest.raises(ValidationError):
        make_subject(training={"epochs": 3, "energy": 7})


def test_times_are_those_of_kubernetes() -> None:
    assert parse_time("2026-11-23T09:00:00Z") == datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    assert parse_time("2026-11-23T09:00:00.123456Z").microsecond == 123456
