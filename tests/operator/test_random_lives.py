"""Random lives: whatever users, nodes and trainers do, the laws hold, and in the end the job gets done."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from finetune_api.run import ExitCode, Progress
from support.objects import failed_report
from support.world import World

STEPS = 200
MACHINES: list[dict[str, Any]] = [{"gpus": 0}, {"gpus": 1}, {"nodes": 2}, {"nodes": 3, "gpus": 8}]
FAILURES = [code for code in ExitCode if code != ExitCode.DONE]
Deed = Callable[[World, random.Random], None]


def change_what_decides(world: World, dice: random.Random) -> None:
    world.edit(training={"epochs": dice.choice([2, 3, 4])})


def change_what_does_not(world: World, dice: random.Random) -> None:
    world.edit(
        retries=dice.choice([0, 1, 3, 100]),
        activeDeadlineSeconds=dice.choice([None, 60, 3600, 100000]),
        ttlSecondsAfterFinished=dice.choice([None, 0, 60]),
        historyLimit=dice.choice([0, 1, 5]),
        queueName=dice.choice([None, "team-a"]),
        resources={"prepare": {"separate": dice.random() < 0.8}, **dice.choice(MACHINES)},
    )


def change_the_schedule(world: World, dice: random.Random) -> None:
    world.edit(
        retrain={
            "schedule": dice.choice(["0 3 * * *", "*/20 * * * *", "30 2 29 2 *"]),
            "timeZone": dice.choice(["UTC", "Europe/Berlin", "Nowhere/Land"]),
            "onDatasetChange": dice.random() < 0.5,
            "checkIntervalSeconds": dice.choice([10, 3600]),
            "concurrencyPolicy": dice.choice(["Forbid", "Replace"]),
        }
    )


def suspend_or_resume(world: World, dice: random.Random) -> None:
    world.edit(suspend=dice.random() < 0.4)


def ask_for_a_run(world: World, dice: random.Random) -> None:
    world.request(str(dice.randrange(5)))


def bring_new_data(world: World, dice: random.Random) -> None:
    world.data = f"v{dice.randrange(4)}"


def suspend_outside(world: World, dice: random.Random) -> None:
    if world.children.active:
        world.suspend_outside(dice.random() < 0.5)


def delete_a_job(world: World, dice: random.Random) -> None:
    if world.children.jobs:
        world.children.delete(dice.choice(sorted(world.children.jobs)), world.now)


def lose_a_pod(world: World, dice: random.Random) -> None:
    over = [name for name, pod in world.children.pods.items() if pod.view().over]
    if over:
        del world.children.pods[dice.choice(over)]


def stop_pods(world: World, _: random.Random) -> None:
    world.children.remove_stopped_pods()


def run_a_pod(world: World, dice: random.Random) -> None:
    if world.children.active and not world.active.view().suspended:
        world.run_pod(dice.choice([None, Progress(stage="train", step=3), Progress(stage="evaluate")]))


def end_a_pod_well(world: World, dice: random.Random) -> None:
    if is_running(world):
        world.end_pod(world.speak(world.active, dice.choice(["Passed", "Failed", "Inconclusive"])))


def end_a_pod_badly(world: World, dice: random.Random) -> None:
    if is_running(world):
        report = failed_report(dice.choice(FAILURES), data_version=dice.choice([None, world.data]))
        world.end_pod(report, index=any_index(world, dice))


def kill_a_pod(world: World, dice: random.Random) -> None:
    if is_running(world):
        reason = dice.choice(["Error", "OOMKilled"])
        world.end_pod(code=dice.choice([0, 1, 4, 137, 143]), reason=reason, index=any_index(world, dice))


def evict_a_pod(world: World, dice: random.Random) -> None:
    if world.children.active and not world.active.view().suspended:
        world.evict_pod(index=any_index(world, dice))


def any_index(world: World, dice: random.Random) -> int:
    return dice.randrange(len(world.pods))


def delete_a_service(world: World, dice: random.Random) -> None:
    if world.children.services:
        del world.children.services[dice.choice(sorted(world.children.services))]


def is_running(world: World) -> bool:
    job = world.children.active
    return job is not None and any(pod.view().running for pod in world.children.live(job.view().name))


def end_a_look_at_the_data(world: World, dice: random.Random) -> None:
    if world.children.checking:
        world.finish_check(dice.choice([None, None, 1]))


def wait_a_little(world: World, dice: random.Random) -> None:
    world.pass_time(seconds=dice.choice([1, 7, 30, 200]))


def sleep_through(world: World, dice: random.Random) -> None:
    world.sleep_through(hours=dice.choice([1, 5, 30]))


def die_before_writing(world: World, _: random.Random) -> None:
    world.look(lose_status=True)


def lose_the_status(world: World, _: random.Random) -> None:
    world.lose_status()


DEEDS: list[tuple[Deed, int]] = [
    (change_what_decides, 2),
    (change_what_does_not, 3),
    (change_the_schedule, 2),
    (suspend_or_resume, 4),
    (ask_for_a_run, 2),
    (bring_new_data, 2),
    (suspend_outside, 3),
    (delete_a_job, 2),
    (lose_a_pod, 2),
    (delete_a_service, 2),
    (stop_pods, 8),
    (run_a_pod, 14),
    (end_a_pod_well, 8),
    (end_a_pod_badly, 4),
    (kill_a_pod, 4),
    (evict_a_pod, 4),
    (end_a_look_at_the_data, 6),
    (wait_a_little, 8),
    (sleep_through, 3),
    (die_before_writing, 3),
    (lose_the_status, 1),
]


def calm(world: World) -> None:
    """Everybody behaves well from now on."""
    world.edit(suspend=False, retries=3, activeDeadlineSeconds=None, ttlSecondsAfterFinished=None, retrain=None)
    world.edit(queueName=None, training={"epochs": 7})
    world.settle()
    if world.children.active:
        world.suspend_outside(False)


@pytest.mark.parametrize("seed", range(12))
def test_in_any_life_the_laws_hold_and_the_job_gets_done(seed: int) -> None:
    dice = random.Random(seed)
    world = World()
    deeds, weights = zip(*DEEDS, strict=True)
    for deed in dice.choices(deeds, weights, k=STEPS):
        deed(world, dice)
        if dice.random() < 0.8:
            world.settle()

    calm(world)
    world.finish_run()
    done, writes = world.status, world.writes
    world.pass_time(days=30)

    assert world.phase == "Succeeded"
    assert world.status.run is not None
    assert world.status.run.id == world.identity[0]
    assert (world.status, world.writes) == (done, writes)
