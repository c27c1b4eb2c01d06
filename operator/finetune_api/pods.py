"""How the pods of a job may look: what they ask for, where they run, which secrets they see. Never what they may do."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from finetune_api.schema import (
    CPU_PATTERN,
    OBJECT_NAME_PATTERN,
    PRODUCT,
    QUANTITY_PATTERN,
    RESOURCE_PATTERN,
    VARIABLE_PATTERN,
    Model,
    cel_rules,
)

RESERVED_VARIABLES = ("FINETUNE_", "LD_", "PYTHON")
RESERVED_LABELS = ("finetuning.dev/", "kueue.x-k8s.io/", "batch.kubernetes.io/", "app.kubernetes.io/managed-by")
RESERVED_ANNOTATIONS = ("container.apparmor.security.beta.kubernetes.io/", "seccomp.security.alpha.kubernetes.io/")
KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"

VARIABLE_TAKEN = "names that begin with FINETUNE_, LD_ or PYTHON are reserved"
LABEL_TAKEN = (
    "labels of finetuning.dev, kueue.x-k8s.io, batch.kubernetes.io and app.kubernetes.io/managed-by are reserved"
)
SECURITY_FIXED = "AppArmor and seccomp are the operator's: such an annotation could only weaken them"
KEYS = (
    "keys must be letters, digits, dashes, dots and underscores, at most 63, with an optional lowercase prefix such as "
    "example.com/"
)
LABELS = "values must be letters, digits, dashes, dots and underscores, with a letter or digit at both ends"
OPERATORS_OWN = "Image, command, security context and volumes are the operator's"
KEYLESS = "a toleration without key needs operator Exists"
VALUELESS = "operator Exists takes no value"
EVICTION_ONLY = "tolerationSeconds needs effect NoExecute"
NODES_HAVE_GPUS = "nodes above 1 needs accelerators to share the work: set gpus to at least 1, or nodes to 1"

Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN, max_length=32)]
"""An amount of memory or storage as Kubernetes writes it: 16Gi."""
UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
Cpu = Annotated[str, Field(pattern=CPU_PATTERN, max_length=16)]
"""An amount of CPU: 500m, 4."""
ObjectName = Annotated[str, Field(pattern=OBJECT_NAME_PATTERN, max_length=253)]
"""Name of a Kubernetes object: lowercase letters, digits, dashes and dots."""


def bytes_of(quantity: str) -> int:
    """An amount of memory in bytes: 16Gi, 1.5G, 512."""
    unit = next((unit for unit in sorted(UNITS, key=len, reverse=True) if quantity.endswith(unit)), "")
    return int(float(quantity.removesuffix(unit)) * UNITS.get(unit, 1))


def _unlike(subject: str, prefixes: tuple[str, ...]) -> str:
    """CEL expression: the subject begins with none of the prefixes."""
    return " && ".join(f"!{subject}.startsWith('{prefix}')" for prefix in prefixes)


def _refuse_if(refused: bool, message: str) -> None:
    if refused:
        raise ValueError(message)


def _keys_fit(entries: Mapping[str, str]) -> dict[str, str]:
    _refuse_if(not all(re.fullmatch(KEY_PATTERN, key) for key in entries), KEYS)
    return dict(entries)


def _values_fit(labels: Mapping[str, str]) -> dict[str, str]:
    _refuse_if(not all(re.fullmatch(LABEL_PATTERN, value) for value in labels.values()), LABELS)
    return dict(labels)


def _labels_are_free(labels: Mapping[str, str]) -> dict[str, str]:
    _refuse_if(any(key.startswith(RESERVED_LABELS) for key in labels), LABEL_TAKEN)
    return dict(labels)


def _security_stays(annotations: Mapping[str, str]) -> dict[str, str]:
    _refuse_if(any(key.startswith(RESERVED_ANNOTATIONS) for key in annotations), SECURITY_FIXED)
    return dict(annotations)


def _variable_is_free(name: str) -> str:
    _refuse_if(name.startswith(RESERVED_VARIABLES), VARIABLE_TAKEN)
    return name


KEYS_FIT = (f"self.all(key, key.matches('{KEY_PATTERN}'))", KEYS)
VALUES_FIT = (f"self.all(key, self[key].matches('{LABEL_PATTERN}'))", LABELS)
LABELS_FREE = (f"self.all(key, {_unlike('key', RESERVED_LABELS)})", LABEL_TAKEN)
SECURITY_STAYS = (f"self.all(key, {_unlike('key', RESERVED_ANNOTATIONS)})", SECURITY_FIXED)

LabelValue = Annotated[str, Field(max_length=63)]
NodeLabels = Annotated[
    dict[str, LabelValue],
    Field(max_length=32, json_schema_extra=cel_rules(KEYS_FIT, VALUES_FIT)),
    AfterValidator(_keys_fit),
    AfterValidator(_values_fit),
]
PodLabels = Annotated[
    dict[str, LabelValue],
    Field(max_length=32, json_schema_extra=cel_rules(KEYS_FIT, VALUES_FIT, LABELS_FREE)),
    AfterValidator(_keys_fit),
    AfterValidator(_values_fit),
    AfterValidator(_labels_are_free),
]
PodAnnotations = Annotated[
    dict[str, Annotated[str, Field(max_length=1024)]],
    Field(max_length=32, json_schema_extra=cel_rules(KEYS_FIT, SECURITY_STAYS)),
    AfterValidator(_keys_fit),
    AfterValidator(_security_stays),
]


class SecretReference(Model):
    """A Secret in the job's namespace whose keys become environment variables of the pods, for instance HF_TOKEN or
    AWS_ACCESS_KEY_ID."""

    name: ObjectName
    """Name of the Secret."""


class PrepareResources(Model):
    """The pod that prepares and checks the data before an accelerator is asked for."""

    separate: Annotated[bool, PRODUCT] = True
    """Whether preparation gets a pod of its own. If not, the training pod does it, and holds its GPU meanwhile."""
    cpu: Annotated[Cpu, PRODUCT] = "2"
    """CPU asked for."""
    memory: Annotated[Quantity, PRODUCT] = "8Gi"
    """Memory asked for, and the limit."""


class ResourcesSpec(Model):
    """What the training pod asks for."""

    model_config = ConfigDict(json_schema_extra=cel_rules(("self.nodes == 1 || self.gpus >= 1", NODES_HAVE_GPUS)))

    nodes: Annotated[int, Field(ge=1, le=64), PRODUCT] = 1
    """Pods that train together, each with the accelerators, CPU, memory and storage below for itself. How many they are
    does not decide the result."""
    gpus: Annotated[int, Field(ge=0, le=16), PRODUCT] = 1
    """Accelerators of a training pod; 0 trains on CPU."""
    gpu_resource: Annotated[str, Field(pattern=RESOURCE_PATTERN, max_length=128), PRODUCT] = "nvidia.com/gpu"
    """Name of the accelerator among a node's resources; a MIG slice has its own."""
    gpu_memory: Annotated[Quantity | None, PRODUCT] = None
    """Memory of one accelerator that the run may use, for instance 40Gi; a run that needs more is refused before it
    asks for one. Default: all there is."""
    cpu: Annotated[Cpu, PRODUCT] = "4"
    """CPU asked for; training uses as many threads."""
    memory: Annotated[Quantity, PRODUCT] = "32Gi"
    """Memory asked for, and the limit."""
    storage: Annotated[Quantity, PRODUCT] = "100Gi"
    """Most that a pod may keep on its node's disk: model, data, and the adapter being written."""
    prepare: PrepareResources = PrepareResources()
    """The pod that prepares the data."""

    @property
    def gpu_bytes(self) -> int | None:
        """Bytes of a card's memory that the run may use; None for all there is."""
        return bytes_of(self.gpu_memory) if self.gpu_memory else None

    @model_validator(mode="after")
    def _nodes_have_gpus(self) -> Self:
        _refuse_if(self.nodes > 1 and self.gpus == 0, NODES_HAVE_GPUS)
        return self


