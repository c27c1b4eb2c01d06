"""The base of every model, and the mark that says where a default comes from."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


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


@dataclass(frozen=True)
class Source:
    """Where a field's default value comes from, shown by `finetune plan` and in the report."""

    text: str


ARTICLE = Source("default: best-practice article")
LORA_PRACTICE = Source("default: common LoRA practice")
PRODUCT = Source("default: this product")

SCHEMES = ("hf", "s3", "gs", "az", "pvc", "file")
_WRITABLE = tuple(scheme for scheme in SCHEMES if scheme != "hf")

ReadableUri = Annotated[str, Field(pattern=rf"^({'|'.join(SCHEMES)})://[^\s]+$", max_length=1024)]
"""Something the trainer can read: hf:// s3:// gs:// az:// pvc:// file://."""

WritableUri = Annotated[str, Field(pattern=rf"^({'|'.join(_WRITABLE)})://[^\s]+$", max_length=1024)]
"""Somewhere the trainer can write: s3:// gs:// az:// pvc:// file://."""
