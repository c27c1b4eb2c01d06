"""Rows divided by group: nothing leaks, the shares are kept, and the division is stable."""

import random
from pathlib import Path

import pytest

from finetune_api.training import DatasetSpec, SplitSpec
from finetune_trainer.errors import DataRejected
from finetune_trainer.files import read_records
from finetune_trainer.formats import rows_of
from finetune_trainer.rows import Message, Row
from finetune_trainer.split import Splits, bundle_groups, split
from support.leakage import leaks

EXAMPLE = Path(__file__).parents[2] / "manifests/examples/data/clinic-triage.jsonl"
SEEDS = range(40)


def make_row(number: int, group: str, prompt: str | None = None) -> Row:
    messages = (Message("user", prompt or f"prompt {number}"), Message("assistant", f"answer {number}"))
    return Row(number, group, messages)


def make_rows(sizes: list[int], prefix: str = "g", first: int = 1) -> list[Row]:
    """Rows of as many groups as there are sizes."""
    groups = [f"{prefix}{index}" for index, size in enumerate(sizes) for _ in range(size)]
    return [make_row(number, group) for number, group in enumerate(groups, start=first)]


def make_spec(test: float = 0.15, validation: float = 0.1, seed: int = 42) -> SplitSpec:
    return SplitSpec(test=test, validation=validation, group_by="patient", seed=seed)


def random_sizes(source: random.Random, groups: int, largest: int) -> list[int]:
    return [source.randint(1, largest) for _ in range(groups)]


def sizes_of(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.validation), len(splits.test)


def split_by_group(splits: Splits) -> dict[str, str]:
    named = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {row.group: name for name, rows in named.items() for row in rows}


def refusal(rows: list[Row], spec: SplitSpec) -> str:
    with pytest.raises(DataRejected) as caught:
        split(rows, spec)
    return str(caught.value)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_never_spans_two_splits_and_no_row_is_lost(seed: int) -> None:
    source = random.Random(seed)
    rows = make_rows(random_sizes(source, source.randint(10, 60), 9))
    splits = split(rows, make_spec(seed=seed))
    assert leaks(splits) == []
    together = sorted([*splits.train, *splits.validation, *splits.test], key=lambda row: row.number)
    assert together == rows


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_prompts_of_different_groups_stay_together(seed: int) -> None:
    source = random.Random(seed)
    rows = [make_row(n, f"g{source.randrange(120)}", f"p{source.randrange(1500)}") for n in range(1, 301)]
    splits = split(rows, make_spec(seed=seed))
    assert leaks(splits) == []
    assert any("share a prompt with another group" in warning for warning in splits.warnings)


def test_linked_groups_are_bundled_through_others_whatever_the_order() -> None:
    rows = [
        make_row(1, "c", "x"),
        make_row(2, "b", "x"),
        make_row(3, "b", "y"),
        make_row(4, "a", "y"),
        make_row(5, "d", "z"),
    ]
    want = {"a": "a", "b": "a", "c": "a", "d": "d"}
    for seed in range(10):
        random.Random(seed).shuffle(rows)
        assert bundle_groups(rows) == want


def test_linked_groups_are_counted_in_a_warning() -> None:
    rows = make_rows([2] * 20)
    rows.append(make_row(41, "g3", "prompt 1"))
    want = (
        '2 groups of column "patient" share a prompt with another group; groups with an equal prompt were kept in the '
        "same split."
    )
    assert split(rows, make_spec()).warnings == [want]


def test_plain_texts_are_not_linked_by_having_no_prompt() -> None:
    rows = [Row(number, f"g{number}", text=f"text {number}") for number in range(1, 101)]
    splits = split(rows, make_spec())
    assert sizes_of(splits) == (75, 10, 15)
    assert splits.warnings == []


