"""Rows divided into train, validation and test, so that nothing in one split gives away an answer in another."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from finetune_api.report import SplitName
from finetune_api.training import SplitSpec
from finetune_trainer.errors import DataRejected
from finetune_trainer.rows import Row

MINIMUM_ROWS = 8
MINIMUM_GROUPS = 3
"""One for each split."""

_SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
_HELD_OUT: tuple[SplitName, ...] = ("test", "validation")


@dataclass(frozen=True)
class Splits:
    """The divided rows, each split in source order."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    warnings: list[str] = field(default_factory=list)
    """What the owner of the data should know about the division, in sentences."""


def split(rows: Sequence[Row], spec: SplitSpec) -> Splits:
    """Divide the rows by group; depends on rows and seed, not on the order of the rows.

    Groups that share a prompt count as one. Raises DataRejected when there are too few rows or groups, or one group is
    too large to be divided from the others.
    """
    bundle_of = bundle_groups(rows)
    sizes = Counter(bundle_of[row.group] for row in rows)
    _check_enough(len(rows), len(sizes), spec)
    _check_largest(sizes, bundle_of, spec)
    split_of = assign(sizes, spec)
    parts: dict[SplitName, list[Row]] = {name: [] for name in _SPLITS}
    for row in rows:
        parts[split_of[bundle_of[row.group]]].append(row)
    warnings = [*_warn_of_bundles(bundle_of, spec), *_warn_of_shares(parts, spec)]
    return Splits(parts["train"], parts["validation"], parts["test"], warnings)


def bundle_groups(rows: Sequence[Row]) -> dict[str, str]:
    """Group -> its bundle: all groups that equal prompts link, directly or through others, named after the first."""
    parent = {row.group: row.group for row in rows}

    def top(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    first_group: dict[Hashable, str] = {}
    for row in rows:
        known = first_group.setdefault(_prompt(row), row.group)
        first, second = sorted((top(known), top(row.group)))
        parent[second] = first
    return {group: top(group) for group in parent}


def assign(sizes: Mapping[str, int], spec: SplitSpec) -> dict[str, SplitName]:
    """Bundle -> split. Sizes are in rows; there must be at least three bundles.

    Bundles are lined up by a hash that knows nothing of the others; test takes from the front, then validation. So rows
    that are added later slip in between and leave almost every older bundle where it was.
    """
    targets = _targets(sum(sizes.values()), spec)
    held: Counter[SplitName] = Counter()
    split_of: dict[str, SplitName] = {}
    for bundle in sorted(sizes, key=lambda bundle: _position(bundle, spec.seed)):
        size = sizes[bundle]
        taker: SplitName = next((name for name in _HELD_OUT if _fits(size, held[name], targets[name])), "train")
        split_of[bundle] = taker
        held[taker] += size
    for name in _SPLITS:
        _top_up(name, split_of, sizes, targets)
    return split_of


def _prompt(row: Row) -> Hashable:
    return row.prompt if row.text is None else row.text


def _position(bundle: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{bundle}".encode()).digest()


def _targets(total: int, spec: SplitSpec) -> dict[SplitName, int]:
    validation, test = max(1, round(total * spec.validation)), max(1, round(total * spec.test))
    return {"train": total - validation - test, "validation": validation, "test": test}


def _fits(size: int, held: int, target: int) -> bool:
    """Whether a bundle is no larger than the whole split and brings it closer to its target."""
    return size <= target and size < 2 * (target - held)


def _top_up(
    name: SplitName, split_of: dict[str, SplitName], sizes: Mapping[str, int], targets: Mapping[SplitName, int]
) -> None:
    """Fill a split that is empty or holds less than half of its target with what the others can best spare.

    Needed where bundles are large: none fits then, or all that fit have gone elsewhere.
    """
    held, bundles = Counter[SplitName](), Counter(split_of.values())
    for bundle, owner in split_of.items():
        held[owner] += sizes[bundle]

    def gain(bundle: str) -> float:
        owner, size = split_of[bundle], sizes[bundle]
        before = _miss(held[owner], targets[owner]) + _miss(held[name], targets[name])
        return before - _miss(held[owner] - size, targets[owner]) - _miss(held[name] + size, targets[name])

    for bundle in sorted((bundle for bundle in split_of if split_of[bundle] != name), key=gain, reverse=True):
        if 2 * held[name] >= targets[name]:
            return
        owner = split_of[bundle]
        if bundles[owner] > 1 and (not held[name] or gain(bundle) > 0):
            held.update({name: sizes[bundle], owner: -sizes[bundle]})
            bundles.update({name: 1, owner: -1})
            split_of[bundle] = name


def _miss(held: int, target: int) -> float:
    """How badly a split misses its target; ten rows weigh more on a small split than on a large one."""
    return (held - target) ** 2 / target


def _check_enough(rows: int, bundles: int, spec: SplitSpec) -> None:
    purpose = "are needed for train, validation and test. Add examples."
    if rows < MINIMUM_ROWS:
        raise DataRejected(f"The dataset has {rows} usable rows; at least {MINIMUM_ROWS} {purpose}")
    if bundles < MINIMUM_GROUPS and spec.group_by is None:
        raise DataRejected(f"The dataset has {bundles} different prompts in {rows} rows; {MINIMUM_GROUPS} {purpose}")
    if bundles < MINIMUM_GROUPS:
        kind = f'groups of column "{spec.group_by}" that share no prompt'
        raise DataRejected(f"The dataset has {bundles} {kind} in {rows} rows; {MINIMUM_GROUPS} {purpose}")


def _check_largest(sizes: Mapping[str, int], bundle_of: Mapping[str, str], spec: SplitSpec) -> None:
    total = sum(sizes.values())
    targets = _targets(total, spec)
    largest = max(sizes, key=lambda bundle: (sizes[bundle], bundle))
    if sizes[largest] <= max(targets.values()):
        return
    shares = " / ".join(f"{100 * targets[name] / total:.0f} %" for name in _SPLITS)
    problem = f"{sizes[largest]} of {total} rows, so no split of {shares} (train / validation / test) is possible"
    members = sum(bundle == largest for bundle in bundle_of.values())
    if spec.group_by is None:
        raise DataRejected(f"The same prompt opens {problem}. Add examples with other prompts.")
    if members == 1:
        raise DataRejected(
            f'Group "{largest:.80}" of column "{spec.group_by}" holds {problem}; choose another groupBy column.'
        )
    raise DataRejected(
        f'{members} groups of column "{spec.group_by}", linked by equal prompts, hold {problem}; remove the '
        "prompts that recur, or choose another groupBy column."
    )


def _warn_of_bundles(bundle_of: Mapping[str, str], spec: SplitSpec) -> list[str]:
    members = Counter(bundle_of.values())
    linked = sum(count for count in members.values() if count > 1)
    if not linked:
        return []
    return [
        f'{linked} groups of column "{spec.group_by}" share a prompt with another group; groups with an equal prompt '
        "were kept in the same split."
    ]


def _warn_of_shares(parts: Mapping[SplitName, Sequence[Row]], spec: SplitSpec) -> list[str]:
    total = sum(len(rows) for rows in parts.values())
    asked = {"train": 1 - spec.validation - spec.test, "validation": spec.validation, "test": spec.test}
    return [
        f"The {name} split holds {len(rows)} of {total} rows ({100 * len(rows) / total:.0f} %) instead of "
        f"{100 * asked[name]:.0f} %, since the rows of one group stay together and no split may be empty."
        for name, rows in parts.items()
        if not asked[name] / 2 <= len(rows) / total <= asked[name] * 2
    ]
