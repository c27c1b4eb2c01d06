"""The base of every model, and the mark that says where a default comes from."""

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo


class Model(BaseModel):
    """camelCase outside, snake_case inside; unknown fields are errors; attribute docstrings are the documentation."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        ser_json_inf_nan="null",
    )


def fields_of(model: type[Model]) -> dict[str, FieldInfo]:
    """Fields of a model by the names that manifests use."""
    return {to_camel(name): field for name, field in model.model_fields.items()}


def nested_model(annotation: object) -> type[Model] | None:
    """The model in X, X | None or list[X]; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((model for part in get_args(annotation) if (model := nested_model(part))), None)


@dataclass(frozen=True)
class Source:
    """Where a field's default value comes from, shown by `finetune plan` and in the report."""

    text: str


ARTICLE = Source("default: best-practice article")
LORA_PRACTICE = Source("default: common LoRA practice")
PRODUCT = Source("default: this product")


def cel_rules(*rules: tuple[str, str]) -> dict[str, Any]:
    """JSON schema extra of rules that the API server checks too: pairs of CEL expression and message."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


SCHEMES = ("hf", "s3", "gs", "az", "pvc", "file")
WRITABLE_SCHEMES = tuple(scheme for scheme in SCHEMES if scheme != "hf")

READABLE_PATTERN = rf"^({'|'.join(SCHEMES)})://[^\s]+$"
WRITABLE_PATTERN = rf"^({'|'.join(WRITABLE_SCHEMES)})://[^\s]+$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
OBJECT_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
RESOURCE_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
CRON_PATTERN = r"^(@(hourly|daily|weekly|monthly|yearly)|[^\s]+( [^\s]+){4})$"
TIME_ZONE_PATTERN = r"^[A-Za-z0-9_+/-]+$"

NAME_RULE = "must be at most 63 lowercase letters, digits and dashes, with a letter or digit at both ends"


def _listed(schemes: tuple[str, ...]) -> str:
    *others, last = [f"{scheme}://" for scheme in schemes]
    return f"{', '.join(others)} or {last}"


PATTERNS = {
    READABLE_PATTERN: f"must start with {_listed(SCHEMES)}, and contain no spaces",
    WRITABLE_PATTERN: f"must start with {_listed(WRITABLE_SCHEMES)}, and contain no spaces",
    DNS_LABEL_PATTERN: NAME_RULE,
    OBJECT_NAME_PATTERN: "must be the name of an object: lowercase letters, digits, dashes and dots, with a letter or "
    "digit at both ends",
    QUANTITY_PATTERN: "must be an amount such as 500m, 4 or 16Gi",
    RESOURCE_PATTERN: "must be the name of a resource such as nvidia.com/gpu",
    VARIABLE_PATTERN: "must be letters, digits and underscores, and not begin with a digit",
    CRON_PATTERN: "must be a cron expression of five fields such as 0 3 * * 0, or one of @hourly, @daily, @weekly, "
    "@monthly and @yearly",
    TIME_ZONE_PATTERN: "must be a time zone such as UTC or Europe/Berlin",
}
"""What a text that does not match a pattern should have been. Every pattern of the API stands here."""

ReadableUri = Annotated[str, Field(pattern=READABLE_PATTERN, max_length=1024)]
"""Something the trainer can read: hf:// s3:// gs:// az:// pvc:// file://."""

WritableUri = Annotated[str, Field(pattern=WRITABLE_PATTERN, max_length=1024)]
"""Somewhere the trainer can write: s3:// gs:// az:// pvc:// file://."""
