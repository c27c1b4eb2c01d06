"""What a run leaves in writing about itself."""

import platform
import resource
from importlib.metadata import version

import psutil
import torch

from finetune_api.report import LayoutReport, Point, TrainingReport
from finetune_api.run import EvaluationOutcome, Result
from finetune_api.speed import Forecast
from finetune_trainer.loop import Loop
from finetune_trainer.schedule import learning_rate
from finetune_trainer.wording import NOUNS, counted

PACKAGES = ("finetune-operator", "torch", "transformers", "peft", "bitsandbytes", "datasets")


def training_report(loop: Loop, foreseen: Forecast, resumed_from: int | None) -> TrainingReport:
    """Curves and figures of a finished loop, all attempts together; the peak of memory is this attempt's."""
    state, schedule, device = loop.state, loop.schedule, loop.tuned.device
    rates = ((step, learning_rate(step - 1, loop.training.peak_rate, schedule)) for step, _ in state.train_loss)
    return TrainingReport(
        steps=state.step,
        planned_steps=schedule.planned_steps,
        epochs=state.step / schedule.steps_per_epoch,
        best_step=state.best_step,
        stopped_early=state.step < schedule.planned_steps,
        resumed_from=resumed_from,
        train_loss=_points(state.train_loss),
        validation_loss=_points(state.validation_loss),
        learning_rate=_points(rates),
        tokens=state.tokens,
        tokens_per_second=state.tokens / loop.seconds if loop.seconds else 0.0,
        steady_tokens_per_second=loop.clock.steady_rate or 0.0,
        seconds_to_first_step=loop.clock.first - psutil.Process().create_time(),
        seconds=loop.seconds,
        peak_memory_bytes=peak_memory(device),
        device=device_name(device),
        processes=loop.group.place.size,
        layout=LayoutReport(
            expanded=foreseen.layout.expanded,
            recomputed=foreseen.layout.recomputed,
            pass_tokens=loop.gradients.budget,
            predicted_memory_bytes=foreseen.memory.total,
            predicted_tokens_per_second=foreseen.tokens_per_second,
        ),
    )


def peak_memory(device: torch.device) -> int:
    """Most bytes held at once: on the card, or by the process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


def gpu_memory() -> dict[str, int]:
    """Bytes of the card in use, kept by torch for reuse, and in all; nothing without a card. Waits for no kernel."""
    if not torch.cuda.is_initialized():
        return {}
    total = torch.cuda.get_device_properties(0).total_memory
    return {"allocated": torch.cuda.memory_allocated(0), "reserved": torch.cuda.memory_reserved(0), "total": total}


def device_name(device: torch.device) -> str:
    """The card's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({counted(torch.get_num_threads(), 'thread')})"


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _points(pairs: object) -> list[Point]:
    return [Point(step=step, value=value) for step, value in pairs]  # type: ignore[attr-defined]


def warn(training: TrainingReport, outcome: EvaluationOutcome, result: Result) -> list[str]:
    """What a reader of the report should know before trusting the result."""
    warnings = []
    if training.best_step == 0:
        warnings.append(
            f"The validation loss never fell, so the published {NOUNS[result]} is the untrained one. "
            "Raise or lower training.learningRate, or look at the data."
        )
    elif training.best_step == training.steps and not training.stopped_early:
        warnings.append("The validation loss was still falling at the end; more epochs may help (training.maxEpochs).")
    if outcome.verdict == "Inconclusive":
        warnings.append("The interval of the deciding metric contains zero; more test rows would narrow it.")
    return warnings
