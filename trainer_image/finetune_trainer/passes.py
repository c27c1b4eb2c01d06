"""Forward and backward passes: call by call, or on a GPU recorded once for each size and replayed.

A pass over a few thousand tokens is some ten thousand kernels, which a CPU cannot launch as fast as a current GPU runs
them. A recording (a CUDA graph) is launched in one call. Sizes are rounded up, and what is missing is a row of its own
that nothing is learned from. The output head stays outside: how many tokens are taught differs from pass to pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from finetune_trainer.batches import Packed, pack
from finetune_trainer.cross_entropy import cross_entropy
from finetune_trainer.loss import Batch, has_plain_head, hidden_states, make_batch, probe_row, token_losses
from finetune_trainer.sizes import GRAIN, choose_sizes
from finetune_trainer.tuned import Tuned


class Passes(Protocol):
    """How training passes are carried out."""

    gradients_move: bool
    """Whether the tensors of gradients may be given up after a step."""

    def begin(self, extent: Callable[[], "Extent"]) -> None:
        """Get ready. What passes there will be is worked out only if it is asked for."""

    def run(self, packed: Packed, draw: tuple[int, int], weight: float) -> Tensor:
        """Add the gradients of `weight` times the summed losses to the parameters. Returns the sum, without waiting."""

    def end(self) -> None:
        """Give up the memory that is kept for passes."""


@dataclass(frozen=True)
class Extent:
    """What passes there will be."""

    tokens: Sequence[int]
    """Tokens of each pass that is planned."""
    most_tokens: int
    """Of any pass that there may be, also after what is planned."""
    rows: int
    """Most rows of a pass."""
    longest: int
    """Tokens of the longest row."""


class CalledPasses:
    """Every operation is called anew."""

    gradients_move = True

    def __init__(self, tuned: Tuned) -> None:
        self.tuned = tuned

    def begin(self, extent: Callable[[], Extent]) -> None:
        """Nothing is kept."""

    def run(self, packed: Packed, draw: tuple[int, int], weight: float) -> Tensor:
        """See Passes."""
        total = token_losses(self.tuned, make_batch(packed, self.tuned.device, draw)).sum()
        (total * weight).backward()
        return total.detach()

    def end(self) -> None:
        """Nothing is kept."""


class RecordedPasses:
    """Passes that are recorded, the largest first: the memory of one recording is that of all."""

    gradients_move = False  # recordings add to gradients where these stand

    def __init__(self, tuned: Tuned) -> None:
        self.tuned = tuned
        self.recordings: dict[int, Recording] = {}
        # Gradients are added on the stream that saw a parameter first, and the default one cannot be recorded.
        self.stream = torch.cuda.Stream(tuned.device)
        for parameter in tuned.parameters.values():
            parameter.grad = torch.zeros_like(parameter)

    def begin(self, extent: Callable[[], Extent]) -> None:
        """Compile every kernel in a small pass, then record the largest."""
        self.end()
        self.extent, self.pool = extent(), torch.cuda.graph_pool_handle()
        self.sizes = choose_sizes([*self.extent.tokens, self.extent.most_tokens])
        with self._apart():
            CalledPasses(self.tuned).run(pack([probe_row(range(3, 3 + GRAIN))]), (0, 0), 0.0)
            self._recording(self.sizes[0])

    def run(self, packed: Packed, draw: tuple[int, int], weight: float) -> Tensor:
        """See Passes."""
        with self._apart():
            return self._recording(len(packed.ids)).run(make_batch(packed, self.tuned.device, draw), weight)

    def end(self) -> None:
        """Give up all recordings."""
        self.recordings.clear()
        torch.cuda.empty_cache()

    def _recording(self, tokens: int) -> "Recording":
        size = min(size for size in self.sizes if size >= tokens)
        if size not in self.recordings:
            smaller = max((other for other in self.sizes if other < size), default=0)
            longest = max(self.extent.longest, size - smaller)  # what fills up is one row
            blank = _blank(size, self.extent.rows + 1, longest, self.tuned.device)
            self.recordings[size] = Recording(self.tuned, blank, self.pool)
        return self.recordings[size]

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """On the stream of all passes, after what is under way and before what comes."""
        outer = torch.cuda.current_stream(self.tuned.device)
        self.stream.wait_stream(outer)
        with torch.cuda.stream(self.stream):
            yield
        outer.wait_stream(self.stream)


class Recording:
    """The decoder's forward and backward pass over so many tokens."""

    def __init__(self, tuned: Tuned, blank: Batch, pool: Any) -> None:
        self.tuned, self.batch = tuned, blank
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        with torch.cuda.graph(self.forward, pool=pool, stream=stream):
            states = hidden_states(tuned, self.batch)
        self.slopes = torch.zeros_like(states)
        with torch.cuda.graph(self.backward, pool=pool, stream=stream):
            torch.autograd.backward(states, self.slopes)
        self.states = states.detach()

    def run(self, batch: Batch, weight: float) -> Tensor:
        """Replay it for a batch that fits. Returns the summed losses."""
        self._take(batch)
        self.forward.replay()
        states = self.states[batch.predictors].requires_grad_()
        total = cross_entropy(states, self.tuned.base.get_output_embeddings().weight, batch.targets).sum()
        (total * weight).backward()
        assert states.grad is not None
        self.slopes.zero_().index_copy_(0, batch.predictors, states.grad)
        self.backward.replay()
        return total.detach()

    def _take(self, batch: Batch) -> None:
        """Put a batch in place; what is left over is one more row, and empty ones."""
        tokens, mine = batch.ids.shape[1], self.batch
        mine.ids[:, :tokens].copy_(batch.ids)
        mine.positions.zero_()[:, :tokens].copy_(batch.positions)
        mine.boundaries.fill_(mine.ids.shape[1])[: len(batch.boundaries)].copy_(batch.boundaries)
        if batch.keys is not None and mine.keys is not None:
            mine.keys[:tokens].copy_(batch.keys)


