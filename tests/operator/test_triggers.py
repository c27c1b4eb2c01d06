"""What makes a job run, and when."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from finetune_api.identity import spec_digest
from finetune_api.retrain import RetrainSpec
from finetune_api.schema import CRON_PATTERN
from finetune_operator.observed import Subject
from finetune_operator.triggers import (
    NICKNAMES,
    InvalidSchedule,
    Start,
    due_start,
    due_tick,
    find_fault,
    follow_schedule,
    next_tick,
)
from support.objects import at, make_subject

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
REQUEST = "finetuning.dev/requested-at"
NIGHTLY = {"schedule": "0 3 * * *"}


def schedule(text: str, zone: str = "UTC") -> RetrainSpec:
    return RetrainSpec.model_validate({"schedule": text, "timeZone": zone})


def begun(outcome: str | None = "Succeeded", remembered: dict[str, Any] | None = None, **parts: Any) -> Subject:
    """A job whose run ended, or with None still goes on; `remembered` is what its status knows of retraining."""
    run = {"attempt": 1, "key": "3f9a1c2b", "specDigest": spec_digest(make_subject().job.spec)}
    ended = {"outcome": outcome} if outcome else {}
    return make_subject(status={"run": run | ended, "retrain": remembered or {}}, **parts)


def scheduled(remembered: dict[str, Any], **parts: Any) -> Subject:
    """A finished job with a nightly schedule."""
    return begun(remembered=remembered, **{"retrain": NIGHTLY, **parts})


def start_of(subject: Subject, new_data: str | None = None, now: datetime = NOON) -> Start | None:
    return due_start(subject, subject.status.run, new_data, now)


def test_a_job_without_a_run_starts_one() -> None:
    assert start_of(make_subject(generation=3)) == Start("Created", "generation-3")


def test_a_changed_manifest_starts_a_run_even_while_another_goes_on() -> None:
    for outcome in (None, "Succeeded", "Rejected", "Failed"):
        assert start_of(begun(outcome, generation=2, training={"epochs": 4})) == Start("SpecChanged", "generation-2")


@pytest.mark.parametrize(
    "spec",
    [
        {"retries": 0},
        {"activeDeadlineSeconds": 60},
        {"ttlSecondsAfterFinished": 0},
        {"historyLimit": 0},
        {"resources": {"gpus": 4, "memory": "64Gi"}},
        {"podTemplate": {"labels": {"team": "a"}}},
        {"queueName": "team-a"},
        {"retrain": {"schedule": "0 3 * * *", "onDatasetChange": True}},
        {"suspend": True},
        {"output": {"uri": "s3://adapters/clinic", "secretRef": {"name": "s3"}}},
        {"model": {"uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct", "secretRef": {"name": "hub"}}},
        {"training": {"epochs": 3, "maxEpochs": 5}},
    ],
)
def test_what_does_not_decide_the_result_starts_nothing(spec: dict[str, Any]) -> None:
    assert start_of(begun(generation=2, **spec)) is None


def test_a_request_starts_a_run_once() -> None:
    asked = {REQUEST: "monday"}

    assert start_of(begun(annotations=asked)) == Start("Requested", "request-monday")
    assert start_of(begun(annotations=asked, remembered={"handledRequest": "monday"})) is None
    assert start_of(begun(remembered={"handledRequest": "monday"})) is None


def test_an_empty_request_asks_for_nothing() -> None:
    assert start_of(begun(annotations={REQUEST: ""})) is None


def test_new_data_starts_a_run() -> None:
    assert start_of(begun(), new_data="v2") == Start("DatasetChanged", "data-v2")


def test_a_schedule_that_came_due_starts_a_run() -> None:
    nightly = scheduled({"schedule": "0 3 * * * UTC", "nextScheduleTime": at(NOON)})

    assert start_of(nightly) == Start("Schedule", "schedule-20261123T1200")
    assert start_of(nightly, now=NOON - timedelta(seconds=1)) is None


@pytest.mark.parametrize("known", ["0 2 * * * UTC", "0 3 * * * Europe/Berlin"])
def test_a_tick_of_a_schedule_that_was_edited_is_not_due(known: str) -> None:
    assert due_tick(scheduled({"schedule": known, "nextScheduleTime": at(NOON)}), NOON) is None


def test_ticks_while_suspended_start_nothing() -> None:
    assert start_of(scheduled({"schedule": "0 3 * * * UTC", "nextScheduleTime": at(NOON)}, suspend=True)) is None


def test_a_run_that_goes_on_is_left_to_finish_unless_it_may_be_replaced() -> None:
    asked = {REQUEST: "monday"}

    assert start_of(begun(None, annotations=asked), new_data="v2") is None
    replaced = begun(None, annotations=asked, retrain={"concurrencyPolicy": "Replace"})
    assert start_of(replaced, new_data="v2") == Start("Requested", "request-monday")


# What is remembered of a schedule.


def test_a_new_schedule_is_first_due_after_now() -> None:
    known = follow_schedule(make_subject(retrain=NIGHTLY), NOON)

    assert known.schedule == "0 3 * * * UTC"
    assert known.next_schedule_time == datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
    assert known.last_schedule_time is None


def test_missed_ticks_count_once() -> None:
    tick = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)

    known = follow_schedule(scheduled({"schedule": "0 3 * * * UTC", "nextScheduleTime": at(tick)}), NOON)

    assert known.last_schedule_time == tick
    assert known.next_schedule_time == datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


def test_an_edited_schedule_is_reckoned_anew_and_its_history_stays() -> None:
    tick = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
    remembered = {"schedule": "0 2 * * * UTC", "nextScheduleTime": at(NOON), "lastScheduleTime": at(tick)}

    known = follow_schedule(scheduled(remembered), NOON)

    assert (known.schedule, known.last_schedule_time) == ("0 3 * * * UTC", tick)
    assert known.next_schedule_time == datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


def test_a_schedule_taken_away_leaves_no_next_time() -> None:
    remembered = {"schedule": "0 3 * * * UTC", "nextScheduleTime": at(NOON), "lastScheduleTime": at(NOON)}

    known = follow_schedule(scheduled(remembered, retrain={}), NOON)

    assert (known.schedule, known.next_schedule_time, known.last_schedule_time) == (None, None, NOON)


def test_a_bad_schedule_counts_as_none_until_it_is_mended() -> None:
    remembered = {"schedule": "0 3 * * * UTC", "nextScheduleTime": at(NOON + timedelta(hours=1))}
    bad = scheduled(remembered, retrain={**NIGHTLY, "timeZone": "Europe/Atlantis"})

    known = follow_schedule(bad, NOON)

    assert (known.schedule, known.next_schedule_time) == (None, None)


# The clock on the wall.


@pytest.mark.parametrize(
    ("text", "zone", "after", "want"),
    [
        ("0 3 * * 0", "UTC", "2026-11-23T12:00:00Z", "2026-11-29T03:00:00Z"),
        ("0 3 * * 7", "UTC", "2026-11-23T12:00:00Z", "2026-11-29T03:00:00Z"),
        ("0 3 * * sun", "UTC", "2026-11-23T12:00:00Z", "2026-11-29T03:00:00Z"),
        ("*/20 9-17 * * *", "UTC", "2026-11-23T17:39:00Z", "2026-11-23T17:40:00Z"),
        ("*/20 9-17 * * *", "UTC", "2026-11-23T17:40:00Z", "2026-11-24T09:00:00Z"),
        ("0 0 29 2 *", "UTC", "2026-11-23T12:00:00Z", "2028-02-29T00:00:00Z"),
        ("@daily", "UTC", "2026-11-23T12:00:00Z", "2026-11-24T00:00:00Z"),
        ("@hourly", "Asia/Kolkata", "2026-11-23T12:00:00Z", "2026-11-23T12:30:00Z"),
        ("0 3 * * *", "Europe/Berlin", "2026-11-23T12:00:00Z", "2026-11-24T02:00:00Z"),
        ("0 3 * * *", "America/New_York", "2026-11-23T12:00:00Z", "2026-11-24T08:00:00Z"),
    ],
)
def test_a_schedule_is_due_by_the_clock_of_its_zone(text: str, zone: str, after: str, want: str) -> None:
    assert at(next_tick(schedule(text, zone), datetime.fromisoformat(after))) == want


@pytest.mark.parametrize(
    ("text", "after", "want"),
    [
        # 2027-03-28: clocks in Berlin go from 02:00 CET to 03:00 CEST.
        ("0 3 * * *", "2027-03-27T02:00:00Z", "2027-03-28T01:00:00Z"),
        ("30 2 * * *", "2027-03-27T01:30:00Z", "2027-03-28T01:00:00Z"),
        ("30 2 * * *", "2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"),
        # 2027-10-31: they go from 03:00 CEST back to 02:00 CET; half past two comes twice.
        ("30 2 * * *", "2027-10-30T00:30:00Z", "2027-10-31T00:30:00Z"),
        ("30 2 * * *", "2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"),
        ("0 4 * * *", "2027-10-30T02:00:00Z", "2027-10-31T03:00:00Z"),
    ],
)
def test_on_days_when_clocks_change_a_daily_run_comes_once(text: str, after: str, want: str) -> None:
    assert at(next_tick(schedule(text, "Europe/Berlin"), datetime.fromisoformat(after))) == want


def test_a_daily_schedule_is_due_once_each_day_of_a_year() -> None:
    zone, time, ticks = schedule("30 2 * * *", "Europe/Berlin"), datetime(2027, 1, 1, tzinfo=UTC), []
    while time.year == 2027:
        time = next_tick(zone, time)
        ticks.append(time)

    gaps = {later - earlier for earlier, later in pairwise(ticks)}
    assert len(ticks) == 366
    assert min(gaps) >= timedelta(hours=23)
    assert max(gaps) <= timedelta(hours=25)


@pytest.mark.parametrize(
    ("text", "zone", "want"),
    [
        ("0 0 31 2 *", "UTC", "spec.retrain.schedule '0 0 31 2 *' is no cron expression: "),
        ("0 0 20-10 * *", "UTC", "spec.retrain.schedule '0 0 20-10 * *' is no cron expression: "),
        ("0 3 * * *", "Europe/Atlantis", "spec.retrain.timeZone Europe/Atlantis is not a known time zone."),
        ("0 3 * * *", "Europe", "spec.retrain.timeZone Europe is not a known time zone."),
        ("0 3 * * *", "Europe/", "spec.retrain.timeZone Europe/ is not a known time zone."),
        ("0 3 * * *", "/etc/passwd", "spec.retrain.timeZone /etc/passwd is not a known time zone."),
        ("0 3 * * *", "A" * 64, "is not a known time zone."),
    ],
)
def test_a_schedule_without_meaning_is_explained(text: str, zone: str, want: str) -> None:
    bad = schedule(text, zone)

    with pytest.raises(InvalidSchedule):
        next_tick(bad, NOON)
    assert want in str(find_fault(bad, NOON))


def test_nothing_is_wrong_with_a_good_schedule_or_with_none() -> None:
    assert find_fault(schedule("0 3 * * 0", "Europe/Berlin"), NOON) is None
    assert find_fault(RetrainSpec(time_zone="Europe/Atlantis"), NOON) is None


def test_every_nickname_that_the_api_takes_is_known() -> None:
    named = CRON_PATTERN.removeprefix("^(@(").split(")")[0].split("|")

    assert [f"@{name}" for name in named] == list(NICKNAMES)
    for nickname in NICKNAMES:
        assert next_tick(schedule(nickname), NOON) > NOON
