"""What makes two runs the same run, and how runs are named."""

import hashlib
import json
from datetime import date

from finetune_api.job import FineTuneJob, FineTuneJobSpec
from finetune_api.run import RunConfig, Setting


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def run_digest(spec: FineTuneJobSpec, data_fingerprint: str) -> str:
    """sha256 of everything that decides the result: model, data, method, training and evaluation, not the output."""
    relevant = spec.model_dump(mode="json", by_alias=True, exclude={"output"})
    relevant["training"]["maxEpochs"] = spec.training.last_epoch  # written out or left out, the effect is the same
    text = canonical({"spec": relevant, "data": data_fingerprint})
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def digest8(digest: str) -> str:
    """The first eight hex digits of a digest, as used in names."""
    return digest.removeprefix("sha256:")[:8]


def run_id(digest: str, day: date) -> str:
    """Name of a run: day and the first eight digits of the digest, for instance 20261123-3f9a1c2b."""
    return f"{day:%Y%m%d}-{digest8(digest)}"


def run_config(job: FineTuneJob, run: str, digest: str, settings: list[Setting]) -> RunConfig:
    """The trainer's orders for one run of a job."""
    spec = job.spec
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
        settings=settings,
    )