class Toleration(Model):
    """A taint that the pods tolerate."""

    model_config = ConfigDict(
        json_schema_extra=cel_rules(
            ("has(self.key) || self.operator == 'Exists'", KEYLESS),
            ("self.operator == 'Equal' || !has(self.value)", VALUELESS),
            ("!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')", EVICTION_ONLY),
        )
    )

    key: Annotated[str | None, Field(max_length=316)] = None
    """Taint key; left out, every key."""
    operator: Annotated[Literal["Exists", "Equal"], PRODUCT] = "Equal"
    """How key and value must match."""
    value: LabelValue | None = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; left out, every effect."""
    toleration_seconds: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None
    """How long a NoExecute taint is tolerated."""

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        _refuse_if(self.key is None and self.operator == "Equal", KEYLESS)
        _refuse_if(self.value is not None and self.operator == "Exists", VALUELESS)
        _refuse_if(self.toleration_seconds is not None and self.effect != "NoExecute", EVICTION_ONLY)
        return self


VariableName = Annotated[
    str,
    Field(
        pattern=VARIABLE_PATTERN,
        max_length=128,
        json_schema_extra=cel_rules((_unlike("self", RESERVED_VARIABLES), VARIABLE_TAKEN)),
    ),
    AfterValidator(_variable_is_free),
]


class Variable(Model):
    """One environment variable."""

    name: VariableName
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)] = ""
    """Its value. Secrets belong into a Secret: see secretRef."""


class PodTemplateSpec(Model):
    """What a job may say about its pods. Image, command, security context and volumes are the operator's."""

    labels: PodLabels = {}
    """Labels of the pods."""
    annotations: PodAnnotations = {}
    """Annotations of the pods."""
    node_selector: NodeLabels = {}
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
