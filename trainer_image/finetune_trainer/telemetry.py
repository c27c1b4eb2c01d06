"""What a run says of itself while it works: its progress, and the same as metrics for Prometheus."""

from collections.abc import Iterable
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from finetune_api.run import Progress, Stage
from finetune_trainer.session import Standing

STAGES: tuple[Stage, ...] = get_args(Stage)
KEPT = ("epoch", "train_loss", "validation_loss", "checkpoint_step")
"""What stays true when the stage after training tells its own progress."""


def carry_over(before: Progress, now: Progress) -> Progress:
    """The progress with what earlier stages told."""
    missing = {name: getattr(before, name) for name in KEPT if getattr(now, name) is None}
    if now.stage == "publish":  # it has no steps of its own
        missing |= {"step": before.step, "total_steps": before.total_steps}
    return now.model_copy(update=missing)


def make_registry(standing: Standing) -> CollectorRegistry:
    """The metrics of one run, read from where it stands whenever they are asked for, and those of the process."""
    registry = CollectorRegistry()
    registry.register(StandingCollector(standing))
    ProcessCollector(registry=registry)
    return registry


class StandingCollector:
    """Metrics of a standing. Reading them takes no lock, and waits for no GPU."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def collect(self) -> Iterable[Metric]:
        """Every metric; one whose value is not known yet has no samples."""
        standing, progress = self._standing, self._standing.progress
        yield _gauge("step", "Optimiser steps done, or rows answered while evaluating.", progress.step)
        yield _gauge("total_steps", "Of how many steps, or rows while evaluating.", progress.total_steps)
        yield _gauge("epoch", "Passes over the training rows done.", progress.epoch)
        yield _labelled(
            "loss",
            "Latest loss in nats per supervised token, by split.",
            "split",
            [("train", progress.train_loss), ("validation", progress.validation_loss)],
        )
        yield _gauge(
            "tokens_per_second", "Real (not padding) tokens trained on per second.", progress.tokens_per_second
        )
        yield CounterMetricFamily(
            "finetune_trainer_tokens", "Real (not padding) tokens trained on, by all attempts.", standing.tokens
        )
        yield _labelled("gpu_memory_bytes", "Memory of the GPU by kind.", "kind", standing.gpu_memory().items())
        yield _gauge("learning_rate", "Learning rate of the latest optimiser step.", standing.learning_rate)
        stages = [(name, int(name == progress.stage)) for name in STAGES]
        yield _labelled("stage", "1 for the stage the run is at, 0 for the others.", "stage", stages)
        yield _gauge("checkpoint_step", "Optimiser step of the latest checkpoint.", progress.checkpoint_step)


def _gauge(name: str, help: str, value: float | None) -> Metric:
    gauge = GaugeMetricFamily(f"finetune_trainer_{name}", help)
    if value is not None:
        gauge.add_metric([], value)
    return gauge


def _labelled(name: str, help: str, label: str, values: Iterable[tuple[str, float | None]]) -> Metric:
    gauge = GaugeMetricFamily(f"finetune_trainer_{name}", help, labels=[label])
    for key, value in values:
        if value is not None:
            gauge.add_metric([key], value)
    return gauge
