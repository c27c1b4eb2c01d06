"""An independent look at a division of rows: does anything stand in two splits?"""

from collections.abc import Callable, Hashable

from finetune_api.report import SplitName
from finetune_trainer.rows import Row
from finetune_trainer.split import Splits


def leaks(splits: Splits) -> list[str]:
    """One sentence for each group and each prompt that is in more than one split; empty for every result of `split`."""
    return [
        *_spanning(splits, lambda row: row.group, "group"),
        *_spanning(splits, lambda row: row.prompt if row.text is None else row.text, "prompt"),
    ]


def _spanning(splits: Splits, key: Callable[[Row], Hashable], kind: str) -> list[str]:
    seen: dict[Hashable, tuple[SplitName, Row]] = {}
    found: dict[Hashable, str] = {}
    parts: dict[SplitName, list[Row]] = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    for name, rows in parts.items():
        for row in rows:
            owner, first = seen.setdefault(key(row), (name, row))
            if owner != name:
                place = f"row {first.number} ({owner}) and row {row.number} ({name})"
                found.setdefault(key(row), f"The same {kind} is in {place}.")
    return list(found.values())
