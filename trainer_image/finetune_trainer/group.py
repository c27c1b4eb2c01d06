"""What processes that train together do together. Alone, nothing is sent and nobody is waited for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from finetune_trainer.errors import Lost
from finetune_trainer.place import Place

PATIENCE = timedelta(minutes=20)
"""How long the others may take before they count as lost."""
MISSING = object()


class Group:
    """The processes of a run, seen from one of them. Every call is made by all of them, in the same order.

    Raises Lost when one of the others is gone: the run goes on from its last checkpoint once all are back.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes."""
        if self.place.size == 1 or not tensors:
            return
        joint = torch.cat([tensor.flatten() for tensor in tensors])
        with _together():
            dist.all_reduce(joint)
        totals = joint.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [total.view_as(own) for total, own in zip(totals, tensors, strict=True)])

    def any(self, flag: bool) -> bool:
        """Whether it is so for any process."""
        if self.place.size == 1:
            return flag
        flags = torch.tensor([float(flag)])  # not on the card, whose work nobody waits for
        self.add_up([flags])
        return bool(flags.item() > 0)

    def collect(self, mine: Sequence[Any]) -> list[Any]:
        """The items of all processes, in the order in which `Place.share` dealt them out."""
        if self.place.size == 1:
            return list(mine)
        shares: list[Any] = [None] * self.place.size
        with _together():
            dist.all_gather_object(shares, list(mine))
        rounds = zip_longest(*shares, fillvalue=MISSING)
        return [item for item in chain.from_iterable(rounds) if item is not MISSING]

    def wait(self) -> None:
        """Until all are here."""
        if self.place.size > 1:
            with _together():
                dist.barrier()


@contextmanager
def joined(place: Place, device: torch.device) -> Iterator[Group]:
    """The group of this process, as long as it is in it."""
    if place.size == 1:
        yield Group(place)
        return
    with _together():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Group(place)
    finally:
        dist.destroy_process_group()


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise Lost(f"Another process of the run was lost ({reason}).") from error