@pytest.mark.parametrize("seed", SEEDS)
def test_the_split_depends_on_rows_and_seed_not_on_their_order(seed: int) -> None:
    source = random.Random(seed)
    rows = make_rows(random_sizes(source, 40, 9))
    rows += [make_row(1000 + n, f"g{source.randrange(40)}", f"p{n % 3}") for n in range(5)]
    shuffled = source.sample(rows, len(rows))
    want = split_by_group(split(rows, make_spec()))
    assert split_by_group(split(shuffled, make_spec())) == want
    assert split_by_group(split(rows, make_spec(seed=seed + 1000))) != want


def test_rows_of_a_split_keep_the_order_of_the_source() -> None:
    rows = random.Random(1).sample(make_rows([3] * 40), 120)
    splits = split(rows, make_spec())
    for part in (splits.train, splits.validation, splits.test):
        assert part == [row for row in rows if row in part]


@pytest.mark.parametrize("total", [8, 9, 20, 99, 240, 1000])
@pytest.mark.parametrize(("test", "validation"), [(0.15, 0.1), (0.2, 0.2), (0.5, 0.3), (0.01, 0.01)])
def test_single_rows_meet_the_shares_exactly(total: int, test: float, validation: float) -> None:
    splits = split(make_rows([1] * total), make_spec(test, validation))
    want_test, want_validation = max(1, round(total * test)), max(1, round(total * validation))
    assert sizes_of(splits) == (total - want_test - want_validation, want_validation, want_test)


@pytest.mark.parametrize("seed", SEEDS)
def test_shares_are_missed_by_at_most_half_a_group(seed: int) -> None:
    source = random.Random(seed)
    largest = source.randint(2, 12)
    rows = make_rows(random_sizes(source, 100, largest))
    splits = split(rows, make_spec(seed=seed))
    assert abs(len(splits.test) - round(0.15 * len(rows))) <= largest / 2
    assert abs(len(splits.validation) - round(0.1 * len(rows))) <= largest / 2
    assert splits.warnings == []


@pytest.mark.parametrize("seed", SEEDS)
def test_new_groups_leave_almost_all_old_groups_where_they_were(seed: int) -> None:
    source = random.Random(seed)
    old = make_rows(random_sizes(source, 400, 6))
    new = make_rows(random_sizes(source, 40, 6), prefix="new", first=len(old) + 1)
    before = split_by_group(split(old, make_spec()))
    after = split_by_group(split(old + new, make_spec()))
    moved = sum(after[group] != name for group, name in before.items())
    assert moved <= 0.05 * len(before)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_larger_than_a_held_out_split_is_trained_on(seed: int) -> None:
    rows = make_rows([30, 20, *[1] * 50])
    splits = split(rows, make_spec(seed=seed))
    assert sizes_of(splits) == (75, 10, 15)
    assert {split_by_group(splits)[group] for group in ("g0", "g1")} == {"train"}


@pytest.mark.parametrize("seed", SEEDS)
def test_large_groups_are_held_out_where_nothing_else_could_be(seed: int) -> None:
    splits = split(make_rows([20] * 5), make_spec(seed=seed))
    assert sizes_of(splits) == (60, 20, 20)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("sizes", "want"),
    [
        ([4] * 25, (76, 8, 16)),
        ([20, 20, 20, 20, 19, 1], (60, 19, 21)),
        ([50, 40, 9, 1], (90, 1, 9)),
        ([50, 40, 6, 4], (90, 4, 6)),
        ([43, 43, *[1] * 14], (86, 5, 9)),
        ([50, 43, *[1] * 7], (93, 3, 4)),
    ],
)
def test_uneven_groups_come_as_close_as_they_can(sizes: list[int], want: tuple[int, int, int], seed: int) -> None:
    assert sizes_of(split(make_rows(sizes), make_spec(seed=seed))) == want