def make_passes(tuned: Tuned) -> Passes:
    """The fastest passes there are for a model: recorded on a GPU, if its layers are whole and its head is frozen.

    In other types than bfloat16 attention asks for the lengths of rows, which a recording cannot.
    """
    whole = tuned.device.type == "cuda" and not tuned.trains_head and not tuned.sharded
    recordable = whole and tuned.base.dtype == torch.bfloat16 and has_plain_head(tuned) and not waits(tuned)
    return RecordedPasses(tuned) if recordable else CalledPasses(tuned)


def waits(tuned: Tuned) -> bool:
    """Whether a pass waits for what the card has computed, to route tokens to experts, say: no recording can."""
    batch = make_batch(pack([probe_row(range(3, 3 + GRAIN))]), tuned.device, (0, 0))
    trained, aside = list(tuned.parameters.values()), torch.cuda.Stream(tuned.device)
    aside.wait_stream(torch.cuda.current_stream(tuned.device))
    try:
        with torch.cuda.stream(aside), _as_if_recording():
            for mode in ("default", "error"):  # the first time kernels are compiled, which does wait
                torch.cuda.set_sync_debug_mode(mode)
                states = hidden_states(tuned, batch)
                torch.autograd.grad(states, trained, torch.zeros_like(states), allow_unused=True)
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize(tuned.device)
    return False


@contextmanager
def _as_if_recording() -> Iterator[None]:
    """Models ask before they look at values, and then do not."""
    asked = torch.cuda.is_current_stream_capturing
    torch.cuda.is_current_stream_capturing = lambda: True
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = asked


def _blank(tokens: int, rows: int, longest: int, device: torch.device) -> Batch:
    """A batch of one row, to be filled with at most so many."""
    zeros = torch.zeros(1, tokens, dtype=torch.int64, device=device)
    boundaries = torch.full((rows + 1,), tokens, dtype=torch.int32, device=device)
    boundaries[0] = 0
    keys = torch.ones(tokens, dtype=torch.int32, device=device)
    return Batch(zeros, zeros.clone(), boundaries, longest, zeros[0], zeros[0], keys)
