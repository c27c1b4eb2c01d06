"""How the pods of a job may look: what they ask for, where they run, which secrets they see. Never what they may do."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from finetune_api.schema import (
    OBJECT_NAME_PATTERN,
    PRODUCT,
    QUANTITY_PATTERN,
    RESOURCE_PATTERN,
    VARIABLE_PATTERN,
    Model,
    cel_rules,
)

RESERVED_NAMES = ("FINETUNE_", "LD_", "PYTHON")
RESERVED = "names that begin with FINETUNE_, LD_ or PYTHON are reserved"

Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN, max_length=32)]
"""An amount as Kubernetes writes it: 500m, 4, 16Gi."""
ObjectName = Annotated[str, Field(pattern=OBJECT_NAME_PATTERN, max_length=253)]
"""Name of a Kubernetes object: lowercase letters, digits, dashes and dots."""
LabelText = Annotated[str, Field(max_length=1024)]


class SecretReference(Model):
    """A Secret in the job's namespace whose keys become environment variables of the pods, for instance HF_TOKEN or
    AWS_ACCESS_KEY_ID."""

    name: ObjectName
    """Name of the Secret."""


class PrepareResources(Model):
    """The pod that prepares and checks the data before an accelerator is asked for."""

    separate: Annotated[bool, PRODUCT] = True
    """Whether preparation gets a pod of its own. If not, the training pod does it, and holds its GPU meanwhile."""
    cpu: Annotated[Quantity, PRODUCT] = "2"
    """CPU asked for."""
    memory: Annotated[Quantity, PRODUCT] = "8Gi"
    """Memory asked for, and the limit."""


class ResourcesSpec(Model):
    """What the training pod asks for."""

    gpus: Annotated[int, Field(ge=0, le=16), PRODUCT] = 1
    """Accelerators of the training pod; 0 trains on CPU."""
    gpu_resource: Annotated[str, Field(pattern=RESOURCE_PATTERN, max_length=128), PRODUCT] = "nvidia.com/gpu"
    """Name of the accelerator among a node's resources; a MIG slice has its own."""
    cpu: Annotated[Quantity, PRODUCT] = "4"
    """CPU asked for; training uses as many threads."""
    memory: Annotated[Quantity, PRODUCT] = "32Gi"
    """Memory asked for, and the limit."""
    storage: Annotated[Quantity, PRODUCT] = "100Gi"
    """Most that a pod may keep on its node's disk: model, data, and the adapter being written."""
    prepare: PrepareResources = PrepareResources()
    """The pod that prepares the data."""


class Toleration(Model):
    """A taint that the pods tolerate."""

    key: Annotated[str | None, Field(max_length=316)] = None
    """Taint key; left out, every key."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How key and value must match."""
    value: Annotated[str | None, Field(max_length=63)] = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; left out, every effect."""
    toleration_seconds: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None
    """How long a NoExecute taint is tolerated."""


class Variable(Model):
    """One environment variable."""

    model_config = ConfigDict(
        json_schema_extra=cel_rules(
            (" && ".join(f"!self.name.startsWith('{name}')" for name in RESERVED_NAMES), RESERVED),
        )
    )

    name: Annotated[str, Field(pattern=VARIABLE_PATTERN, max_length=128)]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)] = ""
    """Its value. Secrets belong into a Secret: see secretRef."""


class PodTemplateSpec(Model):
    """What a job may say about its pods. Image, command, security context and volumes are the operator's."""

    labels: Annotated[dict[str, LabelText], Field(max_length=32)] = {}
    """Labels of the pods."""
    annotations: Annotated[dict[str, LabelText], Field(max_length=32)] = {}
    """Annotations of the pods."""
    node_selector: Annotated[dict[str, LabelText], Field(max_length=32)] = {}
    """Labels that a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = []
    """Taints that the pods tolerate."""
    env: Annotated[list[Variable], Field(max_length=64)] = []
    """Further environment variables."""
    service_account_name: ObjectName | None = None
    """Service account, for clouds that grant access to buckets by it. Its API token is not mounted."""
    image_pull_secrets: Annotated[list[SecretReference], Field(max_length=8)] = []
    """Secrets to pull the trainer image with, beside those the operator was installed with."""
    priority_class_name: ObjectName | None = None
    """Priority class."""
    runtime_class_name: ObjectName | None = None
    """Runtime class, for instance nvidia."""
    scheduler_name: ObjectName | None = None
    """Scheduler, if not the default one."""
