"""Every effective setting of a job and where it came from."""

from collections.abc import Mapping

from pydantic.fields import FieldInfo

from finetune_api.identity import DECIDING, resolved
from finetune_api.job import FineTuneJobSpec
from finetune_api.run import Setting
from finetune_api.schema import Model, Source, nested_model, written
from finetune_api.training import TrainingSpec

MANIFEST = "manifest"
UNSET = {
    "dataset.format": "detected",
    "dataset.split.groupBy": "equal prompts",
    "training.microBatchTokens": "what fits",
}
"""What happens when a field without a default value is left out."""


def settings_of(job_spec: FineTuneJobSpec) -> list[Setting]:
    """Effective settings of what decides the result, in the order of the manifest."""
    sources = {"training.learningRate": job_spec.method.defaults.rate_source}
    effective = resolved(job_spec)
    return [
        setting
        for part in DECIDING
        for setting in _settings(getattr(effective, part), getattr(job_spec, part), f"{part}.", sources)
    ]


def source_of(field: FieldInfo) -> str:
    """Where the default of a field comes from; empty for fields that have none."""
    return next((mark.text for mark in field.metadata if isinstance(mark, Source)), "")


def _settings(model: Model, given: Model | None, prefix: str, sources: Mapping[str, Source]) -> list[Setting]:
    """The settings of `model`; `given` is the same as the manifest has it."""
    found: list[Setting] = []
    for name, field in type(model).model_fields.items():
        value, path = getattr(model, name), f"{prefix}{field.alias}"
        if name == "secret_ref" or (nested_model(field.annotation) and value is None):
            continue
        if isinstance(value, Model):
            found += _settings(value, getattr(given, name, None), f"{path}.", sources)
            continue
        chosen = given is not None and name in given.model_fields_set and getattr(given, name) is not None
        source = sources[path].text if path in sources else source_of(field)
        found.append(Setting(path=path, value=_effective(model, name, path), source=MANIFEST if chosen else source))
    return found


def _effective(model: Model, name: str, path: str) -> str:
    if isinstance(model, TrainingSpec) and name == "max_epochs":
        return str(model.last_epoch)
    value = getattr(model, name)
    return UNSET[path] if value is None else written(value)
