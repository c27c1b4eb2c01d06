"""What makes two runs the same run, and how runs are named."""

import hashlib
import json
from datetime import date
from typing import Any

from finetune_api.job import FineTuneJob, FineTuneJobSpec
from finetune_api.run import RunConfig, Setting

DECIDING = ("model", "dataset", "method", "training", "evaluation")
"""Parts of a spec that decide the result of a run."""


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def spec_digest(spec: FineTuneJobSpec) -> str:
    """sha256 of what the manifest says about the result: model, data, method, training, evaluation; nothing else."""
    return _sha256(_relevant(spec))


def run_digest(spec: FineTuneJobSpec, data_fingerprint: str) -> str:
    """sha256 of everything that decides the result: the relevant part of the manifest and the data itself."""
    return _sha256({"spec": _relevant(spec), "data": data_fingerprint})


def _relevant(spec: FineTuneJobSpec) -> dict[str, Any]:
    """What differs from the defaults: a field that a later version adds must not make a finished run look new."""
    relevant = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=set(DECIDING))
    for part in ("model", "dataset"):
        relevant[part].pop("secretRef", None)
    training, method = relevant.setdefault("training", {}), relevant.get("method", {})
    training["maxEpochs"] = spec.training.last_epoch  # left out or not, the effect is one
    defaults = spec.method.defaults
    _drop(training, "learningRate", defaults.learning_rate)
    _drop(method, "quantization", defaults.quantization)
    _drop(method, spec.method.type, {})
    _drop(relevant, "method", {})
    return relevant


def _drop(values: dict[str, Any], name: str, default: object) -> None:
    """Leave out what is written as it would be by default."""
    if values.get(name) == default:
        values.pop(name, None)


def _sha256(value: object) -> str:
    return f"sha256:{hashlib.sha256(canonical(value).encode()).hexdigest()}"


def digest8(digest: str) -> str:
    """The first eight hex digits of a digest, as used in names."""
    return digest.removeprefix("sha256:")[:8]


def run_id(digest: str, day: date) -> str:
    """Name of a run: day and the first eight digits of the digest, for instance 20261123-3f9a1c2b."""
    return f"{day:%Y%m%d}-{digest8(digest)}"


def resolved(spec: FineTuneJobSpec) -> FineTuneJobSpec:
    """The spec with the defaults of its method written out."""
    method, training = spec.method, spec.training
    own: dict[str, Any] = {method.type: method.part} if method.part is not None else {}
    rate = method.defaults.learning_rate if training.learning_rate is None else training.learning_rate
    return spec.model_copy(
        update={
            "method": method.model_copy(update={"quantization": method.storage, **own}),
            "training": training.model_copy(update={"learning_rate": rate}),
        }
    )


def run_config(job: FineTuneJob, run: str, digest: str, settings: list[Setting]) -> RunConfig:
    """The trainer's orders for one run of a job."""
    spec = resolved(job.spec)
    return RunConfig(
        namespace=job.metadata.namespace,
        name=job.metadata.name,
        run_id=run,
        digest=digest,
        model=spec.model,
        dataset=spec.dataset,
        method=spec.method,
        training=spec.training,
        evaluation=spec.evaluation,
        output_uri=spec.output.uri,
        merged=spec.output.merged,
        gpu_memory=spec.resources.gpu_bytes,
        settings=settings,
    )
