"""The full record of a run, as stored in report.json and drawn in report.html."""

from typing import Literal

from finetune_api.methods import Method
from finetune_api.run import RunReport, Setting
from finetune_api.schema import Model
from finetune_api.training import RowFormat

SplitName = Literal["train", "validation", "test"]


class LengthSummary(Model):
    """Row lengths in tokens."""

    median: int
    p95: int
    longest: int


class SplitReport(Model):
    """One split as it was used."""

    name: SplitName
    rows: int
    groups: int
    tokens: int
    supervised_tokens: int
    lengths: LengthSummary


class LeftOut(Model):
    """Rows that were not used, and why."""

    reason: str
    """In words, for instance "longer than maxLength (2048 tokens)"."""
    rows: int
    examples: list[int]
    """First few row numbers, counted from 1 in the source."""


class DataReport(Model):
    """What was found in the dataset and how it was divided."""

    uri: str
    fingerprint: str
    """sha256 over the source files' contents, or the hub revision."""
    format: RowFormat
    detected: bool
    """Whether the format was detected rather than given."""
    columns: list[str]
    rows: int
    duplicates: int
    """Exact duplicates dropped (same prompt and answer)."""
    left_out: list[LeftOut]
    splits: list[SplitReport]
    warnings: list[str] = []


class ModelReport(Model):
    """The base model that was used, and how it was adapted."""

    method: Method = "lora"
    """lora in reports that are older than the other methods."""
    uri: str
    revision: str
    digest: str
    """sha256 over the weight files' digests."""
    architecture: str
    parameters: int
    trainable_parameters: int
    quantization: str
    size_bytes: int
    """Bytes of the weight files."""


class Point(Model):
    """One value of a curve."""

    step: int
    value: float


class LayoutReport(Model):
    """How a run used the memory of its device; the result does not depend on it."""

    expanded: bool
    """Whether quantised weights were kept dequantised."""
    recomputed: int
    """Layers whose forward pass was computed again in the backward pass."""
    pass_tokens: int
    """Most tokens in one forward pass."""
    predicted_memory_bytes: int
    predicted_tokens_per_second: float


class TrainingReport(Model):
    """What happened while training."""

    steps: int
    planned_steps: int
    epochs: float
    best_step: int
    stopped_early: bool
    resumed_from: int | None = None
    """Step of the checkpoint that this attempt went on from."""
    train_loss: list[Point]
    validation_loss: list[Point]
    learning_rate: list[Point]
    tokens: int
    """Real (not padding) tokens trained on."""
    tokens_per_second: float
    steady_tokens_per_second: float = 0.0
    """The same over the second half of the latest attempt: without what is only done once."""
    seconds_to_first_step: float = 0.0
    """From the start of the process to the end of the first step of the latest attempt."""
    seconds: float
    peak_memory_bytes: int
    """Most memory held at once; on a card, with what the allocator keeps in stock."""
    layout: LayoutReport | None = None
    """How the memory was used."""
    device: str
    """Of each process."""
    processes: int = 1
    """How many trained together."""

    @property
    def devices(self) -> str:
        """What the run was trained on."""
        return f"{self.processes} processes, each on {self.device}" if self.processes > 1 else self.device


class Sample(Model):
    """One test row with both answers."""

    row: int
    """Row number in the source, from 1."""
    prompt: str
    reference: str
    base: str
    adapter: str


class Report(Model):
    """Everything worth knowing about a finished run."""

    outcome: RunReport
    name: str
    namespace: str
    created: str
    """When the run was published, UTC, ISO 8601."""
    model: ModelReport
    data: DataReport
    training: TrainingReport
    settings: list[Setting]
    samples: list[Sample]
    warnings: list[str]
    seconds: dict[str, float]
    """Wall time by stage."""
    versions: dict[str, str]
    """Versions of the packages that matter."""


class ManifestFile(Model):
    """One file of a run."""

    path: str
    """Relative to the run's folder."""
    size: int
    sha256: str


class Manifest(Model):
    """manifest.json: written last; a run without it is not complete."""

    run_id: str
    name: str
    namespace: str
    attempt: int
    digest: str
    created: str
    spec: dict[str, object]
    model_digest: str
    dataset_fingerprint: str
    verdict: str
    versions: dict[str, str]
    files: list[ManifestFile]
