"""The FineTuneJob resource: what a user writes and what a user reads."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from finetune_api.methods import MethodSpec
from finetune_api.pods import PodTemplateSpec, ResourcesSpec, SecretReference
from finetune_api.retrain import RetrainSpec
from finetune_api.schema import DNS_LABEL_PATTERN, NAME_RULE, PRODUCT, Model, WritableUri, cel_rules
from finetune_api.status import FineTuneJobStatus
from finetune_api.training import DatasetSpec, EvaluationSpec, ModelSpec, TrainingSpec

API_VERSION: Final = "finetuning.dev/v1alpha1"
GROUP, VERSION = API_VERSION.split("/")
KIND: Final = "FineTuneJob"

OUTPUT_STAYS = (
    "output.uri cannot be changed: earlier adapters of this job would be left behind; create a new FineTuneJob instead"
)
ONLY_LORA_MERGES = "output.merged needs method.type lora: nothing else can be merged into the weights of the base"
DnsLabel = Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)]


class OutputSpec(Model):
    """Where results go: <uri>/<namespace>/<name>/runs/<run id>/."""

    uri: Annotated[WritableUri, Field(json_schema_extra=cel_rules(("self == oldSelf", OUTPUT_STAYS)))]
    """Bucket or folder: s3://, gs://, az://, pvc://CLAIM/PATH or file://PATH. Cannot be changed later."""
    secret_ref: SecretReference | None = None
    """Secret with the variables that give access to the output, for instance AWS_ACCESS_KEY_ID."""
    merged: Annotated[bool, PRODUCT] = False
    """Whether a run also publishes its base with the LoRA adapter merged into it: a whole model in bfloat16."""


class FineTuneJobSpec(Model):
    """One fine-tuning task, declared."""

    model_config = ConfigDict(
        json_schema_extra=cel_rules(("!self.output.merged || self.method.type == 'lora'", ONLY_LORA_MERGES))
    )

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
    resources: ResourcesSpec = ResourcesSpec()
    """What the pods ask for."""
    pod_template: PodTemplateSpec = PodTemplateSpec()
    """Where and how the pods run."""
    queue_name: Annotated[DnsLabel | None, PRODUCT] = None
    """Local queue of Kueue that admits the training Job."""
    retrain: RetrainSpec = RetrainSpec()
    """When the job runs again by itself."""
    suspend: Annotated[bool, PRODUCT] = False
    """Whether to stop after saving, and to start nothing. Set back to false, the run goes on where it was."""
    retries: Annotated[int, Field(ge=0, le=100), PRODUCT] = 3
    """How often a stage is tried again after failures that can pass: storage, memory, a crash. Evictions are free."""
    active_deadline_seconds: Annotated[int | None, Field(ge=60, le=31536000), PRODUCT] = None
    """How long a run may take, waiting included. Default: as long as it takes."""
    ttl_seconds_after_finished: Annotated[int | None, Field(ge=0, le=31536000), PRODUCT] = None
    """How long the Jobs and pods of a finished run are kept; what is stored stays. Default: until the next run."""
    history_limit: Annotated[int, Field(ge=0, le=50), PRODUCT] = 5
    """How many earlier runs the status remembers."""

    @model_validator(mode="after")
    def _merge_what_can_be(self) -> Self:
        if self.output.merged and self.method.type != "lora":
            raise ValueError(ONLY_LORA_MERGES)
        return self


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
