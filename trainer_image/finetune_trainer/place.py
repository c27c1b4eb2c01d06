"""Which of the processes that train together this one is, by the variables that torchrun sets."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Place:
    """One process among `size`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among the processes of this machine."""

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "Place":
        """The place that the environment names; alone if it names none."""
        numbers = (environment.get(name, default) for name, default in VARIABLES.items())
        return cls(*map(int, numbers))

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Every so-manieth of some items, for this process."""
        return list(items[self.rank :: self.size])


VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
"""Variables that name a place, with what holds for a process that is alone."""


def is_given(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody has given this process a place already."""
    return "RANK" in environment
