"""The contract between whoever starts a run and the trainer: RunConfig in, Progress while it works, RunReport out."""

from enum import IntEnum
from typing import Literal

from finetune_api.methods import Method, MethodSpec
from finetune_api.schema import Model
from finetune_api.training import DatasetSpec, EvaluationSpec, MetricName, ModelSpec, TrainingSpec

Stage = Literal["prepare", "train", "evaluate", "publish"]
Verdict = Literal["Passed", "Failed", "Inconclusive"]
Result = Literal["adapter", "model"]
"""What a run makes, small weights beside the base or a whole model, and the folder of the run that holds it."""


def result_of(method: Method) -> Result:
    """What a method makes."""
    return "model" if method == "full" else "adapter"


def result_at(uri: str) -> Result:
    """What a published folder holds, by its name."""
    return "model" if uri.rstrip("/").endswith("/model") else "adapter"


class ExitCode(IntEnum):
    """How a trainer process ends; whoever started it decides by this number."""

    DONE = 0
    INVALID_CONFIG = 2
    DATA_REJECTED = 3
    DIVERGED = 4
    OUT_OF_MEMORY = 5
    STORAGE = 6
    MODEL_NOT_LOADABLE = 7
    STOPPED = 143
    """Stopped by a signal after saving; the next attempt goes on from there."""


PASSING = (ExitCode.OUT_OF_MEMORY, ExitCode.STORAGE, ExitCode.STOPPED)
"""Endings after which another attempt may succeed."""


class Setting(Model):
    """One effective setting."""

    path: str
    """Field, for instance training.learningRate."""
    value: str
    """Its value as a person would write it."""
    source: str
    """manifest, or the origin of the default."""


class RunConfig(Model):
    """Everything the trainer is told."""

    namespace: str
    name: str
    run_id: str
    digest: str
    model: ModelSpec
    dataset: DatasetSpec
    method: MethodSpec
    training: TrainingSpec
    evaluation: EvaluationSpec
    output_uri: str
    merged: bool = False
    """Whether to publish the base with the adapter merged into it, too."""
    gpu_memory: int | None = None
    """Bytes of a card's memory that the run may use. Default: what is free."""
    settings: list[Setting] = []
    """Every effective setting and where it came from, for the report."""

    @property
    def job_path(self) -> str:
        """Path of the job below the output URI."""
        return f"{self.namespace}/{self.name}"

    @property
    def run_path(self) -> str:
        """Path of the run below the output URI."""
        return f"{self.job_path}/runs/{self.run_id}"


class Progress(Model):
    """How far a run is."""

    stage: Stage
    """prepare, train, evaluate or publish."""
    step: int = 0
    """Optimiser steps done (train) or rows answered (evaluate)."""
    total_steps: int = 0
    """Of how many."""
    epoch: float | None = None
    """Passes over the training rows done."""
    train_loss: float | None = None
    """Mean training loss of the latest step, nats per supervised token."""
    validation_loss: float | None = None
    """Latest validation loss, nats per supervised token."""
    tokens_per_second: float | None = None
    """Real (not padding) tokens trained on per second."""
    eta_seconds: float | None = None
    """Estimated seconds until this stage ends."""
    checkpoint_step: int | None = None
    """Optimiser step of the latest checkpoint; a new attempt goes on from there."""
    message: str | None = None
    """What is going on, in a few words."""


class MetricResult(Model):
    """One metric of base and adapter on the same test rows."""

    name: MetricName
    """Name of the metric."""
    higher_is_better: bool
    """Whether a larger value is better."""
    base: float
    """Value of the base model (quantised as it was trained on)."""
    adapter: float
    """Value of the base model with the adapter, or of the tuned model."""
    difference: float
    """adapter minus base."""
    ci: tuple[float, float]
    """Paired 95 % confidence interval of the difference, resampled by group."""
    n: int
    """Test rows."""
    groups: int
    """Independent groups among them."""


class EvaluationOutcome(Model):
    """The comparison and what follows from it."""

    verdict: Verdict
    """Passed: the primary metric's interval is on the better side of zero. Failed: on the worse. Else Inconclusive."""
    primary_metric: MetricName
    """The metric that decided."""
    metrics: list[MetricResult]
    """Every metric."""


class StoredAdapter(Model):
    """A published adapter, or model where every weight was trained."""

    uri: str
    """Its folder, called adapter or model."""
    digest: str
    """sha256 of the weights file."""
    size_bytes: int
    """Size of the weights file."""
    merged_uri: str | None = None
    """Folder of the base with the adapter merged into it, if that was wanted."""


class RunReport(Model):
    """The trainer's last word on a run; small enough for a termination message."""

    run_id: str = ""
    """Name of the run; empty if it ended before the data was read."""
    digest: str = ""
    """Digest of the run; empty if it ended before the data was read."""
    attempt: int = 0
    """Number of the attempt that wrote to the run; 0 if none did."""
    exit_code: ExitCode
    """How the process ends."""
    stage: Stage
    """The stage reached: publish means that the run is complete."""
    message: str
    """What happened, in one sentence."""
    adapter: StoredAdapter | None = None
    """The adapter, once published."""
    evaluation: EvaluationOutcome | None = None
    """Base against adapter, once compared."""
    data_version: str | None = None
    """What `check` compares: changes when the dataset, or a hub model's branch, points to something else."""
    log: list[str] = []
    """The last lines the trainer logged, if it failed."""
