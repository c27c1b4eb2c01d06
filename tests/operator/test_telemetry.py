"""What Prometheus is told: counted once, at the moment it happened, with few labels."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args

import pytest

from finetune_api.run import ExitCode
from finetune_api.status import PHASES, Outcome, Phase, Trigger
from finetune_operator.decision import decide
from finetune_operator.telemetry import LiveState, Telemetry
from support.objects import failed_report
from support.world import World


class WatchedWorld(World):
    """A world whose every look is counted, as the operator counts what it has written."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(**spec)
        self.telemetry = Telemetry()

    def look(self, lose_status: bool = False) -> bool:
        seen, writes = self.observe(), self.writes
        after = decide(seen, self.settings, self.now).status
        again = super().look(lose_status)
        if self.writes > writes:
            self.telemetry.note_turn(seen, after)
        return again


def samples(telemetry: Telemetry) -> dict[str, float]:
    """Values by name and labels, as they stand in the text that Prometheus reads; zeros left out."""
    lines = telemetry.render().decode().splitlines()
    found = (line.rsplit(" ", 1) for line in lines if not line.startswith("#") and "_created" not in line)
    return {name: float(value) for name, value in found if float(value)}


def counted(world: WatchedWorld, name: str) -> dict[str, float]:
    return {key.removeprefix(name): value for key, value in samples(world.telemetry).items() if key.startswith(name)}


def test_a_run_that_succeeds_is_counted_once() -> None:
    world = WatchedWorld()
    world.finish_run()
    world.edit(retries=7)
    world.pass_time(days=1)

    assert counted(world, "finetune_runs_finished_total") == {'{result="Succeeded",trigger="Created"}': 1}
    assert counted(world, "finetune_failures") == {}


def test_a_status_that_was_not_written_counts_nothing() -> None:
    world = WatchedWorld()
    world.settle()
    world.finish_stage()
    world.run_pod()
    world.pod.reported(world.speak(world.active), world.now)
    world.active.complete(world.now)

    for _ in range(3):
        world.look(lose_status=True)
    assert counted(world, "finetune_runs_finished_total") == {}
    world.settle()

    assert sum(counted(world, "finetune_runs_finished_total").values()) == 1


def test_each_run_is_counted_by_what_started_it() -> None:
    world = WatchedWorld()
    world.finish_run()
    world.edit(training={"epochs": 2})
    world.finish_run("Failed")
    world.request("monday")
    world.finish_run()

    assert counted(world, "finetune_runs_finished_total") == {
        '{result="Succeeded",trigger="Created"}': 1,
        '{result="Rejected",trigger="SpecChanged"}': 1,
        '{result="Rejected",trigger="Requested"}': 1,
    }


def test_failures_and_retries_are_counted_by_reason() -> None:
    world = WatchedWorld(retries=2)
    world.settle()
    for code in (ExitCode.STORAGE, ExitCode.OUT_OF_MEMORY, ExitCode.STORAGE):
        world.run_pod()
        world.end_pod(failed_report(code))
        world.pass_time(minutes=10)

    assert counted(world, "finetune_failures_total") == {'{reason="StorageFailed"}': 2, '{reason="OutOfMemory"}': 1}
    assert counted(world, "finetune_retries_total") == {'{reason="StorageFailed"}': 1, '{reason="OutOfMemory"}': 1}
    assert counted(world, "finetune_runs_finished_total") == {'{result="Failed",trigger="Created"}': 1}


def test_looks_at_the_data_are_counted_by_what_they_found() -> None:
    world = WatchedWorld(retrain={"onDatasetChange": True, "checkIntervalSeconds": 600})
    world.finish_run()

    world.pass_time(seconds=600)
    world.finish_check()
    world.pass_time(seconds=600)
    world.finish_check(code=1)
    world.data = "v2"
    world.pass_time(seconds=600)
    world.finish_check()

    assert counted(world, "finetune_checks_total") == {
        '{result="unchanged"}': 1,
        '{result="failed"}': 1,
        '{result="changed"}': 1,
    }


def test_data_that_is_seen_for_the_first_time_has_not_changed() -> None:
    world = WatchedWorld(retrain={"onDatasetChange": True, "checkIntervalSeconds": 600})
    world.settle()
    world.finish_stage()
    world.edit(retrain={"onDatasetChange": True, "checkIntervalSeconds": 600, "concurrencyPolicy": "Replace"})
    world.raw["status"]["retrain"].pop("dataVersion")
    world.run_pod()
    world.pass_time(seconds=600)

    world.finish_check()

    assert counted(world, "finetune_checks_total") == {'{result="unchanged"}': 1}


def train_for(world: World, **time: float) -> None:
    world.run_pod()
    world.now += timedelta(**time)


def test_the_time_of_each_stage_and_its_accelerators_is_measured() -> None:
    world = WatchedWorld(resources={"gpus": 4})
    world.settle()
    train_for(world, minutes=3)
    world.end_pod(world.speak(world.active))
    train_for(world, hours=2)
    world.end_pod(world.speak(world.active))

    assert counted(world, "finetune_stage_duration_seconds_sum") == {'{stage="prepare"}': 180, '{stage="train"}': 7200}
    assert counted(world, "finetune_gpu_seconds_total") == {'{namespace="clinic"}': 4 * 7200}


