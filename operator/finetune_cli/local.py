"""`run`, `plan` and `validate`: a manifest carried out on this machine. The composition root of local runs."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from finetune_api.documents import InvalidManifest, dump_yaml, load_yaml
from finetune_api.identity import run_config
from finetune_api.job import FineTuneJob
from finetune_api.problems import parse_job
from finetune_api.report import Report
from finetune_api.run import Progress, RunConfig
from finetune_api.settings import settings_of
from finetune_api.status import FineTuneJobStatus, RunStatus
from finetune_trainer.environment import cache_folder
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.place import Place
from finetune_trainer.promotion import make_current
from finetune_trainer.runs import config_of, finished_report, invalid, job_store
from finetune_trainer.session import Session
from finetune_trainer.store import Store


def run_job(manifest: Path, output: str) -> None:
    """Carry out a job, or show the result if this very job is finished."""
    if output not in ("table", "yaml"):
        raise InvalidConfig(f"--output must be table or yaml, got {output}.")
    job = read_job(manifest)
    store = job_store(job)
    config = config_of(job, store, cache_folder())
    finished = finished_report(store.under(f"runs/{config.run_id}"))
    place = Place.of()
    if finished is None:
        finished = carry_out(config, place)
    elif place.leads:
        make_current(store, finished, datetime.now(UTC))
        print(f"Nothing to do: run {config.run_id} of this manifest and this data is finished.", file=sys.stderr)
    if place.leads:
        show(job, store, finished, output)


def carry_out(config: RunConfig, place: Place) -> Report:
    """Run with a live view (the first process of several has it), stopping cleanly on Ctrl-C and SIGTERM."""
    from finetune_cli.live import watching

    with watching(config) if place.leads else nullcontext(lambda _: None) as tell, stopping_on_signals() as stop:
        tell(Progress(stage="prepare", message="loading the libraries"))
        from finetune_trainer.recipe import run  # takes seconds: not before the person sees something

        return run(config, Session(cache_folder(), tell, stop, lambda: datetime.now(UTC), place=place))


def show(job: FineTuneJob, store: Store, report: Report, output: str) -> None:
    """The result as a table, or as the resource that `kubectl get -o yaml` would show."""
    if output == "yaml":
        print(dump_yaml(job.model_copy(update={"status": status_of(report)}).to_manifest()), end="")
        return
    from finetune_cli.tables import print_report

    print_report(report, store.under(f"runs/{report.outcome.run_id}"))


def status_of(report: Report) -> FineTuneJobStatus:
    """What the status of a job says once a run is finished."""
    outcome = report.outcome
    passed = outcome.evaluation is not None and outcome.evaluation.verdict == "Passed"
    return FineTuneJobStatus(
        phase="Succeeded" if passed else "Rejected",
        message=outcome.message,
        run=RunStatus(id=outcome.run_id, digest=outcome.digest, attempt=outcome.attempt),
        progress=last_progress(report),
        adapter=outcome.adapter,
        evaluation=outcome.evaluation,
    )


def last_progress(report: Report) -> Progress:
    """How far training got."""
    training = report.training
    return Progress(
        stage=report.outcome.stage,
        step=training.steps,
        total_steps=max(training.steps, training.planned_steps),
        epoch=training.epochs,
        train_loss=training.train_loss[-1].value if training.train_loss else None,
        validation_loss=training.validation_loss[-1].value,
        tokens_per_second=training.tokens_per_second,
    )


def validate_job(manifest: Path) -> None:
    """Say that a manifest is valid. Raises InvalidConfig."""
    job = read_job(manifest)
    print(f"{name_of(manifest)}: FineTuneJob {job.metadata.namespace}/{job.metadata.name} is valid.")


def plan_job(manifest: Path) -> None:
    """Show what a run would do."""
    from finetune_cli.tables import print_plan
    from finetune_trainer.plan import make_plan

    job = read_job(manifest)
    settings = settings_of(job.spec)
    print_plan(job, settings, make_plan(run_config(job, "plan", "", settings), cache_folder()))


def read_job(manifest: Path) -> FineTuneJob:
    """Read and check a manifest. Raises InvalidConfig with every problem found."""
    name = name_of(manifest)
    try:
        text = sys.stdin.read() if str(manifest) == "-" else manifest.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InvalidConfig(f"{name} cannot be read: {reason}.") from error
    try:
        return parse_job(load_yaml(text))
    except InvalidManifest as error:
        raise invalid(name, error) from error


def name_of(manifest: Path) -> str:
    """What a person calls the manifest."""
    return "standard input" if str(manifest) == "-" else str(manifest)


@contextmanager
def stopping_on_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second one ends the process as usual."""
    stop = threading.Event()
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
