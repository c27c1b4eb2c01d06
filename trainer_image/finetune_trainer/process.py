"""One stage as the process of a pod: its orders from the environment, its last word and exit code for the operator."""

import json
import logging
import os
import sys
import threading
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from finetune_api.contract import JOB_VARIABLE, TRAINER_PORT
from finetune_api.documents import InvalidManifest
from finetune_api.job import FineTuneJob
from finetune_api.problems import parse_job
from finetune_api.run import ExitCode, Progress, RunReport
from finetune_trainer import environment, last_word, stages
from finetune_trainer.crew import Crew, work
from finetune_trainer.errors import InvalidConfig, OutOfMemory, RunError, Stopped
from finetune_trainer.interruption import interruptible
from finetune_trainer.log import log, start_logging
from finetune_trainer.narration import Narrator
from finetune_trainer.place import Place, is_given
from finetune_trainer.runs import invalid
from finetune_trainer.server import serving
from finetune_trainer.session import Session, Standing
from finetune_trainer.telemetry import carry_over

UNFORESEEN = 1
"""Exit code of what nobody foresaw; no RunReport goes with it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one stage. Returns the exit code."""
    order = make_parser().parse_args(arguments)
    crew = Crew.of()
    if order.stage == "run" and crew.size > 1 and not is_given():
        return work(crew, sys.argv[1:] if arguments is None else arguments)
    return carry_out_here(order)


def carry_out_here(order: Namespace) -> int:
    """The stage in this process. Returns the exit code."""
    cache = environment.cache_folder()
    environment.settle_process()
    environment.keep_caches_in(cache)
    lines = start_logging()
    session = make_session(cache)
    if not session.place.leads:
        log.setLevel(logging.WARNING)
    try:
        with interruptible(session):
            report = supervise(order, session, lines)
    except Exception as error:
        log.error(traceback.format_exc().rstrip())
        log.error(f"The trainer did not foresee this {type(error).__name__}: {error}. The log shows where it happened.")
        say(last_word.plain(lines), session)
        return UNFORESEEN
    say(last_word.fitted(report), session)
    return report.exit_code


def say(word: str, session: Session) -> None:
    """The last word of all processes is that of the first."""
    if session.place.leads:
        last_word.say(word)


def make_parser() -> ArgumentParser:
    """The command line."""
    parser = ArgumentParser(prog="finetune_trainer", description="Carry out a stage of the job in FINETUNE_JOB.")
    subparsers = parser.add_subparsers(dest="stage", required=True)
    subparsers.add_parser("check", help="say what the data is now, without downloading it")
    prepare = subparsers.add_parser("prepare", help="check and divide the data")
    run = subparsers.add_parser("run", help="train, evaluate and publish; prepare first where that was not done")
    run.add_argument("--run-id", help="go on with the rows that were prepared for this run")
    run.add_argument("--digest", help="digest of that run")
    run.add_argument("--micro-batch-tokens", type=tokens, help="instead of training.microBatchTokens")
    for stage in (prepare, run):
        stage.add_argument("--port", type=int, default=TRAINER_PORT, help="for /progress and /metrics; 0 is any")
    return parser


def tokens(text: str) -> int:
    """A number of tokens. Raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def make_session(cache: Path) -> Session:
    """Surroundings that remember the progress and tell it to the log."""
    standing, narrator = Standing(), Narrator(log.info)

    def tell(progress: Progress) -> None:
        standing.progress = carry_over(standing.progress, progress)
        narrator.tell(progress)

    return Session(cache, tell, threading.Event(), lambda: datetime.now(UTC), standing=standing, place=Place.of())


def supervise(order: Namespace, session: Session, lines: Sequence[str]) -> RunReport:
    """The report of a stage, however it ends. Raises only what nobody foresaw."""
    try:
        return conclude(order, session, lines)
    except KeyboardInterrupt:
        stopped = Stopped("Stopped before there was anything to save; run again to go on.")
        return failed(stopped, session.standing, lines)


def conclude(order: Namespace, session: Session, lines: Sequence[str]) -> RunReport:
    """The report of a stage that is not interrupted."""
    try:
        report = carry_out(order, session)
    except RunError as error:
        return failed(error, session.standing, lines)
    except MemoryError:
        shortage = OutOfMemory("The data does not fit the memory of the pod; ask for more in spec.resources.")
        return failed(shortage, session.standing, lines)
    log.info(report.message)
    return report


def carry_out(order: Namespace, session: Session) -> RunReport:
    """The report of a stage that ends well. Raises RunError."""
    job = read_job()
    if order.stage == "check":
        return stages.check(job)
    with serving(order.port, session.standing) if session.place.leads else nullcontext():
        if order.stage == "prepare":
            environment.import_transformers_without_torch()
            return stages.prepare(job, session)
        begun = stages.Begun(order.run_id, order.digest) if order.run_id and order.digest else None
        return stages.run(job, begun, order.micro_batch_tokens, session)


def read_job() -> FineTuneJob:
    """The job in the environment. Raises InvalidConfig."""
    text = os.environ.get(JOB_VARIABLE)
    if text is None:
        raise InvalidConfig(f"{JOB_VARIABLE} is not set; it holds the FineTuneJob as JSON.")
    try:
        return parse_job(json.loads(text))
    except InvalidManifest as error:
        raise invalid(JOB_VARIABLE, error) from error
    except ValueError as error:
        raise InvalidConfig(f"{JOB_VARIABLE} is not JSON: {error}.") from error


def failed(error: RunError, standing: Standing, lines: Sequence[str]) -> RunReport:
    """The report of a stage that ended early."""
    stopped = error.code == ExitCode.STOPPED
    before = [] if stopped else list(lines)
    log.log(logging.INFO if stopped else logging.ERROR, str(error))
    return RunReport(
        run_id=standing.run_id,
        digest=standing.digest,
        attempt=standing.attempt,
        exit_code=error.code,
        stage=standing.progress.stage,
        message=str(error),
        data_version=standing.data_version,
        log=before,
    )
