"""Every effective setting of a job and where it came from."""

import re

from pydantic.fields import FieldInfo

from finetune_api.identity import DECIDING
from finetune_api.job import FineTuneJobSpec
from finetune_api.run import Setting
from finetune_api.schema import Model, Source
from finetune_api.training import TrainingSpec

MANIFEST = "manifest"
UNSET = {"dataset.format": "detected", "dataset.split.groupBy": "equal prompts"}
"""What happens when a field without a default value is left out."""


def settings_of(job_spec: FineTuneJobSpec) -> list[Setting]:
    """Effective settings of what decides the result, in the order of the manifest."""
    return [setting for part in DECIDING for setting in _settings(getattr(job_spec, part), f"{part}.")]


def source_of(field: FieldInfo) -> str:
    """Where the default of a field comes from; empty for fields that have none."""
    return next((mark.text for mark in field.metadata if isinstance(mark, Source)), "")


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


def _settings(model: Model, prefix: str) -> list[Setting]:
    found: list[Setting] = []
    for name, field in type(model).model_fields.items():
        value, path = getattr(model, name), f"{prefix}{field.alias}"
        if name == "secret_ref":
            continue
        if isinstance(value, Model):
            found += _settings(value, f"{path}.")
            continue
        source = MANIFEST if name in model.model_fields_set and value is not None else source_of(field)
        found.append(Setting(path=path, value=_effective(model, name, path), source=source))
    return found


def _effective(model: Model, name: str, path: str) -> str:
    if isinstance(model, TrainingSpec) and name == "max_epochs":
        return str(model.last_epoch)
    value = getattr(model, name)
    return UNSET[path] if value is None else written(value)
