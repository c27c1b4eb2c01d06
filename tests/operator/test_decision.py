"""Whole lives of jobs: what is started, when, and what stays."""

from support.world import World


def test_a_job_prepares_trains_and_succeeds() -> None:
    world = World()

    world.finish_run()

    assert world.status.phase == "Succeeded"
    assert world.made == ["prepare-1", "train-1"]
