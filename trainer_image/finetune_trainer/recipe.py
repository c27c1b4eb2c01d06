"""The story of one run, top to bottom: prepare, train, evaluate, publish."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from peft import PeftModel

from finetune_api.report import ModelReport, Report, TrainingReport
from finetune_api.run import ExitCode, RunConfig, RunReport, StoredAdapter
from finetune_trainer.attempts import Attempt, claim
from finetune_trainer.checkpoint import Checkpoint, latest_checkpoint, remove_checkpoints, save_checkpoint
from finetune_trainer.errors import OutOfMemory
from finetune_trainer.evaluate import Comparison, evaluate
from finetune_trainer.fetch import fetch_model
from finetune_trainer.loop import Data, Loop, pack_budget
from finetune_trainer.model import (
    adapt,
    is_out_of_memory,
    load_base,
    parameter_count,
    pick_device,
    trainable,
    weights_digest,
)
from finetune_trainer.prepare import Prepared, prepare_once
from finetune_trainer.promotion import promote
from finetune_trainer.publish import publish, stored_adapter, write_adapter
from finetune_trainer.record import gpu_memory, training_report, versions, warn
from finetune_trainer.session import Session
from finetune_trainer.store import Store, open_store
from finetune_trainer.tokens import Tokenizer, load_tokenizer
from finetune_trainer.wording import verdict_sentence


def run(config: RunConfig, session: Session) -> Report:
    """Carry out one run, or what an interrupted attempt left of it. Raises RunError."""
    output = open_store(config.output_uri)
    job, store = output.under(config.job_path), output.under(config.run_path)
    job.check_writable()
    with claim(store) as attempt, within_memory(config):
        session.enter(config, attempt.number)
        with session.stage("prepare", "reading and dividing the data"):
            prepared = prepare_once(config, store, session.cache)
        with session.stage("train", "loading the model"):
            folder = fetch_model(config.model, session.cache)
            tokenizer = load_tokenizer(folder)
            model = adapt(
                load_base(folder, config.method.quantization, pick_device()), config.method, config.training.seed
            )
            described = describe_model(config, folder, model)
            trained = train(config, model, prepared, store, attempt, session)
        with session.stage("evaluate", "answering the held-out rows with base and adapter"):
            comparison = judge(config, model, tokenizer, prepared, session)
        with session.stage("publish", "writing adapter and report"):
            session.protected.set()
            attempt.check()
            with TemporaryDirectory(prefix="finetune-adapter-") as scratch:
                write_adapter(Path(scratch), model, tokenizer, config, prepared)
                adapter = stored_adapter(store, Path(scratch))
                report = compose(config, attempt.number, adapter, described, prepared, trained, comparison, session)
                publish(store, config, report, Path(scratch))
            promote(job, report)
            remove_checkpoints(store)
    return report


@contextmanager
def within_memory(config: RunConfig) -> Iterator[None]:
    """Turn a failed allocation into a sentence. Raises OutOfMemory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"A forward pass of up to {config.training.micro_batch_tokens} tokens, or the model itself, does not fit "
            "the device. Lower training.microBatchTokens: the result stays the same, and the run goes on from its last "
            "checkpoint. If it is the model, quantise it (method.quantization)."
        ) from error


def train(
    config: RunConfig, model: PeftModel, prepared: Prepared, store: Store, attempt: Attempt, session: Session
) -> TrainingReport:
    """Train from the last complete checkpoint, or from the start; the best weights stay in the model."""

    def save(checkpoint: Checkpoint) -> None:
        attempt.check()
        save_checkpoint(store, checkpoint)

    data = Data(prepared.splits["train"], prepared.splits["validation"])
    loop = Loop(model, data, config.training, session.standing, session.tell, save)
    checkpoint = latest_checkpoint(store)
    if checkpoint is not None:
        loop.resume(checkpoint)
    session.standing.gpu_memory = gpu_memory
    session.protected.set()
    loop.run(session.stop)
    session.protected.clear()
    return training_report(loop, resumed_from=checkpoint.state.step if checkpoint else None)


def judge(
    config: RunConfig, model: PeftModel, tokenizer: Tokenizer, prepared: Prepared, session: Session
) -> Comparison:
    """Read the test split for the first time: base and adapter on the same rows."""
    budget = pack_budget(model, config.training)
    return evaluate(model, tokenizer, prepared.splits["test"], config.evaluation, budget, session.tell, session.stop)


def describe_model(config: RunConfig, folder: Path, model: PeftModel) -> ModelReport:
    """What the base model is, for the report and the manifest."""
    digest, size = weights_digest(folder)
    return ModelReport(
        uri=config.model.uri,
        revision=config.model.revision,
        digest=digest,
        architecture=type(model.get_base_model()).__name__,
        parameters=parameter_count(model),
        trainable_parameters=sum(parameter.numel() for parameter in trainable(model).values()),
        quantization=config.method.quantization,
        size_bytes=size,
    )


def compose(
    config: RunConfig, attempt: int, adapter: StoredAdapter, model: ModelReport, prepared: Prepared,
    training: TrainingReport, comparison: Comparison, session: Session,
) -> Report:  # fmt: skip
    """Everything worth knowing about the run, in one document."""
    outcome = RunReport(
        run_id=config.run_id,
        digest=config.digest,
        attempt=attempt,
        exit_code=ExitCode.DONE,
        stage="publish",
        message=verdict_sentence(comparison.outcome),
        adapter=adapter,
        evaluation=comparison.outcome,
    )
    return Report(
        outcome=outcome,
        name=config.name,
        namespace=config.namespace,
        created=session.now().isoformat(timespec="seconds"),
        model=model,
        data=prepared.report,
        training=training,
        settings=config.settings,
        samples=comparison.samples,
        warnings=[*prepared.report.warnings, *warn(training, comparison.outcome)],
        seconds=dict(session.seconds),
        versions=versions(),
    )
