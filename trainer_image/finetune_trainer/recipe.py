"""The story of one run, top to bottom: prepare, train, evaluate, publish."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from finetune_api.layout import Layout
from finetune_api.report import ModelReport, Report, TrainingReport
from finetune_api.run import ExitCode, RunConfig, RunReport, StoredAdapter, result_of
from finetune_api.speed import Forecast
from finetune_trainer.architecture import read_shape
from finetune_trainer.attempts import Attempt, claim
from finetune_trainer.base import is_out_of_memory, load_base, parameter_count, pick_device, weights_digest
from finetune_trainer.blocks import use_fused_blocks
from finetune_trainer.checkpoint import Checkpoint, latest_checkpoint, remove_checkpoints, save_checkpoint
from finetune_trainer.errors import OutOfMemory
from finetune_trainer.evaluate import Comparison, evaluate
from finetune_trainer.fetch import fetch_model
from finetune_trainer.group import Group, joined
from finetune_trainer.layout import hold_to, lay_out
from finetune_trainer.lengths import measure
from finetune_trainer.loop import Data, Loop, pack_budget
from finetune_trainer.method import attach, trained_dtype
from finetune_trainer.place import Place
from finetune_trainer.prepare import Prepared, prepare_once
from finetune_trainer.promotion import promote
from finetune_trainer.publish import publish, stored_result, write_results
from finetune_trainer.recompute import recompute
from finetune_trainer.record import gpu_memory, training_report, versions, warn
from finetune_trainer.session import Session
from finetune_trainer.sharding import shard
from finetune_trainer.store import Store, open_store
from finetune_trainer.tokens import Tokenizer, load_tokenizer
from finetune_trainer.tuned import Tuned
from finetune_trainer.wording import NOUNS, verdict_sentence

Given = TypeVar("Given")


def run(config: RunConfig, session: Session) -> Report:
    """Carry out one run, or what an interrupted attempt left of it. Raises RunError."""
    output, noun = open_store(config.output_uri), NOUNS[result_of(config.method.type)]
    job, store = output.under(config.job_path), output.under(config.run_path)
    device, place = pick_device(), session.place
    if place.leads:
        job.check_writable()
    with claimed(store, place) as attempt, joined(place, device) as group, within_memory():
        session.enter(config, attempt.number if attempt else 0)
        with session.stage("prepare", "reading and dividing the data"):
            prepared = first_here(group, place.leads, lambda: prepare_once(config, store, session.cache))
        with session.stage("train", "loading the model"), ThreadPoolExecutor(1) as aside:
            folder = first_here(group, not place.local_rank, lambda: fetch_model(config.model, session.cache))
            # Reads as much as loading does, and nobody waits for it; only the first process reports.
            digested = aside.submit(weights_digest, folder) if place.leads else None
            tokenizer = load_tokenizer(folder)
            lengths = measure(config.training, prepared.splits["train"])
            hold_to(config.gpu_memory, device)
            foreseen = lay_out(config, read_shape(folder), lengths, device, place.size)
            tuned = load(config, folder, foreseen.layout, prepared)
            trained = train(config, tuned, foreseen, prepared, store, attempt, session, group)
            described = describe_model(config, tuned, *(digested.result() if digested else ("", 0)))
        with session.stage("evaluate", f"answering the held-out rows with base and {noun}"):
            comparison = judge(config, tuned, foreseen.layout, tokenizer, prepared, session, group)
        if attempt is None:
            return compose(config, 0, None, described, prepared, trained, comparison, session)
        with session.stage("publish", f"writing {noun} and report"):
            session.protected.set()
            attempt.check()
            with TemporaryDirectory(prefix="finetune-result-") as scratch:
                write_results(Path(scratch), folder, tuned, tokenizer, config, prepared)
                stored = stored_result(store, config, Path(scratch), tuned.weights)
                report = compose(config, attempt.number, stored, described, prepared, trained, comparison, session)
                publish(store, config, report, Path(scratch))
            promote(job, report)
            remove_checkpoints(store)
    return report


@contextmanager
def claimed(store: Store, place: Place) -> Iterator[Attempt | None]:
    """The right to write to the run, for the one process that writes."""
    if not place.leads:
        yield None
        return
    with claim(store) as attempt:
        yield attempt


def first_here(group: Group, first: bool, work: Callable[[], Given]) -> Given:
    """What `work` gives, when those that are first have done it: the others find it done."""
    done = [work()] if first else []
    group.wait()
    return done[0] if done else work()


@contextmanager
def within_memory() -> Iterator[None]:
    """Turn a failed allocation into a sentence. Raises OutOfMemory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "Not even a forward pass of few tokens, or the model itself, fits the memory of the device. Quantise the "
            "model (method.quantization), lower training.maxLength, or use a device with more memory. The run goes on "
            "from its last checkpoint."
        ) from error