def test_attempts_that_failed_took_their_time_too() -> None:
    world = WatchedWorld()
    world.settle()
    world.finish_stage()
    train_for(world, minutes=10)
    world.end_pod(failed_report(ExitCode.STORAGE))
    world.pass_time(seconds=10)
    train_for(world, minutes=20)
    world.end_pod(world.speak(world.active))

    assert counted(world, "finetune_gpu_seconds_total") == {'{namespace="clinic"}': 1800}


def test_the_next_runs_end_does_not_count_the_time_of_the_last_run_again() -> None:
    world = WatchedWorld()
    world.settle()
    world.finish_stage()
    train_for(world, minutes=10)
    world.end_pod(world.speak(world.active))
    old = list(world.children.pods.items())

    world.edit(training={"epochs": 2})
    world.settle()
    world.children.pods |= dict(old)  # not removed yet
    world.finish_run()

    assert counted(world, "finetune_gpu_seconds_total") == {'{namespace="clinic"}': 600}


def test_a_container_that_never_started_took_no_time() -> None:
    world = WatchedWorld()
    world.settle()
    world.finish_stage()
    pod = world.pod.scheduled().ended(128, "no such file", "StartError", world.now)
    pod.raw["status"]["containerStatuses"][0]["state"]["terminated"]["startedAt"] = "1970-01-01T00:00:00Z"
    world.children.conclude(world.active, pod, world.now)
    world.pass_time(seconds=10)
    world.finish_run()

    assert counted(world, "finetune_gpu_seconds_total") == {}


def test_the_wait_for_a_node_is_measured_from_job_to_running_pod() -> None:
    world = WatchedWorld()
    world.settle()
    world.finish_stage()
    world.settle()
    world.now += timedelta(minutes=7)

    world.run_pod()
    world.settle()

    assert counted(world, "finetune_queue_wait_seconds_sum") == {"": 420}
    assert counted(world, "finetune_queue_wait_seconds_count") == {"": 1}


@pytest.mark.parametrize(
    ("note", "want"),
    [
        (lambda told: told.count_error("bug"), 'finetune_reconcile_errors_total{kind="bug"}'),
        (
            lambda told: told.count_request("create", "jobs", 409),
            'finetune_api_requests_total{code="409",resource="jobs",verb="create"}',
        ),
        (lambda told: told.turns.observe(0.5), "finetune_reconcile_duration_seconds_count"),
    ],
)
def test_the_operators_own_work_is_counted(note: Callable[[Telemetry], None], want: str) -> None:
    telemetry = Telemetry()

    note(telemetry)

    assert samples(telemetry)[want] == 1


def live(phases: list[tuple[str, Phase]]) -> LiveState:
    return LiveState(lambda: phases, lambda: {"jobs": 3.5}, lambda: 4, lambda: True)


def test_jobs_by_phase_are_read_off_the_live_state() -> None:
    telemetry, phases = Telemetry(), list[tuple[str, Phase]]()
    telemetry.show(live(phases))
    phases += [("clinic", "Training"), ("clinic", "Training"), ("lab", "Failed")]

    found = samples(telemetry)
    assert found['finetune_jobs{namespace="clinic",phase="Training"}'] == 2
    assert found['finetune_jobs{namespace="lab",phase="Failed"}'] == 1
    phases.clear()

    assert not any(name.startswith("finetune_jobs{") for name in samples(telemetry))


def test_a_phase_without_jobs_is_zero_and_not_missing() -> None:
    telemetry = Telemetry()
    telemetry.show(live([("clinic", "Training")]))

    text = telemetry.render().decode()

    for phase in PHASES:
        assert f'finetune_jobs{{namespace="clinic",phase="{phase}"}} ' in text


def test_watches_queue_and_leadership_are_gauges() -> None:
    telemetry = Telemetry()
    telemetry.show(live([]))

    found = samples(telemetry)

    assert found['finetune_watch_age_seconds{resource="jobs"}'] == 3.5
    assert (found["finetune_workqueue_depth"], found["finetune_leader"]) == (4, 1)


def test_counters_of_finished_runs_are_there_before_the_first_ends() -> None:
    """Else rate() does not see the first."""
    text = Telemetry().render().decode()

    for result in get_args(Outcome):
        for trigger in get_args(Trigger):
            assert f'finetune_runs_finished_total{{result="{result}",trigger="{trigger}"}} 0.0' in text


def test_names_follow_the_conventions_of_prometheus() -> None:
    telemetry = Telemetry()
    telemetry.show(live([("clinic", "Training")]))
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", telemetry.render().decode(), re.MULTILINE))

    assert kinds
    for name, kind in kinds.items():
        assert name.startswith("finetune_")
        if kind == "counter":
            assert name.endswith("_total")
        if kind == "histogram":
            assert name.endswith("_seconds")
        if "time" in name or "age" in name or "wait" in name:
            assert "seconds" in name


def test_no_label_has_a_value_for_each_job() -> None:
    world = WatchedWorld(retrain={"onDatasetChange": True, "checkIntervalSeconds": 600})
    world.finish_run()
    world.pass_time(seconds=600)
    world.finish_check()

    labels = set(re.findall(r"(\w+)=\"", world.telemetry.render().decode()))

    assert labels <= {"result", "trigger", "reason", "namespace", "kind", "verb", "resource", "code", "stage", "le"}
    assert world.subject.key.name not in world.telemetry.render().decode()
