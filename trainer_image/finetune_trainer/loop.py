"""The training loop: steps, validations and checkpoints until the schedule says finish."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from finetune_api.layout import Layout
from finetune_api.run import Progress
from finetune_api.training import TrainingSpec
from finetune_trainer.batches import pack_all, steps_per_epoch
from finetune_trainer.checkpoint import Checkpoint
from finetune_trainer.errors import Diverged, Lost, Stopped
from finetune_trainer.gradients import Gradients
from finetune_trainer.group import Group
from finetune_trainer.loss import make_batch, sees_neighbours, token_losses
from finetune_trainer.place import Place
from finetune_trainer.schedule import Schedule, State, learning_rate, next_action, validated
from finetune_trainer.session import Standing
from finetune_trainer.tokens import Example
from finetune_trainer.tuned import Tuned

READ_LATE = 2
"""Steps that a GPU may be ahead of what is known of its losses."""

Report = Callable[[Progress], None]
Save = Callable[[Checkpoint], object]


class Unread(NamedTuple):
    """What a step gave, perhaps still to be computed."""

    step: int
    loss: Tensor
    norm: Tensor


@dataclass(frozen=True)
class Data:
    """What the loop reads; the test split is not among it."""

    train: Sequence[Example]
    validation: Sequence[Example]


class Loop:
    """One training run. All of its state is in `state`, the weights and the optimiser; `checkpoint()` takes it out."""

    def __init__(
        self, tuned: Tuned, data: Data, training: TrainingSpec, layout: Layout, standing: Standing, report: Report,
        save: Save, group: Group | None = None,
    ) -> None:  # fmt: skip
        self.tuned, self.data, self.training = tuned, data, training
        self.group = group or Group(Place())
        self.standing, self.report, self.save = standing, report, save
        self.schedule = Schedule.of(training, steps_per_epoch(len(data.train), training.batch_size))
        self.gradients = Gradients(
            tuned, data.train, training, self.schedule, pack_budget(tuned, layout.pass_tokens), self.group
        )
        reading = pack_budget(tuned, layout.inference_tokens)
        packs = [packed for _, packed in pack_all(data.validation, reading, self.group.place.size)]
        self.validation_packs = packs if tuned.sharded else self.group.place.share(packs)
        self.parameters = tuned.parameters
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=training.peak_rate, weight_decay=training.weight_decay,
            fused=tuned.device.type == "cuda",
        )  # fmt: skip
        self.unread: deque[Unread] = deque()
        self.state = State()
        self.best = tuned.snapshot()
        self.saved: State | None = None
        self.clock = Clock()
        self.seconds_before = 0.0

    def run(self, stop: threading.Event) -> State:
        """Train to the end; the best weights stay in the model. Raises Stopped after saving, Diverged, OutOfMemory."""
        try:
            while (action := next_action(self.state, self.schedule, self.training)) != "finish":
                if self.group.any(stop.is_set()):
                    raise Stopped("Stopped on request.")
                if action == "validate":
                    self._validate(stop)
                    self._save()
                    self._tell()
                else:
                    self._step(stop)
        except Stopped as stopped:
            self._tell("asked to stop; saving first")
            self._save()
            why = f"{stopped} " if isinstance(stopped, Lost) else ""
            raise Stopped(f"{why}Stopped after step {self.state.step}; run again to go on from there.") from stopped
        self._save()
        self.gradients.end()
        self.tuned.restore(self.best)
        return self.state

    def _step(self, stop: threading.Event) -> None:
        """One optimiser step. Raises Stopped."""
        training, step = self.training, self.state.step
        rate = learning_rate(step, training.peak_rate, self.schedule)
        self._set_rate(rate)
        loss = self.gradients.of(step, stop)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), training.max_grad_norm)
        self.optimizer.step()
        self.gradients.clear()
        tokens = sum(len(row.ids) for row in self.gradients.rows_of(step))
        self.state = replace(self.state, step=step + 1, tokens=self.state.tokens + tokens)
        self.unread.append(Unread(step + 1, loss, norm))
        self._read(keep=READ_LATE if loss.is_cuda else 0)
        self.clock.tick(tokens)
        self.standing.learning_rate, self.standing.tokens = rate, self.state.tokens
        self._tell()

    def _read(self, keep: int = 0) -> None:
        """Note losses of the latest steps but `keep`. Reading a step's loss at once would make the GPU wait for us."""
        while len(self.unread) > keep:
            step, loss, norm = self.unread.popleft()
            self._require_finite(step, loss.item(), norm.item())
            self.state = replace(self.state, train_loss=(*self.state.train_loss, (step, loss.item())))

    def _validate(self, stop: threading.Event) -> None:
        self._read()
        started = time.monotonic()
        loss = self.validation_loss(stop)
        self.clock.pause(time.monotonic() - started)
        if not math.isfinite(loss):
            raise Diverged(self._divergence("validation loss", loss, self.state.step))
        self.state = validated(self.state, loss, self.training)
        if self.state.best_step == self.state.step:
            self.best = self.tuned.snapshot()

    def validation_loss(self, stop: threading.Event) -> float:
        """Mean negative log-likelihood in nats per taught token of the validation rows. Raises Stopped."""
        totals = torch.zeros(2, dtype=torch.float64, device=self.tuned.device)
        with self.tuned.inference(adapted=True):
            for packed in self.validation_packs:
                if stop.is_set() and self.group.place.size == 1:
                    raise Stopped("Stopped on request.")
                totals[0] += token_losses(self.tuned, make_batch(packed, self.tuned.device)).sum()
                totals[1] += len(packed.targets)
        if not self.tuned.sharded:  # whose processes must make the same passes, and make all of them
            self.group.add_up([totals])
        total, taught = totals.tolist()
        return float(total / taught)

    @property
    def seconds(self) -> float:
        """Time spent on training steps, by this and earlier attempts."""
        return self.seconds_before + (self.clock.seconds if self.clock.steps else 0.0)

    def checkpoint(self) -> Checkpoint:
        """Everything needed to go on exactly from here."""
        self._read()
        return Checkpoint(self.state, self.tuned.snapshot(), self.best, self._optimizer_tensors(), self.seconds)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same run."""
        self.tuned.restore(checkpoint.weights)
        self.state, self.best, self.seconds_before = checkpoint.state, checkpoint.best, checkpoint.seconds
        self.saved = checkpoint.state
        fused = self.optimizer.defaults["fused"]
        for name, parameter in self.parameters.items():
            moments = {k: checkpoint.optimizer.get(f"{k}/{name}") for k in ("step", "exp_avg", "exp_avg_sq")}
            if moments["step"] is not None:
                self.optimizer.state[parameter] = {
                    key: value.to("cpu" if key == "step" and not fused else parameter.device, copy=True)
                    for key, value in moments.items()
                    if value is not None
                }

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        return {
            f"{key}/{name}": value.detach().cpu().clone()
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state[parameter].items()
        }

    def _save(self) -> None:
        """The first of several processes writes for all. Before the first step there is nothing to lose."""
        self._read()
        if self.state.step and self.saved != self.state:
            if self.group.place.leads:
                self.save(self.checkpoint())
            self.saved = self.state

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _require_finite(self, step: int, loss: float, norm: float) -> None:
        if not math.isfinite(loss) or not math.isfinite(norm):
            what, value = ("training loss", loss) if not math.isfinite(loss) else ("gradient norm", norm)
            raise Diverged(self._divergence(what, value, step - 1))

    def _divergence(self, what: str, value: float, done: int) -> str:
        if done == 0:
            return (
                f"The {what} is {value} before the first optimiser step, so training is not the cause: the base "
                "model's weights hold values that are no numbers, or overflow. Check or replace the model."
            )
        return (
            f"The {what} became {value} at step {done + 1} of {self.schedule.planned_steps}. "
            f"Lower training.learningRate (now {self.training.peak_rate:g}) or look at the rows of the report."
        )

    def _tell(self, message: str | None = None) -> None:
        state = self.state
        end = max(self.schedule.planned_steps, state.step)
        self.report(
            Progress(
                stage="train",
                step=state.step,
                total_steps=end,
                epoch=state.step / self.schedule.steps_per_epoch,
                train_loss=state.train_loss[-1][1] if state.train_loss else None,
                validation_loss=state.validation_loss[-1][1] if state.validation_loss else None,
                tokens_per_second=self.clock.rate,
                eta_seconds=self.clock.seconds_per_step * (end - state.step) if self.clock.steps else None,
                checkpoint_step=self.saved.step if self.saved else None,
                message=message,
            )
        )


def pack_budget(tuned: Tuned, tokens: int) -> int:
    """Most tokens in one forward pass; so few that every row travels alone where the model cannot keep rows apart."""
    return 1 if sees_neighbours(tuned) else tokens


class Clock:
    """Tokens a second and seconds a step of this attempt, without the time spent validating."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.paused = 0.0
        self.ticks: list[tuple[float, int]] = []
        """Seconds spent training and tokens trained on, after each step."""
        self.first = 0.0
        """When the first step was done, seconds since 1970."""

    def tick(self, tokens: int) -> None:
        """One step over this many tokens is done."""
        before = self.ticks[-1][1] if self.ticks else 0
        self.first = self.first or time.time()
        self.ticks.append((self.seconds, before + tokens))

    def pause(self, seconds: float) -> None:
        """These seconds were not spent training."""
        self.paused += seconds

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.ticks)

    @property
    def seconds(self) -> float:
        """Seconds spent training so far."""
        return max(1e-9, time.monotonic() - self.started - self.paused)

    @property
    def rate(self) -> float | None:
        """Tokens a second."""
        return self.ticks[-1][1] / self.seconds if self.ticks else None

    @property
    def steady_rate(self) -> float | None:
        """Tokens a second over the second half of the steps: without what is only done once."""
        if self.steps < 2:
            return self.rate
        (before, few), (after, all_tokens) = self.ticks[(self.steps - 1) // 2], self.ticks[-1]
        return (all_tokens - few) / max(1e-9, after - before)

    @property
    def seconds_per_step(self) -> float:
        """Seconds a step; 0 before the first."""
        return self.seconds / self.steps if self.steps else 0.0