def load(config: RunConfig, folder: Path, layout: Layout, prepared: Prepared) -> Tuned:
    """The base model with what is trained in it."""
    method = config.method
    dtype = trained_dtype(method)
    base = load_base(folder, method.storage, pick_device(), expanded=layout.expanded, dtype=dtype)
    use_fused_blocks(base)
    recompute(base, layout.recomputed)
    opening = chain.from_iterable(example.ids for example in prepared.splits["train"])
    tuned = attach(base, method, config.training.seed, folder, opening)
    if layout.divided > 1:
        shard(tuned, layout.divided)
    return tuned


def train(
    config: RunConfig, tuned: Tuned, foreseen: Forecast, prepared: Prepared, store: Store, attempt: Attempt | None,
    session: Session, group: Group,
) -> TrainingReport:  # fmt: skip
    """Train from the last complete checkpoint, or from the start; the best weights stay in the model."""

    def save(checkpoint: Checkpoint) -> None:
        assert attempt is not None  # only the process that writes is asked to
        attempt.check()
        save_checkpoint(store, checkpoint)

    data = Data(prepared.splits["train"], prepared.splits["validation"])
    loop = Loop(tuned, data, config.training, foreseen.layout, session.standing, session.tell, save, group)
    checkpoint = latest_checkpoint(store)
    if checkpoint is not None:
        loop.resume(checkpoint)
    group.wait()  # or the first to save would give the last to look another checkpoint
    session.standing.gpu_memory = gpu_memory
    session.protected.set()
    loop.run(session.stop)
    session.protected.clear()
    return training_report(loop, foreseen, resumed_from=checkpoint.state.step if checkpoint else None)


def judge(
    config: RunConfig, tuned: Tuned, layout: Layout, tokenizer: Tokenizer, prepared: Prepared, session: Session,
    group: Group,
) -> Comparison:  # fmt: skip
    """Read the test split for the first time: base and adapter on the same rows."""
    budget = pack_budget(tuned, layout.inference_tokens)
    rows, spec = prepared.splits["test"], config.evaluation
    return evaluate(tuned, tokenizer, rows, spec, budget, session.tell, session.stop, group)


def describe_model(config: RunConfig, tuned: Tuned, digest: str, size: int) -> ModelReport:
    """What the base model is, for the report and the manifest."""
    return ModelReport(
        method=config.method.type,
        uri=config.model.uri,
        revision=config.model.revision,
        digest=digest,
        architecture=type(tuned.base).__name__,
        parameters=parameter_count(tuned),
        trainable_parameters=sum(parameter.numel() for parameter in tuned.parameters.values()),
        quantization=config.method.storage,
        size_bytes=size,
    )


def compose(
    config: RunConfig, attempt: int, stored: StoredAdapter | None, model: ModelReport, prepared: Prepared,
    training: TrainingReport, comparison: Comparison, session: Session,
) -> Report:  # fmt: skip
    """Everything worth knowing about the run, in one document."""
    result = result_of(config.method.type)
    outcome = RunReport(
        run_id=config.run_id,
        digest=config.digest,
        attempt=attempt,
        exit_code=ExitCode.DONE,
        stage="publish",
        message=verdict_sentence(comparison.outcome, result),
        adapter=stored,
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
        warnings=[*prepared.report.warnings, *warn(training, comparison.outcome, result)],
        seconds=dict(session.seconds),
        versions=versions(),
    )
