"""`kubectl finetune`: a look at FineTuneJobs in a cluster. kubectl finds it as `kubectl-finetune` on PATH."""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from finetune_api.job import FineTuneJob
from finetune_cli.cluster import ClusterError, LiveJob, Target, find_job, get_job, watch_job
from finetune_cli.failures import exit_on_failure

app = typer.Typer(
    name="kubectl finetune",
    help="Look at FineTuneJobs: how they stand, what they logged, what they found, what would start.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the FineTuneJob.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace, if not that of the context.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.")]
Kubeconfig = Annotated[str | None, typer.Option(help="Kubeconfig file.")]


@app.command()
def status(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow until the run has ended.")] = False,
) -> None:
    """Show how a job stands.

    With --watch the exit code is 0 if the run succeeded, else 1."""
    target = Target(namespace, context, kubeconfig)
    if watch:
        sys.exit(_watch(target, name))
    _show(Console(), get_job(target, name))


@app.command()
def logs(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    stage: Annotated[str | None, typer.Option(help="prepare or train, if not the current stage.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Number of the attempt, if not the latest.")] = None,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="The attempt before.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the run through its pods.")] = False,
) -> None:
    """Print what the trainer logged."""
    from finetune_cli.job_logs import Choice, show_logs

    if stage not in (None, "prepare", "train"):
        raise ClusterError(f"--stage must be prepare or train, got {stage}.")
    show_logs(Target(namespace, context, kubeconfig), name, Choice(stage, attempt, previous), follow)


@app.command()
def report(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    save: Annotated[Path | None, typer.Option(help="Download the report page to this file.")] = None,
) -> None:
    """Show what a finished run found.

    Downloading uses the credentials of this machine, for instance AWS_ACCESS_KEY_ID."""
    from finetune_cli.job_report import print_job_report, save_report

    live = get_job(Target(namespace, context, kubeconfig), name)
    if save is None:
        print_job_report(Console(), live)
        return
    save_report(live, save)
    print(save)


@app.command()
def plan(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the FineTuneJob.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    filename: Annotated[Path | None, typer.Option("--filename", "-f", help="A manifest that may be applied.")] = None,
) -> None:
    """Tell whether a run would start and why.

    With --filename: what applying that manifest would do."""
    from finetune_cli.job_plan import print_change, print_job_plan

    target, now = Target(namespace, context, kubeconfig), datetime.now(UTC)
    if filename is not None:
        wanted = _read_manifest(filename, name)
        print_change(Console(), find_job(_place(target, wanted), wanted.metadata.name), wanted, now)
    elif name is not None:
        print_job_plan(Console(), get_job(target, name), now)
    else:
        raise ClusterError("Name a FineTuneJob, or a manifest with --filename.")


def _read_manifest(file: Path, name: str | None) -> FineTuneJob:
    from finetune_cli.local import read_job

    wanted = read_job(file)
    if name not in (None, wanted.metadata.name):
        raise ClusterError(f"{file} is the manifest of {wanted.metadata.name}, not of {name}.")
    return wanted


def _place(target: Target, wanted: FineTuneJob) -> Target:
    """Where kubectl would apply a manifest: the namespace it names counts."""
    named = wanted.metadata.namespace if "namespace" in wanted.metadata.model_fields_set else None
    return replace(target, namespace=target.namespace or named)


def _show(console: Console, live: LiveJob) -> None:
    from finetune_cli.job_status import print_status

    print_status(console, live, datetime.now(UTC))


def _watch(target: Target, name: str) -> int:
    """Show the status anew whenever it changes; on a terminal in place."""
    from finetune_cli.job_logs import has_ended

    console = Console()
    for live in watch_job(target, name):
        if console.is_terminal:
            console.clear()
        _show(console, live)
        if has_ended(live):
            return 0 if live.status.phase == "Succeeded" else 1
    raise AssertionError("a watch does not end by itself")


def main() -> None:
    """Entry point: errors end as a sentence and an exit code, never as a traceback."""
    with exit_on_failure():
        try:
            app(prog_name="kubectl finetune")
        except ClusterError as error:
            print(f"kubectl finetune: {error}", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
