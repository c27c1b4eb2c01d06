"""The training loop: steps, validations and checkpoints until the schedule says finish."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from peft import PeftModel
from torch import Tensor

from finetune_api.run import Progress
from finetune_api.training import TrainingSpec
from finetune_trainer.batches import Packed, pack_all, rows_of_step, steps_per_epoch
from finetune_trainer.checkpoint import Checkpoint
from finetune_trainer.errors import Diverged, Stopped
from finetune_trainer.loss import sees_neighbours, token_losses
from finetune_trainer.model import inference, restore, snapshot, trainable
from finetune_trainer.schedule import Schedule, State, learning_rate, next_action, validated
from finetune_trainer.session import Standing
from finetune_trainer.tokens import Example

Report = Callable[[Progress], None]
Save = Callable[[Checkpoint], object]


@dataclass(frozen=True)
class Data:
    """What the loop reads; the test split is not among it."""

    train: Sequence[Example]
    validation: Sequence[Example]


class Loop:
    """One training run. All of its state is in `state`, the weights and the optimiser; `checkpoint()` takes it out."""

    def __init__(
        self, model: PeftModel, data: Data, training: TrainingSpec, standing: Standing, report: Report, save: Save
    ) -> None:
        self.model, self.data, self.training = model, data, training
        self.standing, self.report, self.save = standing, report, save
        self.schedule = Schedule.of(training, steps_per_epoch(len(data.train), training.batch_size))
        self.budget = pack_budget(model, training)
        self.validation_packs = [packed for _, packed in pack_all(data.validation, self.budget)]
        self.parameters = trainable(model)
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self.state = State()
        self.best = snapshot(model)
        self.saved: State | None = None
        self.clock = Clock()
        self.seconds_before = 0.0

    def run(self, stop: threading.Event) -> State:
        """Train to the end; the best weights stay in the model. Raises Stopped after saving, Diverged."""
        self.model.train()
        try:
            while (action := next_action(self.state, self.schedule, self.training)) != "finish":
                if stop.is_set():
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
            raise Stopped(f"Stopped after step {self.state.step}; run again to go on from there.") from stopped
        self._save()
        restore(self.model, self.best)
        return self.state

    def _step(self, stop: threading.Event) -> None:
        """One optimiser step over `batch_size` rows, in as many forward passes as their tokens need. Raises Stopped."""
        training, step = self.training, self.state.step
        rows = [
            self.data.train[i] for i in rows_of_step(len(self.data.train), training.batch_size, step, training.seed)
        ]
        packs = [packed for _, packed in pack_all(rows, self.budget)]
        rate = learning_rate(step, training.learning_rate, self.schedule)
        self._set_rate(rate)
        # Dropout is a function of the seed and the step, so a resumed run needs no saved random state.
        torch.manual_seed(training.seed * 1_000_003 + step)
        loss = self._accumulate(packs, stop)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), training.max_grad_norm)
        self._require_finite(loss, float(norm))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        tokens = sum(len(row.ids) for row in rows)
        self.state = replace(
            self.state,
            step=step + 1,
            tokens=self.state.tokens + tokens,
            train_loss=(*self.state.train_loss, (step + 1, loss)),
        )
        self.clock.tick(tokens)
        self.standing.learning_rate, self.standing.tokens = rate, self.state.tokens
        self._tell()

    def _accumulate(self, packs: Sequence[Packed], stop: threading.Event) -> float:
        """Backward passes of one step. The loss is the mean over all its taught tokens, not a mean of means.

        A stop between two passes drops the step, which may be long: nothing but gradients is lost.
        """
        taught = sum(len(packed.targets) for packed in packs)
        total = 0.0
        for packed in packs:
            if stop.is_set():
                raise Stopped("Stopped on request.")
            loss = token_losses(self.model, packed).sum() / taught
            loss.backward()
            total += loss.item()
        return total

    def _validate(self, stop: threading.Event) -> None:
        started = time.monotonic()
        loss = self.validation_loss(stop)
        self.clock.pause(time.monotonic() - started)
        if not math.isfinite(loss):
            raise Diverged(self._divergence("validation loss", loss))
        self.state = validated(self.state, loss, self.training)
        if self.state.best_step == self.state.step:
            self.best = snapshot(self.model)

    def validation_loss(self, stop: threading.Event) -> float:
        """Mean negative log-likelihood in nats per taught token of the validation rows. Raises Stopped."""
        total, taught = 0.0, 0
        with inference(self.model, adapter=True):
            for packed in self.validation_packs:
                if stop.is_set():
                    raise Stopped("Stopped on request.")
                total += token_losses(self.model, packed).sum().item()
                taught += len(packed.targets)
        return total / taught

    @property
    def seconds(self) -> float:
        """Time spent on training steps, by this and earlier attempts."""
        return self.seconds_before + (self.clock.seconds if self.clock.steps else 0.0)

    def checkpoint(self) -> Checkpoint:
        """Everything needed to go on exactly from here."""
        return Checkpoint(self.state, snapshot(self.model), self.best, self._optimizer_tensors(), self.seconds)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same run."""
        restore(self.model, checkpoint.weights)
        self.state, self.best, self.seconds_before = checkpoint.state, checkpoint.best, checkpoint.seconds
        self.saved = checkpoint.state
        for name, parameter in self.parameters.items():
            moments = {k: checkpoint.optimizer.get(f"{k}/{name}") for k in ("step", "exp_avg", "exp_avg_sq")}
            if moments["step"] is not None:
                self.optimizer.state[parameter] = {
                    key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
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
        if self.saved != self.state:
            self.save(self.checkpoint())
            self.saved = self.state

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _require_finite(self, loss: float, norm: float) -> None:
        if not math.isfinite(loss) or not math.isfinite(norm):
            what, value = ("training loss", loss) if not math.isfinite(loss) else ("gradient norm", norm)
            raise Diverged(self._divergence(what, value))

    def _divergence(self, what: str, value: float) -> str:
        if self.state.step == 0:
            return (
                f"The {what} is {value} before the first optimiser step, so training is not the cause: the base "
                "model's weights hold values that are no numbers, or overflow. Check or replace the model."
            )
        return (
            f"The {what} became {value} at step {self.state.step + 1} of {self.schedule.planned_steps}. "
            f"Lower training.learningRate (now {self.training.learning_rate:g}) or look at the rows of the report."
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


def pack_budget(model: PeftModel, training: TrainingSpec) -> int:
    """Most tokens in one forward pass; so few that every row travels alone where the model cannot keep rows apart."""
    return 1 if sees_neighbours(model) else training.micro_batch_tokens


class Clock:
    """Tokens a second and seconds a step of this attempt, without the time spent validating."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.paused = 0.0
        self.tokens = 0
        self.steps = 0

    def tick(self, tokens: int) -> None:
        """One step over this many tokens is done."""
        self.tokens += tokens
        self.steps += 1

    def pause(self, seconds: float) -> None:
        """These seconds were not spent training."""
        self.paused += seconds

    @property
    def seconds(self) -> float:
        """Seconds spent training so far."""
        return max(1e-9, time.monotonic() - self.started - self.paused)

    @property
    def rate(self) -> float | None:
        """Tokens a second."""
        return self.tokens / self.seconds if self.tokens else None

    @property
    def seconds_per_step(self) -> float:
        """Seconds a step; 0 before the first."""
        return self.seconds / self.steps if self.steps else 0.0
