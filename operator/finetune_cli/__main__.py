"""The `finetune` command. Every command imports what it needs when it runs, so that --help answers at once."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="finetune",
    help="Fine-tune a language model from one FineTuneJob manifest and prove the result on held-out rows.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="A FineTuneJob as YAML, or - for standard input.")]
Location = Annotated[
    str, typer.Argument(metavar="RUN", help="Folder or URI of a run, for instance s3://bucket/ns/name/runs/ID.")
]


@app.command()
def run(
    manifest: Manifest,
    output: Annotated[
        str, typer.Option("--output", "-o", help="table, or yaml: the FineTuneJob with its status.")
    ] = "table",
) -> None:
    """Run a job here and now.

    Run it again to go on after an interruption; a finished run is never repeated."""
    from finetune_cli.local import run_job

    run_job(manifest, output)


@app.command()
def validate(manifest: Manifest) -> None:
    """Check a manifest as the API server would.

    What is wrong is said in sentences, with what to write instead."""
    from finetune_cli.local import validate_job

    validate_job(manifest)


@app.command()
def plan(manifest: Manifest) -> None:
    """Show what a run would do.

    Rows, tokens, steps, memory, every setting and where it comes from. Nothing is written."""
    from finetune_cli.local import plan_job

    plan_job(manifest)


@app.command()
def chat(
    place: Annotated[
        str, typer.Argument(metavar="PLACE", help="Folder or URI of a run, or of a published adapter or model.")
    ],
    message: Annotated[str | None, typer.Argument(help="What to say; else lines are read from the terminal.")] = None,
    model: Annotated[str | None, typer.Option(help="URI of the base model, if it is not where it was.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Let the base model answer too.")] = False,
    longest: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 256,
) -> None:
    """Talk to a published adapter or model."""
    from finetune_cli.chat import chat_with

    chat_with(place, message, model, base, longest)


@app.command()
def merge(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="Folder or URI of a run, or of a published adapter.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write the model; a new folder.")],
    model: Annotated[str | None, typer.Option(help="URI of the base model, if it is not where it was.")] = None,
) -> None:
    """Write a LoRA adapter and its base as one model.

    Safetensors in bfloat16 with the tokenizer, for servers that load no adapters. The base stays as training saw it."""
    from finetune_cli.merge import merge_published

    merge_published(place, folder, model)


@app.command()
def report(
    run: Location,
    html: Annotated[Path | None, typer.Option(help="Write the HTML page to this file.")] = None,
) -> None:
    """Show the result of a finished run."""
    from finetune_cli.stored import show_report

    show_report(run, html)


@app.command()
def verify(run: Location) -> None:
    """Check that no file of a finished run was changed.

    Every file is read and compared with its sha256 in the run's manifest.json."""
    from finetune_cli.stored import verify_run

    verify_run(run)


def main() -> None:
    """Entry point: errors end as a sentence and an exit code, never as a traceback."""
    from finetune_cli.failures import exit_on_failure
    from finetune_trainer.environment import settle_process

    settle_process()  # before any command imports the libraries that read these settings
    with exit_on_failure():
        app()


if __name__ == "__main__":
    main()
