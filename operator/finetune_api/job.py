"""The FineTuneJob resource: what a user writes and what a user reads."""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from finetune_api.run import EvaluationOutcome, Progress, StoredAdapter
from finetune_api.schema import Model, WritableUri, cel_rules
from finetune_api.training import DatasetSpec, EvaluationSpec, MethodSpec, ModelSpec, TrainingSpec

API_VERSION: Final = "finetuning.dev/v1alpha1"
GROUP, VERSION = API_VERSION.split("/")
KIND: Final = "FineTuneJob"

Phase = Literal["Pending", "Preparing", "Training", "Evaluating", "Succeeded", "Rejected", "Failed"]
"""Rejected: the run is complete and published, and its adapter was not shown to be better."""

OUTPUT_STAYS = (
    "output.uri cannot be changed: earlier adapters of this job would be left behind; create a new FineTuneJob instead"
)
NAME_RULE = "must be at most 63 lowercase letters, digits and dashes, with a letter or digit at both ends"

DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DnsLabel = Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)]


class OutputSpec(Model):
    """Where results go: <uri>/<namespace>/<name>/runs/<run id>/."""

    uri: Annotated[WritableUri, Field(json_schema_extra=cel_rules(("self == oldSelf", OUTPUT_STAYS)))]
    """Bucket or folder: s3://, gs://, az://, pvc://CLAIM/PATH or file://PATH. Cannot be changed later."""


class FineTuneJobSpec(Model):
    """One fine-tuning task, declared."""

    model: ModelSpec
    """The base model."""
    dataset: DatasetSpec
    """The examples."""
    method: MethodSpec = MethodSpec()
    """How the model is adapted."""
    training: TrainingSpec = TrainingSpec()
    """Hyperparameters."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How the result is judged."""
    output: OutputSpec
    """Where results go."""


class RunStatus(Model):
    """The run that the status speaks of."""

    id: str
    """Date and digest, for instance 20261123-3f9a1c2b."""
    digest: str
    """sha256 of what decides the result."""
    attempt: int
    """Number of this attempt at the run, from 1."""


class FineTuneJobStatus(Model):
    """What is known about the job."""

    phase: Phase | None = None
    """Where the current run stands. Rejected: complete and published, but the adapter was not shown to be better."""
    message: str | None = None
    """The phase in one sentence: what happened and what to do."""
    run: RunStatus | None = None
    """The current run."""
    progress: Progress | None = None
    """How far the current stage is."""
    adapter: StoredAdapter | None = None
    """The adapter of the current run, once published."""
    evaluation: EvaluationOutcome | None = None
    """Base against adapter on the held-out test rows."""


class Metadata(Model):
    """The part of Kubernetes object metadata that matters here; the rest is allowed and ignored."""

    model_config = ConfigDict(extra="allow")

    name: DnsLabel
    """Name of the job; becomes part of the output path."""
    namespace: DnsLabel = "default"
    """Namespace of the job; becomes part of the output path."""
    labels: dict[str, str] = {}
    """Labels; they never cause a run."""
    annotations: dict[str, str] = {}
    """Annotations; they never cause a run."""


class FineTuneJob(Model):
    """Fine-tune a base model on domain examples and prove the result on held-out rows."""

    # Kubernetes allows dots and 253 characters in a name; labels, in which a job's name is kept, do not.
    model_config = ConfigDict(
        json_schema_extra=cel_rules(
            ("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')", f"metadata.name {NAME_RULE}"),
        )
    )

    api_version: Literal["finetuning.dev/v1alpha1"] = API_VERSION
    kind: Literal["FineTuneJob"] = KIND
    metadata: Metadata
    spec: FineTuneJobSpec
    """What is asked for."""
    status: FineTuneJobStatus | None = None
    """What is known; written by the operator."""

    def to_manifest(self) -> dict[str, Any]:
        """The resource as plain data, as `kubectl get -o yaml` would show it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
