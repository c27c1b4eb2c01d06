"""Which run a job is at, from what its manifest, its data and its store say: the same on a laptop and in a pod."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from finetune_api.documents import InvalidManifest
from finetune_api.identity import digest8, run_config, run_digest, run_id
from finetune_api.job import FineTuneJob
from finetune_api.report import Report
from finetune_api.run import RunConfig
from finetune_api.settings import settings_of
from finetune_trainer.errors import InvalidConfig, NotFound, StorageError
from finetune_trainer.fetch import fetch_dataset, resolve_revision
from finetune_trainer.manifest import NAME as MANIFEST
from finetune_trainer.prepare import CONFIG, has_rows
from finetune_trainer.store import Store, open_store


def invalid(name: str, error: InvalidManifest) -> InvalidConfig:
    """What is wrong with a document that people call `name`: one line for one problem, else one line each."""
    problems = error.problems
    if len(problems) == 1:
        return InvalidConfig(f"{name}: {problems[0]}")
    return InvalidConfig("\n  ".join([f"{name} has {len(problems)} problems:", *map(str, problems)]))


def job_store(job: FineTuneJob) -> Store:
    """Where everything of a job is kept."""
    return open_store(job.spec.output.uri).under(f"{job.metadata.namespace}/{job.metadata.name}")


def config_of(job: FineTuneJob, store: Store, cache: Path) -> RunConfig:
    """The orders for this job, its data and its model as they are now: a run already begun keeps its name."""
    data = fetch_dataset(job.spec.dataset.uri, cache)
    spec = job.spec.model_copy(update={"model": resolve_revision(job.spec.model, cache)})
    digest = run_digest(spec, data.fingerprint)
    name = begun_run(store, digest) or run_id(digest, datetime.now(UTC).date())
    return run_config(job.model_copy(update={"spec": spec}), name, digest, settings_of(job.spec))


def begun_run(store: Store, digest: str) -> str | None:
    """The run of this digest that an earlier day or attempt began."""
    names = {file.path.split("/")[1] for file in store.list("runs")}
    return max((name for name in names if name.endswith(f"-{digest8(digest)}")), default=None)


def begun_config(job: FineTuneJob, store: Store, run: str, digest: str) -> RunConfig | None:
    """The orders that a run's rows were prepared by; None unless these very rows are there."""
    folder = store.under(f"runs/{run}")
    try:
        config = RunConfig.model_validate_json(folder.read(CONFIG))
    except (NotFound, ValidationError):
        return None
    if config.digest != digest or not has_rows(folder):
        return None
    output, resources = job.spec.output, job.spec.resources
    now = {"output_uri": output.uri, "merged": output.merged, "gpu_memory": resources.gpu_bytes}
    return config.model_copy(update=now)


def finished_report(store: Store) -> Report | None:
    """The report of a complete run, from the run's folder. Raises StorageError if it is damaged."""
    if not store.exists(MANIFEST):
        return None
    try:
        return Report.model_validate_json(store.read("report.json"))
    except NotFound:
        return None
    except ValidationError as error:
        raise StorageError(
            f"{store.uri_of('report.json')} is damaged. Restore it, or delete the run's manifest.json to run again."
        ) from error
