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

ReadableUri = Annotated[str, Field(pattern=READABLE_PATTERN, max_length=1024)]
"""Something the trainer can read: hf:// s3:// gs:// az:// pvc:// file://."""

WritableUri = Annotated[str, Field(pattern=WRITABLE_PATTERN, max_length=1024)]
"""Somewhere the trainer can write: s3:// gs:// az:// pvc:// file://."""
