"""The base of every model, and the mark that says where a default comes from."""

import re
from collections.abc import Sequence
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


def written(value: object) -> str:
    """A value as a person would write it: 2e-5, 0.15, 1, true, or entries separated by commas."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case float():
            return re.sub(r"\.0$|(?<=e-)0+|(?<=e)\+0*", "", repr(value))
        case list() | tuple():
            return ", ".join(written(entry) for entry in value)
        case _:
            return str(value)


def listed(words: Sequence[str], last: str = "or") -> str:
    """a; a or b; a, b or c; with another word before the last one where that is wanted."""
    *others, end = words
    return f"{', '.join(others)} {last} {end}" if others else end


@dataclass(frozen=True)
class Source:
    """Where a field's default value comes from, shown by `finetune plan` and in the report."""

    text: str


ARTICLE = Source("default: best-practice article")
LORA_PRACTICE = Source("default: common LoRA practice")
PREFIX_PRACTICE = Source("default: PEFT's comparison of methods")
BOTTLENECK_PRACTICE = Source("default: common adapter practice")
PRODUCT = Source("default: this product")


def cel_rules(*rules: tuple[str, str]) -> dict[str, Any]:
    """JSON schema extra of rules that the API server checks too: pairs of CEL expression and message."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


def _cron_field(value: str) -> str:
    """Pattern of a field: a star, a value or a range, each with an optional step; several with commas between."""
    part = rf"(\*|({value})(-({value}))?)(/[1-9][0-9]?)?"
    return f"{part}(,{part})*"


SCHEMES = ("hf", "s3", "gs", "az", "pvc", "file")
WRITABLE_SCHEMES = tuple(scheme for scheme in SCHEMES if scheme != "hf")

READABLE_PATTERN = rf"^({'|'.join(SCHEMES)})://[^\s]+$"
WRITABLE_PATTERN = rf"^({'|'.join(WRITABLE_SCHEMES)})://[^\s]+$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
OBJECT_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$"
CPU_PATTERN = r"^([0-9]+m|[0-9]+(\.[0-9]+)?)$"
RESOURCE_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
CRON_FIELDS = (
    "0?[0-9]|[1-5][0-9]",
    "0?[0-9]|1[0-9]|2[0-3]",
    "0?[1-9]|[12][0-9]|3[01]",
    "0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)",
    "0?[0-7]|(?i:sun|mon|tue|wed|thu|fri|sat)",
)
"""One value of minute, hour, day, month and weekday."""
CRON_PATTERN = f"^(@(hourly|daily|weekly|monthly|yearly)|{' '.join(map(_cron_field, CRON_FIELDS))})$"
TIME_ZONE_PATTERN = r"^[A-Za-z0-9_+/-]+$"

NAME_RULE = "must be at most 63 lowercase letters, digits and dashes, with a letter or digit at both ends"


def _listed(schemes: tuple[str, ...]) -> str:
    return listed([f"{scheme}://" for scheme in schemes])


PATTERNS = {
    READABLE_PATTERN: f"must start with {_listed(SCHEMES)}, and contain no spaces",
    WRITABLE_PATTERN: f"must start with {_listed(WRITABLE_SCHEMES)}, and contain no spaces",
    DNS_LABEL_PATTERN: NAME_RULE,
    OBJECT_NAME_PATTERN: "must be the name of an object: lowercase letters, digits, dashes and dots, with a letter or "
    "digit at both ends",
    QUANTITY_PATTERN: "must be an amount such as 512Mi or 16Gi",
    CPU_PATTERN: "must be an amount of CPU such as 500m or 4",
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
