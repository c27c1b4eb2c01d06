"""Operators that die, are replaced, lose the API server, or miss what happens."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.control_plane import ControlPlane
from support.lives import Life, manifest, published, report
from support.operator_process import NAMESPACE, OperatorProcess, running_operator, start_operator
from support.waiting import wait_until


@pytest.fixture
def own(make_life: Callable[[], Life]) -> Life:
    """A namespace that the shared operator does not see to first: each test starts operators of its own for it."""
    return make_life()


@contextmanager
def second_operator(plane: ControlPlane, folder: Path, settings: dict[str, str]) -> Iterator[OperatorProcess]:
    """Another replica, which waits for the Lease."""
    operator = start_operator(plane, folder, settings)
    try:
        yield operator
    finally:
        if operator.process.poll() is None:
            operator.stop()


def settings_for(life: Life) -> dict[str, str]:
    """Two replicas for one namespace, with a Lease of their own."""
    return {"FINETUNE_WATCH_NAMESPACES": life.namespace, "FINETUNE_LEASE_NAME": f"replicas-{life.namespace}"}


def test_one_of_two_replicas_leads_and_the_other_takes_over_at_once(
    plane: ControlPlane, own: Life, tmp_path: Path
) -> None:
    settings = settings_for(own)
    with running_operator(plane, tmp_path, settings) as first, second_operator(plane, tmp_path, settings) as second:
        own.apply(manifest())
        own.wait_for_pod("prepare")
        assert not second.leads()
        first.stop()
        wait_until(second.leads, 8, second.log.read_text)
        own.succeed()


def test_a_replica_takes_over_from_one_that_was_killed(plane: ControlPlane, own: Life, tmp_path: Path) -> None:
    settings = settings_for(own)
    with running_operator(plane, tmp_path, settings) as first, second_operator(plane, tmp_path, settings) as second:
        own.apply(manifest())
        own.pass_stage("prepare", report("prepare"))
        own.run(own.wait_for_pod("train"))
        own.wait_for_phase("Training")
        first.stop(signal.SIGKILL)
        wait_until(second.leads, 25, second.log.read_text)
        assert len(own.objects("jobs")) == 2
        own.finish(own.wait_for_pod("train"), published())
        own.wait_for_phase("Succeeded")


def test_a_restart_makes_nothing_twice_and_writes_nothing(plane: ControlPlane, own: Life, tmp_path: Path) -> None:
    settings = settings_for(own)
    with running_operator(plane, tmp_path, settings):
        own.apply(manifest())
        own.succeed()
        own.apply(manifest("other"))
        own.run(own.wait_for_pod("prepare", job="other"))
        own.wait_for_phase("Preparing", "other")
    before = [own.job(name)["metadata"]["resourceVersion"] for name in ("clinic", "other")]
    with running_operator(plane, tmp_path, settings) as restarted:
        wait_until(lambda: restarted.metric("finetune_reconcile_duration_seconds_count") >= 2, 20)
        own.plane.kubectl("get", "--raw", "/readyz")
        assert [own.job(name)["metadata"]["resourceVersion"] for name in ("clinic", "other")] == before
        assert restarted.metric("finetune_api_requests_total", verb="create", resource="jobs") == 0
        assert restarted.metric("finetune_api_requests_total", verb="patch") == 0
    assert len(own.objects("jobs")) == 3


def test_what_happened_while_no_operator_ran_is_seen(plane: ControlPlane, own: Life, tmp_path: Path) -> None:
    settings = settings_for(own)
    with running_operator(plane, tmp_path, settings):
        own.apply(manifest())
        own.pass_stage("prepare", report("prepare"))
        own.run(own.wait_for_pod("train"))
        own.wait_for_phase("Training")
    own.finish(own.wait_for_pod("train"), published())
    with running_operator(plane, tmp_path, settings):
        own.wait_for_phase("Succeeded")


def test_a_lost_status_is_found_again_in_the_children(plane: ControlPlane, own: Life, tmp_path: Path) -> None:
    settings = settings_for(own)
    with running_operator(plane, tmp_path, settings):
        own.apply(manifest())
        finished = own.succeed()
    nothing = ("--type=merge", "--patch", '{"status": null}', "--output=json")
    lost = json.loads(own.kubectl("patch", "finetunejob", "clinic", "--subresource=status", *nothing))
    assert "phase" not in lost.get("status", {})
    with running_operator(plane, tmp_path, settings):
        assert own.wait_for_phase("Succeeded")["current"] == finished["current"]
    assert len(own.objects("jobs")) == 2


def test_the_operator_outlives_the_api_server(plane: ControlPlane, own: Life, tmp_path: Path) -> None:
    settings = {**settings_for(own), "FINETUNE_LEADER_ELECTION": "false"}
    with running_operator(plane, tmp_path, settings) as operator:
        own.apply(manifest())
        own.run(own.wait_for_pod("prepare"))
        own.wait_for_phase("Preparing")
        plane.stop_api_server(signal.SIGKILL)
        plane.start_api_server()
        own.finish(own.wait_for_pod("prepare"), report("prepare"))
        own.wait_for_pod("train")
        assert operator.process.poll() is None


def test_an_operator_without_a_trainer_image_says_what_is_missing(plane: ControlPlane, tmp_path: Path) -> None:
    operator = start_operator(plane, tmp_path, {"FINETUNE_TRAINER_IMAGE": "", "FINETUNE_WORKERS": "many"})
    assert operator.process.wait(timeout=30) == 1
    said = operator.log.read_text()
    assert "FINETUNE_TRAINER_IMAGE" in said
    assert "FINETUNE_WORKERS" in said
    assert "Traceback" not in said


def test_the_lease_tells_who_leads(plane: ControlPlane, operator: OperatorProcess) -> None:
    holder = plane.kubectl(
        "get", "lease", "finetune-operator", "--namespace", NAMESPACE, "--output=jsonpath={.spec.holderIdentity}"
    )
    assert holder == f"operator-{operator.metrics_port}"
