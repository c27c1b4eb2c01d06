"""The gradients of one optimiser step, in as many passes as the memory asks for, with the same result."""

import logging
import math
import threading
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from finetune_api.layout import FEWEST_TOKENS
from finetune_api.training import TrainingSpec
from finetune_trainer.base import is_out_of_memory
from finetune_trainer.batches import Order, Packed, fill, pack_all
from finetune_trainer.errors import OutOfMemory, Stopped
from finetune_trainer.group import Group
from finetune_trainer.passes import Extent, make_passes
from finetune_trainer.schedule import Schedule
from finetune_trainer.tokens import Example
from finetune_trainer.tuned import Tuned

log = logging.getLogger(__name__)


class Gradients:
    """Adds up the gradients of steps over some rows, in passes of at most `budget` tokens, over all processes."""

    def __init__(
        self, tuned: Tuned, rows: Sequence[Example], training: TrainingSpec, schedule: Schedule, budget: int,
        group: Group,
    ) -> None:  # fmt: skip
        self.tuned, self.rows, self.seed, self.schedule = tuned, rows, training.seed, schedule
        self.budget, self.group = budget, group
        self.order = Order([len(row.ids) for row in rows], training.batch_size, training.seed)
        self.passes = make_passes(tuned)
        self.ready = False
        self._packed = lru_cache(maxsize=2)(self._pack)

    def of(self, step: int, stop: threading.Event) -> Tensor:
        """Add the gradients of a step, from 0. Returns its loss: the mean over all its taught tokens, not of means.

        Where a pass does not fit a device, the step begins again with passes of half the size. Raises Stopped.
        """
        while True:
            loss, failure = self._attempt(step, stop)
            if not self.group.any(failure is not None):
                self._join(loss)
                return loss
            if self.budget <= FEWEST_TOKENS:
                self.clear()
                raise failure or OutOfMemory("Another process of the run has no memory for even the smallest pass.")
            self._shrink()

    def rows_of(self, step: int) -> list[Example]:
        """The rows of an optimiser step."""
        return [self.rows[row] for row in self.order.rows_of(step)]

    def clear(self) -> None:
        """Set the gradients back."""
        parameters = self.tuned.parameters.values()
        if not self.passes.gradients_move:
            torch._foreach_zero_([parameter.grad for parameter in parameters if parameter.grad is not None])
            return
        for parameter in parameters:
            parameter.grad = None

    def end(self) -> None:
        """Give up the memory that is kept for passes."""
        self.passes.end()
        self.ready = False

    def _attempt(self, step: int, stop: threading.Event) -> tuple[Tensor, RuntimeError | None]:
        """This process's part of a step's loss; and why not, if the memory did not suffice."""
        try:
            return self._add_up(step, stop), None
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return torch.zeros((), device=self.tuned.device), error

    def _add_up(self, step: int, stop: threading.Event) -> Tensor:
        """A stop between two passes drops the step, which may be long: nothing but gradients is lost."""
        if not self.ready:
            self._begin()
        packs = self._packed(step, self.budget)
        taught, draw = sum(row.taught for row in self.rows_of(step)), (self.seed, step)
        total = torch.zeros((), device=self.tuned.device)
        mine = self.group.place.share(packs)
        for packed in mine:
            if stop.is_set() and self.group.place.size == 1:
                self.clear()
                raise Stopped("Stopped on request.")
            total += self.passes.run(packed, draw, 1 / taught)
        if self.tuned.sharded and len(mine) < math.ceil(len(packs) / self.group.place.size):
            self.passes.run(packs[0], draw, 0.0)  # the others need this process's part of the layers
        self._packed(step + 1, self.budget)  # while the card works, which nobody has waited for yet
        return total / taught

    def _pack(self, step: int, budget: int) -> list[Packed]:
        """The rows of a step in packs, for all processes."""
        return [packed for _, packed in pack_all(self.rows_of(step), budget, self.group.place.size)]

    def _join(self, loss: Tensor) -> None:
        """Add up gradients and loss over all processes."""
        if self.group.place.size == 1:
            return
        for parameter in self.tuned.parameters.values():
            if parameter.grad is None:  # fewer passes than processes
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.tuned.parameters.values() if parameter.grad is not None]
        self.group.add_up([*gradients, loss])

    def _begin(self) -> None:
        self.passes.begin(self._extent)
        self.clear()
        self.ready = True

    def _extent(self) -> Extent:
        """The passes of all steps that there may be."""
        packs = [self._lengths(step) for step in range(self.schedule.max_steps)]
        all_packs = [pack for step in packs for pack in step]
        return Extent(
            tokens=[sum(pack) for step in packs[: self.schedule.planned_steps] for pack in step],
            most_tokens=max(map(sum, all_packs)),
            rows=max(map(len, all_packs)),
            longest=max(map(max, all_packs)),
        )

    def _lengths(self, step: int) -> list[list[int]]:
        """Lengths of the rows in each pass of a step."""
        lengths = [len(row.ids) for row in self.rows_of(step)]
        return [[lengths[item] for item in bin] for bin in fill(lengths, self.budget, self.group.place.size)]

    def _shrink(self) -> None:
        self.budget //= 2
        self.tuned.draw.tokens = None
        self.clear()
        self.end()
        log.warning("A pass did not fit the memory; from here on passes have at most %d tokens.", self.budget)
