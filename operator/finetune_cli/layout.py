"""Tables and lines that all commands share."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from finetune_api.run import Setting


def facts() -> Table:
    """Names on the left, text of any length on the right."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def table(*headers: str) -> Table:
    """The first column left, numbers right; nothing in it is ever broken or cut."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, header in enumerate(headers):
        made.add_column(header, justify="right" if place else "left", no_wrap=True)
    return made


def text_table(*headers: str) -> Table:
    """All columns left, no blank line above and below."""
    made = table(*headers)
    made.show_edge = False
    for column in made.columns:
        column.justify = "left"
    return made


def print_line(console: Console, line: str) -> None:
    """A line to copy: never broken, never coloured."""
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def print_settings(console: Console, settings: Sequence[Setting]) -> None:
    """Every setting and where it comes from; those of the manifest stand out."""
    listed = table("setting", "value", "from")
    listed.columns[1].justify, listed.columns[1].overflow, listed.columns[1].no_wrap = "left", "fold", False
    listed.columns[2].justify = "left"
    for setting in settings:
        source = setting.source.removeprefix("default: ")
        listed.add_row(setting.path, setting.value, source, style="bold" if source == "manifest" else "")
    console.print(listed)
