"""The status of a job: phases, conditions as kstatus reads them, history, and patches."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.run import Progress
from finetune_api.status import Condition, FailureStatus, FineTuneJobStatus, Phase, RunStatus
from finetune_operator.observed import Subject, view_subject
from finetune_operator.status import Situation, compose_status, stand_still, status_patch, unreadable_status
from support.objects import RUN_ID, START, Object, at, make_adapter, make_evaluation, make_object, make_subject

RUN = RunStatus(attempt=1, key="3f9a1c2b", trigger="Created", started_at=START)
LATER = START + timedelta(hours=1)
EVALUATED = {"adapter": make_adapter(), "evaluation": make_evaluation()}


def compose(situation: Situation, subject: Subject | None = None) -> FineTuneJobStatus:
    return compose_status(subject or make_subject(), situation, None, LATER)


def situation(phase: Phase = "Training", reason: str = "Training", **parts: Any) -> Situation:
    return Situation(phase, reason, "What happens.", parts.pop("run", RUN), **parts)


def conditions(status: FineTuneJobStatus) -> dict[str, Condition]:
    return {condition.type: condition for condition in status.conditions}


def truths(status: FineTuneJobStatus) -> str:
    """Ready, Reconciling and Stalled, and then the steps, by their first letters."""
    return "".join(condition.status[0] for condition in status.conditions)


def written(status: FineTuneJobStatus) -> Object:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


KNOWN = RUN.model_copy(update={"id": RUN_ID})


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (situation("Pending", "Starting"), "FTF UUUU"),
        (situation("Pending", "SecretMissing", stalled=True), "FFT UUUU"),
        (situation("Preparing", "Preparing"), "FTF UUUU"),
        (situation("Queued", "Queued", run=KNOWN), "FTF TUUU"),
        (situation("Training", "Training", run=KNOWN), "FTF TUUU"),
        (situation("Evaluating", "Evaluating", run=KNOWN), "FTF TTUU"),
        (situation("Suspended", "Suspended", run=KNOWN), "FFF TUUU"),
        (situation("Succeeded", "Succeeded", run=KNOWN, **EVALUATED), "TFF TTTT"),
        (situation("Rejected", "Rejected", run=KNOWN, stalled=True, **EVALUATED), "FFT TTTF"),
        (situation("Failed", "DataRejected", stalled=True), "FFT FFFF"),
        (situation("Failed", "Diverged", run=KNOWN, stalled=True), "FFT TFFF"),
        (situation("Suspended", "Suspended", run=None), "FFF UUUU"),
    ],
    ids=lambda value: f"{value.phase}-{value.reason}" if isinstance(value, Situation) else value,
)
def test_conditions_say_what_the_phase_says(given: Situation, want: str) -> None:
    found = truths(compose(given))

    assert f"{found[:3]} {found[3:]}" == want


def test_ready_tells_the_reason_and_the_sentence() -> None:
    ready = conditions(compose(situation("Pending", "SecretMissing", stalled=True)))["Ready"]

    assert (ready.reason, ready.message) == ("SecretMissing", "What happens.")


def test_conditions_that_do_not_hold_do_not_repeat_the_sentence() -> None:
    known = conditions(compose(situation()))

    assert known["Reconciling"].message == "What happens."
    assert known["Stalled"].message == "Nothing is in the way."
    assert known["Evaluated"].message == "Not yet."
    assert known["Evaluated"].reason == "Pending"


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = compose_status(make_subject(), situation(), None, START)
    subject = make_subject(status=written(first), generation=2)

    second = conditions(compose(situation("Succeeded", "Succeeded", run=KNOWN, **EVALUATED), subject))

    assert second["Ready"].last_transition_time == LATER
    assert second["Stalled"].last_transition_time == START
    assert {condition.observed_generation for condition in second.values()} == {2}


def test_the_status_speaks_of_the_present_manifest() -> None:
    assert compose(situation(), make_subject(generation=7)).observed_generation == 7


def test_a_situation_that_stays_gives_the_same_status() -> None:
    first = compose_status(make_subject(), situation(progress=Progress(stage="train", step=3)), None, START)
    subject = make_subject(status=written(first))

    assert compose(situation(progress=Progress(stage="train", step=3)), subject) == first


def test_the_adapter_in_use_stays_unless_the_situation_knows_a_new_one() -> None:
    current = {"runId": "20261101-00000000", "uri": "s3://old", "digest": "sha256:old"}
    subject = make_subject(status={"current": current})

    kept = compose(situation("Rejected", "Rejected", stalled=True, **EVALUATED), subject).current

    assert kept is not None
    assert kept.uri == "s3://old"


def test_standing_still_keeps_all_that_is_known() -> None:
    failure = FailureStatus(reason="StorageFailed", message="No answer.", will_retry=True, retry_at=LATER)
    before = FineTuneJobStatus(
        run=KNOWN,
        progress=Progress(stage="train"),
        failure=failure,
        adapter=make_adapter(),
        evaluation=make_evaluation(),
    )

    after = compose(stand_still(before, "Suspended", "Suspended", "Suspended."), make_subject(status=written(before)))

    for name in ("run", "progress", "failure", "adapter", "evaluation"):
        assert getattr(after, name) == getattr(before, name)


def test_a_run_that_another_takes_the_place_of_becomes_history() -> None:
    finished = KNOWN.model_copy(update={"outcome": "Succeeded", "finished_at": START, "message": "Better."})
    before = compose(situation("Succeeded", "Succeeded", run=finished, **EVALUATED))
    subject = make_subject(status=written(before), historyLimit=2)

    after = compose(situation(run=RunStatus(attempt=1, key="00000002")), subject)

    (past,) = after.history
    assert (past.id, past.trigger, past.outcome, past.message) == (RUN_ID, "Created", "Succeeded", "Better.")
    assert (past.adapter_uri, past.finished_at) == (make_adapter().uri, START)


def test_history_is_the_latest_first_and_no_longer_than_asked_for() -> None:
    subject = make_subject(historyLimit=2)
    for number in range(4):
        status = compose(situation(run=RunStatus(attempt=1, id=f"run-{number}", key=f"{number:08}")), subject)
        subject = make_subject(historyLimit=2, status=written(status))

    assert [past.id for past in subject.status.history] == ["run-2", "run-1"]
    assert (
        compose(situation(run=subject.status.run), make_subject(status=written(subject.status), historyLimit=0)).history
        == []
    )


# Patches.


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


@pytest.mark.parametrize(
    ("before", "after", "want"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {}, {"a": None}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 3}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, {}),
        ({"a": {"b": 1}}, {}, {"a": None}),
        ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": [1, 2]}, {"a": [2]}, {"a": [2]}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1}]}, {}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": 1}, {"a": 1}),
    ],
)
def test_a_patch_says_what_is_different_and_no_more(before: Object, after: Object, want: Object) -> None:
    patch = status_patch(before, after)

    assert patch == want
    assert merge(before, patch) == after


# A job of another version.


def broken(status: Object | None = None, **spec: Any) -> tuple[Object, ValidationError]:
    raw = make_object(status=status, generation=4, **spec)
    with pytest.raises(ValidationError) as caught:
        view_subject(raw)
    return raw, caught.value


def test_a_job_of_another_version_says_what_cannot_be_read() -> None:
    raw, error = broken(training={"epochs": "many"}, sweep={})

    status = FineTuneJobStatus.model_validate(unreadable_status(raw, error, START))

    assert status.message == (
        "This version of the operator cannot read the job: spec.training.epochs: must be a whole number, got 'many'; "
        "spec.sweep: unknown field."
    )
    assert status.observed_generation == 4
    assert truths(status) == "FFT"


def test_what_was_known_of_a_job_that_cannot_be_read_any_more_stays() -> None:
    before = written(compose(situation("Succeeded", "Succeeded", run=KNOWN, **EVALUATED)))
    raw, error = broken(status=before, sweep={})

    after = unreadable_status(raw, error, LATER + timedelta(hours=1))

    assert {name: after[name] for name in ("run", "adapter", "evaluation")} == {
        name: before[name] for name in ("run", "adapter", "evaluation")
    }
    kinds = conditions(FineTuneJobStatus.model_validate(after))
    assert kinds["Promoted"].status == "True"
    assert kinds["Ready"].last_transition_time == LATER + timedelta(hours=1)
    assert kinds["Reconciling"].last_transition_time == LATER


def test_a_job_that_stays_unreadable_is_not_written_again() -> None:
    raw, error = broken(sweep={})
    first = unreadable_status(raw, error, START)

    again = unreadable_status({**raw, "status": first}, error, LATER)

    assert status_patch(first, again) == {}
    assert again["conditions"][0]["lastTransitionTime"] == at(START)
