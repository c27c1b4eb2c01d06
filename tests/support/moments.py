"""Moments in the life of a job, each as a world that has just reached it."""

from collections.abc import Callable

from finetune_api.run import ExitCode, Progress
from support.objects import failed_report
from support.world import World

RETRY = failed_report(ExitCode.STORAGE, "The bucket did not answer.")


def created() -> World:
    return World()


def preparation_pending() -> World:
    world = World()
    world.settle()
    return world


def preparing() -> World:
    world = preparation_pending()
    world.run_pod(Progress(stage="prepare"))
    return world


def preparation_to_be_retried() -> World:
    world = preparing()
    world.end_pod(RETRY)
    return world


def training_pending() -> World:
    world = preparation_pending()
    world.finish_stage()
    return world


def unschedulable() -> World:
    world = training_pending()
    world.pod.unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    world.settle()
    return world


def queued() -> World:
    world = World(queueName="team-a")
    world.settle()
    world.finish_stage()
    return world


def training() -> World:
    world = training_pending()
    world.run_pod(Progress(stage="train", step=310, total_steps=940))
    return world


def evaluating() -> World:
    world = training_pending()
    world.run_pod(Progress(stage="evaluate"))
    return world


def suspended_outside() -> World:
    world = training()
    world.suspend_outside()
    return world


def training_to_be_retried() -> World:
    world = training()
    world.end_pod(RETRY)
    return world


def training_again() -> World:
    world = training_to_be_retried()
    world.pass_time(seconds=11)
    world.run_pod()
    return world


def training_in_one_pod() -> World:
    world = World(resources={"gpus": 1, "prepare": {"separate": False}})
    world.settle()
    world.run_pod(Progress(stage="prepare"))
    return world


def training_on_two_nodes() -> World:
    world = World(resources={"nodes": 2})
    world.settle()
    world.finish_stage()
    world.run_pod(Progress(stage="train", step=310, total_steps=940))
    return world


def one_of_two_unschedulable() -> World:
    world = World(resources={"nodes": 2})
    world.settle()
    world.finish_stage()
    first, second = world.pods
    first.scheduled().running()
    second.unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    world.settle()
    return world


def succeeded() -> World:
    world = World()
    world.finish_run()
    return world


def rejected() -> World:
    world = World()
    world.finish_run("Inconclusive")
    return world


def failed() -> World:
    world = preparing()
    world.end_pod(failed_report(ExitCode.DATA_REJECTED, "Row 17 has no answer.", "v1"))
    return world


GOING_ON: tuple[Callable[[], World], ...] = (
    created,
    preparation_pending,
    preparing,
    preparation_to_be_retried,
    training_pending,
    unschedulable,
    queued,
    training,
    evaluating,
    suspended_outside,
    training_to_be_retried,
    training_again,
    training_in_one_pod,
    training_on_two_nodes,
    one_of_two_unschedulable,
)
FINISHED: tuple[Callable[[], World], ...] = (succeeded, rejected, failed)
MOMENTS = (*GOING_ON, *FINISHED)
