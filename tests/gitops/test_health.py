"""Flux, Argo CD and everything else that reads kstatus understand how a job stands."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lupa import lua51  # type: ignore[import-untyped]

from finetune_api.status import PHASES
from finetune_operator import status as operator
from finetune_operator.observed import view_subject
from support.health import HEALTH, KUSTOMIZATION, judge
from support.statuses import SITUATIONS, Situation, make_conditions, make_object, make_status

BY_NAME = [pytest.param(situation, id=situation.name) for situation in SITUATIONS]
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_every_phase_is_looked_at() -> None:
    assert {situation.phase for situation in SITUATIONS} == set(PHASES)


@pytest.mark.parametrize("situation", BY_NAME)
def test_each_situation_is_read_as_it_is_meant(situation: Situation) -> None:
    [verdict] = judge([make_object(situation)])

    assert verdict.flux_error == ""
    assert (verdict.kstatus, verdict.flux, verdict.argo) == (situation.kstatus, situation.flux, situation.argo)


@pytest.mark.parametrize("situation", BY_NAME)
def test_the_verdict_carries_our_sentence(situation: Situation) -> None:
    [verdict] = judge([make_object(situation)])

    if situation.generation == 2:
        assert verdict.argo_message == "The operator has not looked at this manifest yet."
        assert verdict.kstatus_message == "FineTuneJob generation is 2, but latest observed generation is 1"
    else:
        assert verdict.argo_message == situation.message
        assert verdict.kstatus_message in (situation.message, "Resource is Ready")


@pytest.mark.parametrize("situation", BY_NAME)
def test_the_health_check_says_the_same_in_plain_lua(situation: Situation) -> None:
    assert run_lua(make_object(situation))["status"] == situation.argo


def test_a_job_that_was_never_seen_is_in_progress_for_all() -> None:
    unseen = make_object(SITUATIONS[0])
    # What the API server makes of a job without status.
    unseen["status"] = {"observedGeneration": -1, "conditions": [], "history": []}

    [verdict] = judge([unseen])

    assert (verdict.kstatus, verdict.flux, verdict.argo) == ("InProgress", "InProgress", "Progressing")


def test_a_job_without_any_status_makes_argo_cd_wait_and_flux_ask_again() -> None:
    bare = make_object(SITUATIONS[0])
    del bare["status"]

    [verdict] = judge([bare])

    assert verdict.argo == "Progressing"
    assert "no such attribute" in verdict.flux_error


def test_an_operator_that_only_says_pending_is_in_progress() -> None:
    started = make_object(SITUATIONS[0])
    started["status"] = {"observedGeneration": 1, "phase": "Pending", "conditions": [], "history": []}

    [verdict] = judge([started])

    assert (verdict.flux, verdict.argo) == ("InProgress", "Progressing")


@pytest.mark.parametrize("name", ["training", "retrying", "succeeded", "rejected", "failed"])
def test_a_complete_status_is_read_like_a_bare_one(name: str) -> None:
    situation = next(found for found in SITUATIONS if found.name == name)

    [verdict] = judge([make_object(situation, make_status(name))])

    assert (verdict.kstatus, verdict.flux, verdict.argo) == (situation.kstatus, situation.flux, situation.argo)


def test_the_order_of_conditions_does_not_matter() -> None:
    objects = [make_object(situation) for situation in SITUATIONS]
    for found in objects:
        found["status"]["conditions"].reverse()

    want = [(situation.kstatus, situation.flux, situation.argo) for situation in SITUATIONS]
    assert [(verdict.kstatus, verdict.flux, verdict.argo) for verdict in judge(objects)] == want


def test_at_most_one_of_the_three_conditions_is_true() -> None:
    for situation in SITUATIONS:
        held = [condition.type for condition in make_conditions(situation) if condition.status == "True"]
        assert len(held) == (0 if situation.phase == "Suspended" else 1), situation.name


def test_a_misspelt_expression_would_be_found(tmp_path: Path) -> None:
    broken = tmp_path / "kustomization.yaml"
    broken.write_text(KUSTOMIZATION.read_text().replace("failed:", "failing:"))

    with pytest.raises(AssertionError, match="failing"):
        judge([make_object(SITUATIONS[0])], broken)


@pytest.mark.parametrize("situation", BY_NAME)
def test_what_the_operator_writes_is_read_as_it_is_meant(situation: Situation) -> None:
    raw = make_object(situation)
    raw["metadata"] |= {"uid": "3f9a1c2b", "generation": 1, "creationTimestamp": "2026-11-23T12:00:00Z"}
    subject = view_subject({name: value for name, value in raw.items() if name != "status"})
    stood = operator.Situation(situation.phase, situation.reason, situation.message, None, stalled=situation.stalled)
    status = operator.compose_status(subject, stood, None, NOW)

    [verdict] = judge([make_object(situation, status)])

    assert (verdict.kstatus, verdict.flux, verdict.argo) == (situation.kstatus, situation.flux, situation.argo)


def run_lua(found: dict[str, Any]) -> dict[str, str]:
    """The health check in Lua 5.1 with no library but the basic functions, as Argo CD runs it."""
    runtime = lua51.LuaRuntime(register_eval=False)
    for library in ("string", "io", "os", "math", "package", "debug", "require", "python"):
        runtime.globals()[library] = None
    runtime.globals()["obj"] = runtime.table_from(found, recursive=True)
    health = runtime.execute(HEALTH.read_text(encoding="utf-8"))
    return {"status": health["status"], "message": health["message"]}