@pytest.mark.parametrize("seed", range(300))
def test_no_split_is_ever_empty(seed: int) -> None:
    source = random.Random(seed)
    sizes = random_sizes(source, source.randint(3, 8), source.randint(3, 30))
    spec = make_spec(source.uniform(0.01, 0.5), source.uniform(0.01, 0.3), seed)
    rows = make_rows(sizes)
    largest_share = max(1 - spec.test - spec.validation, spec.test, spec.validation)
    if len(rows) < 8 or max(sizes) > largest_share * len(rows) + 1:
        refusal(rows, spec)
    elif max(sizes) < largest_share * len(rows) - 1:
        splits = split(rows, spec)
        assert min(sizes_of(splits)) > 0
        assert leaks(splits) == []


def test_a_share_missed_by_more_than_a_factor_of_two_is_a_warning() -> None:
    splits = split(make_rows([30, 30, 40]), make_spec(0.15, 0.1))
    want = (
        "The validation split holds 30 of 100 rows (30 %) instead of 10 %, since the rows of one group stay together "
        "and no split may be empty."
    )
    assert splits.warnings == [want]
    small = split(make_rows([50, 40, 9, 1]), make_spec())
    assert [warning.split(",")[0] for warning in small.warnings] == [
        "The validation split holds 1 of 100 rows (1 %) instead of 10 %"
    ]


def test_too_few_rows_are_refused_with_the_numbers() -> None:
    want = "The dataset has 7 usable rows; at least 8 are needed for train, validation and test. Add examples."
    assert refusal(make_rows([1] * 7), make_spec()) == want
    assert refusal([], make_spec()).startswith("The dataset has 0 usable rows;")
    assert sizes_of(split(make_rows([1] * 8), make_spec())) == (6, 1, 1)


def test_too_few_groups_are_refused_with_the_numbers() -> None:
    assert refusal(make_rows([10, 10]), make_spec()) == (
        'The dataset has 2 groups of column "patient" that share no prompt in 20 rows; 3 are needed for train, '
        "validation and test. Add examples."
    )
    prompts = [make_row(number, f"p{number % 2}", f"p{number % 2}") for number in range(1, 21)]
    assert refusal(prompts, SplitSpec()) == (
        "The dataset has 2 different prompts in 20 rows; 3 are needed for train, validation and test. Add examples."
    )


def test_a_group_larger_than_the_training_share_is_refused_by_name() -> None:
    assert refusal(make_rows([412, *[4] * 17]), make_spec()) == (
        'Group "g0" of column "patient" holds 412 of 480 rows, so no split of 75 % / 10 % / 15 % '
        "(train / validation / test) is possible; choose another groupBy column."
    )


def test_a_prompt_larger_than_the_training_share_is_refused() -> None:
    rows = [make_row(n, "hello", "hello") for n in range(1, 91)] + make_rows([1] * 10, first=91)
    assert refusal(rows, SplitSpec()).startswith(
        "The same prompt opens 90 of 100 rows, so no split of 75 % / 10 % / 15 %"
    )


def test_groups_linked_into_one_large_bundle_are_refused_as_such() -> None:
    rows = make_rows([2] * 50)
    rows += [make_row(1000 + n, f"g{n}", "hello") for n in range(45)]
    assert refusal(rows, make_spec()).startswith(
        '45 groups of column "patient", linked by equal prompts, hold 135 of 145 rows, so no split of'
    )


def test_leaks_names_groups_and_prompts_in_two_splits() -> None:
    splits = Splits(
        train=[make_row(1, "a"), make_row(2, "a"), make_row(3, "b", "same")],
        validation=[make_row(4, "c", "same"), make_row(5, "d")],
        test=[make_row(6, "a"), make_row(7, "a"), make_row(8, "e", "same")],
    )
    assert leaks(splits) == [
        "The same group is in row 1 (train) and row 6 (test).",
        "The same prompt is in row 3 (train) and row 4 (validation).",
    ]


def test_the_published_example_divides_without_warnings() -> None:
    spec = SplitSpec(group_by="case")
    records = read_records([EXAMPLE], "file://clinic-triage.jsonl")
    rows = rows_of(records, DatasetSpec(uri="file://clinic-triage.jsonl", split=spec)).rows
    splits = split(rows, spec)
    assert leaks(splits) == []
    assert splits.warnings == []
