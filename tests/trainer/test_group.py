"""Several processes give what one gives: the same losses, the same evaluation."""

from pathlib import Path
from typing import Any

import pytest

from finetune_api.run import ExitCode
from finetune_trainer.crew import Crew, joint_code
from finetune_trainer.place import Place, is_given
from support.processes import run_processes

PROGRAM = Path(__file__).with_name("training_processes.py")


def train(folder: Path, count: int, quantization: str = "none", divided: bool = False, budget: int = 200) -> list[Any]:
    return run_processes(PROGRAM, count, str(folder), quantization, "divided" if divided else "whole", str(budget))


@pytest.fixture(scope="module")
def alone(tiny_llama: Path) -> Any:
    return train(tiny_llama, 1)[0]


def check_equal(got: Any, want: Any, tolerance: float) -> None:
    assert got["train"] == pytest.approx(want["train"], rel=tolerance)
    assert got["validation"] == pytest.approx(want["validation"], rel=tolerance)
    for mine, theirs in zip(got["metrics"], want["metrics"], strict=True):
        assert mine == pytest.approx(theirs, rel=10 * tolerance)


@pytest.mark.parametrize("count", [2, 4])
def test_as_many_processes_as_you_like_give_the_losses_of_one(count: int, tiny_llama: Path, alone: Any) -> None:
    for told in train(tiny_llama, count):
        check_equal(told, alone, 1e-4)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_divided_over_processes_gives_the_losses_of_a_whole_one(quantization, tiny_llama) -> None:
    whole = train(tiny_llama, 1, quantization)[0]
    for told in train(tiny_llama, 2, quantization, divided=True):
        check_equal(told, whole, 2e-2)
        assert told["bytes"] < 0.6 * whole["bytes"]  # norms stay whole


def test_processes_without_a_pass_of_their_own_take_part_all_the_same(tiny_llama: Path, alone: Any) -> None:
    for told in train(tiny_llama, 4, divided=True, budget=2000):
        check_equal(told, alone, 1e-4)


def test_a_process_takes_its_place_from_the_variables_of_torchrun() -> None:
    assert Place.of({}) == Place(0, 1, 0)
    place = Place.of({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"})
    assert place == Place(5, 8, 1)
    assert not place.leads
    assert place.share(list(range(20))) == [5, 13]
    assert is_given({"RANK": "0"})
    assert not is_given({})


def test_every_process_of_every_machine_has_a_place_of_its_own() -> None:
    crews = [
        Crew.of({
            "FINETUNE_PROCESSES": "2", "FINETUNE_NODES": "3", "JOB_COMPLETION_INDEX": str(machine),
            "FINETUNE_LEADER": "job-0.job", "FINETUNE_RENDEZVOUS_PORT": "29400",
        })
        for machine in range(3)
    ]  # fmt: skip
    places = [place for crew in crews for place in crew.places()]
    assert [place["RANK"] for place in places] == ["0", "1", "2", "3", "4", "5"]
    assert [place["LOCAL_RANK"] for place in places] == ["0", "1"] * 3
    assert {(place["WORLD_SIZE"], place["MASTER_ADDR"], place["MASTER_PORT"]) for place in places} == {
        ("6", "job-0.job", "29400")
    }
    assert Crew.of({}).size == 1


@pytest.mark.parametrize(
    ("codes", "want"),
    [
        ([0, 0], ExitCode.DONE),
        ([143, 4], ExitCode.DIVERGED),
        ([4, 143, 143], ExitCode.DIVERGED),
        ([-9, 143], ExitCode.STOPPED),
        ([0, -6], ExitCode.STOPPED),
        ([143, 143], ExitCode.STOPPED),
        ([1, 143], 1),
    ],
)
def test_the_exit_code_of_the_whole_is_the_one_that_tells_most(codes: list[int], want: int) -> None:
    assert joint_code(codes) == want
