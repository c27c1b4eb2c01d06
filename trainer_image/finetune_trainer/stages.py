"""What a pod does: look at the data, prepare it, or carry out the run. Each stage ends with a RunReport."""

from dataclasses import dataclass

from finetune_api.job import FineTuneJob
from finetune_api.report import Report
from finetune_api.run import ExitCode, RunConfig, RunReport, Setting
from finetune_trainer.attempts import claim
from finetune_trainer.demand import measure_demand
from finetune_trainer.fetch import fetch_model
from finetune_trainer.log import log
from finetune_trainer.prepare import freeze_rows
from finetune_trainer.promotion import make_current, promote
from finetune_trainer.runs import begun_config, config_of, finished_report, job_store
from finetune_trainer.session import Session
from finetune_trainer.store import Store
from finetune_trainer.versions import data_version
from finetune_trainer.wording import prepared_sentence

MICRO_BATCH = "training.microBatchTokens"
FINISHED = "Run {} of this manifest and this data is finished; there is nothing to do."


@dataclass(frozen=True)
class Begun:
    """A run whose rows an earlier pod prepared."""

    run_id: str
    digest: str


def check(job: FineTuneJob) -> RunReport:
    """Say what the data is now, without downloading it. Raises RunError."""
    version = data_version(job.spec.model, job.spec.dataset.uri)
    message = f"The data is at version {version}."
    return RunReport(exit_code=ExitCode.DONE, stage="prepare", message=message, data_version=version)


def prepare(job: FineTuneJob, session: Session) -> RunReport:
    """Freeze the rows of the run, or answer with its report if it is finished. Raises RunError."""
    store = job_store(job)
    with session.stage("prepare", "reading and dividing the data"):
        config = identify(job, store, session)
        finished = finished_report(store.under(f"runs/{config.run_id}"))
        if finished is None:
            return freeze(job, config, store, session)
        log.info(FINISHED.format(config.run_id))
        make_current(store, finished, session.now())
    return outcome_of(finished, session)


def run(job: FineTuneJob, begun: Begun | None, micro_batch_tokens: int | None, session: Session) -> RunReport:
    """Everything up to the published adapter, from the rows of a begun run where they are there. Raises RunError."""
    store = job_store(job)
    config = begun_config(job, store, begun.run_id, begun.digest) if begun else None
    if begun and not config:
        log.warning(f"Run {begun.run_id} has no rows of digest {begun.digest}; the data is prepared anew.")
    ordered = config is not None
    if config is None:
        with session.stage("prepare", "reading the data"):
            config = identify(job, store, session)
    session.enter(config)
    finished = finished_report(store.under(f"runs/{config.run_id}"))
    if finished is None:
        return train(with_micro_batch(config, micro_batch_tokens), session)
    log.info(FINISHED.format(config.run_id))
    # An order to go on with a run may be older than the manifest; the manifest itself says what is to be in use.
    promote(store, finished) if ordered else make_current(store, finished, session.now())
    return outcome_of(finished, session)


def identify(job: FineTuneJob, store: Store, session: Session) -> RunConfig:
    """Which run the manifest belongs to, with the data as it is now."""
    # Looked at before it is read: what changes in between is then a change for the next look, too.
    session.standing.data_version = data_version(job.spec.model, job.spec.dataset.uri)
    config = config_of(job, store, session.cache)
    session.enter(config)
    return config


def freeze(job: FineTuneJob, config: RunConfig, store: Store, session: Session) -> RunReport:
    """Put the rows of a run into the store, and say what it needs. Raises InvalidConfig if it may not have that."""
    store.check_writable()
    folder = store.under(f"runs/{config.run_id}")
    with claim(folder) as attempt:
        session.enter(config, attempt.number)
        data = freeze_rows(config, folder, session.cache)
        session.protected.set()
    known = fetch_model(config.model, session.cache, weights=False)
    demand = measure_demand(config, known, data, job.spec.resources)
    return RunReport(
        run_id=config.run_id,
        digest=config.digest,
        attempt=attempt.number,
        exit_code=ExitCode.DONE,
        stage="prepare",
        message=prepared_sentence(data, demand),
        data_version=session.standing.data_version,
    )


def train(config: RunConfig, session: Session) -> RunReport:
    """The story of a run, told by the recipe."""
    log.info(f"Run {config.run_id} of {config.job_path}: loading the libraries.")
    from finetune_trainer import recipe  # loads torch

    return outcome_of(recipe.run(config, session), session)


def outcome_of(report: Report, session: Session) -> RunReport:
    """The short form of a finished run's report, with what the data is now."""
    return report.outcome.model_copy(update={"data_version": session.standing.data_version})


def with_micro_batch(config: RunConfig, tokens: int | None) -> RunConfig:
    """The same run in smaller forward passes: neither its digest nor, but for rounding, its result changes."""
    if tokens is None:
        return config
    setting = Setting(path=MICRO_BATCH, value=str(tokens), source="lowered after a failure for want of memory")
    settings = [setting if known.path == MICRO_BATCH else known for known in config.settings]
    training = config.training.model_copy(update={"micro_batch_tokens": tokens})
    return config.model_copy(update={"training": training, "settings": settings})
