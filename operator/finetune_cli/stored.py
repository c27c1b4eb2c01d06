"""`report` and `verify`: what finished runs left in the store."""

from pathlib import Path

from finetune_trainer.errors import InvalidConfig, NotFound
from finetune_trainer.manifest import verify
from finetune_trainer.store import Store, open_store


def show_report(location: str, html: Path | None) -> None:
    """Print the comparison of a finished run, or write its page to a file."""
    from finetune_cli.tables import print_report
    from finetune_trainer.page import render_page
    from finetune_trainer.runs import finished_report

    store = open_run(location)
    report = finished_report(store)
    if report is None:
        raise NotFound(f"{store.uri_of('')} is no finished run: there is no manifest.json. Name the folder of a run.")
    if html is None:
        print_report(report, store)
        return
    try:
        html.write_text(render_page(report), encoding="utf-8")
    except OSError as error:
        raise InvalidConfig(f"{html} cannot be written: {error.strerror}.") from error
    print(html)


def verify_run(location: str) -> None:
    """Compare every file with its hash. Raises NotFound listing what does not fit."""
    store = open_run(location)
    problems = verify(store)
    if problems:
        raise NotFound("\n".join([f"{store.uri_of('')} is not as it was published:", *problems]))
    print(f"{store.uri_of('')}: every file is as it was published.")


def open_run(location: str) -> Store:
    """A store at a URI or a plain folder."""
    return open_store(location if "://" in location else f"file://{Path(location).absolute()}")
