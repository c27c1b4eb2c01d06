"""What the operator is told by its environment, read once at start and passed down."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator

PREFIX = "FINETUNE_"


class InvalidSettings(Exception):
    """The environment does not describe a working operator. The message names the variables."""


class Settings(BaseModel, frozen=True, extra="forbid"):
    """Each field is read from FINETUNE_<FIELD IN CAPITALS>."""

    trainer_image: str
    """Image of the pods, best with its digest."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets, comma separated, that exist in every namespace where jobs run."""
    trainer_env: dict[str, str] = {}
    """Variables of every trainer pod, as JSON: proxies, a mirror of the hub, an S3 endpoint."""
    trainer_ca_config_map: str = ""
    """ConfigMap in the job's namespace whose key ca.crt is trusted by trainer pods; empty for none."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces to serve, comma separated; empty for all."""
    namespace: str = "finetune-system"
    """Namespace of the operator itself, where its Lease is."""
    lease_name: str = "finetune-operator"
    leader_election: bool = True
    """Whether to wait for the Lease; only one operator may act on a job."""
    pod_name: str = "operator"
    """Name of this replica, as the Lease shows it."""
    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Jobs reconciled at the same time."""
    progress_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How often a running pod is asked how far it is."""
    retry_base_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Wait before the first retry of a failed stage; doubled for each further one, up to ten minutes."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Where /metrics is served."""
    health_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Where /healthz is served."""
    watch_stale_seconds: Annotated[float, Field(gt=0)] = 180.0
    """How long a watch may be silent before the operator counts as dead."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("image_pull_secrets", "watch_namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("trainer_env", mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        return TypeAdapter(dict[str, str]).validate_json(value) if isinstance(value, str) else value


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from FINETUNE_* variables; empty ones count as unset. Raises InvalidSettings."""
    names = {f"{PREFIX}{name.upper()}": name for name in Settings.model_fields}
    given = {names[variable]: text for variable, text in environment.items() if variable in names and text}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        problems = (f"{PREFIX}{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors())
        raise InvalidSettings("; ".join(problems)) from error
