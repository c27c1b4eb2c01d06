"""Stage 1, on any CPU: from a dataset URI to checked, divided rows in the store, before an accelerator is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from finetune_api.report import DataReport, LeftOut, LengthSummary, SplitName, SplitReport
from finetune_api.run import RunConfig
from finetune_trainer.architecture import check_loadable
from finetune_trainer.dataset import read_rows, write_rows
from finetune_trainer.errors import DataRejected
from finetune_trainer.fetch import fetch_dataset, fetch_model
from finetune_trainer.files import read_records
from finetune_trainer.formats import rows_of
from finetune_trainer.rows import Row
from finetune_trainer.split import split
from finetune_trainer.store import Store
from finetune_trainer.tokens import Example, Tokenizer, encode, load_tokenizer

Splits = dict[SplitName, list[Example]]
NAMES: tuple[SplitName, ...] = ("train", "validation", "test")
CONFIG = "config.json"
"""The orders of a run, kept beside its rows: whoever goes on with the rows goes on with these."""
REPORT = "data/report.json"
FEW_TEST_GROUPS = 20


@dataclass(frozen=True)
class Prepared:
    """The rows of a run, tokenised, and what is known about them."""

    splits: Splits
    report: DataReport


def prepare(config: RunConfig, cache: Path) -> Prepared:
    """Fetch, check, tokenise and divide. Raises DataRejected, StorageError, ModelNotLoadable, InvalidConfig."""
    folder = fetch_model(config.model, cache, weights=False)
    check_loadable(folder)
    tokenizer = load_tokenizer(folder)
    fetched = fetch_dataset(config.dataset.uri, cache)
    records = read_records(fetched.files, config.dataset.uri)
    parsed = rows_of(records, config.dataset)
    fitting, too_long = _leave_out_long(parsed.rows, tokenizer, config.training.max_length)
    divided = split([example.row for example in fitting], config.dataset.split)
    by_number = {example.row.number: example for example in fitting}
    splits: Splits = {name: [by_number[row.number] for row in getattr(divided, name)] for name in NAMES}
    report = DataReport(
        uri=config.dataset.uri,
        fingerprint=fetched.fingerprint,
        format=parsed.format,
        detected=parsed.detected,
        columns=list(records.columns),
        rows=len(records.records),
        duplicates=parsed.duplicates,
        left_out=[*parsed.left_out, *too_long],
        splits=[summarise(name, splits[name]) for name in NAMES],
        warnings=[*divided.warnings, *_warn(splits, too_long)],
    )
    return Prepared(splits, report)


def prepare_once(config: RunConfig, store: Store, cache: Path) -> Prepared:
    """The rows of this run: those an earlier attempt froze, else freshly prepared ones."""
    found = load_prepared(store, lambda: load_tokenizer(fetch_model(config.model, cache, weights=False)))
    if found is None:
        found = prepare(config, cache)
        save_prepared(store, config, found)
    return found


def freeze_rows(config: RunConfig, store: Store, cache: Path) -> DataReport:
    """See to it that the rows of this run are in the store, without reading those that are."""
    if not has_rows(store):
        save_prepared(store, config, prepare(config, cache))
    return DataReport.model_validate_json(store.read(REPORT))


def has_rows(store: Store) -> bool:
    """Whether the rows of a run are complete."""
    return store.exists(REPORT)


def save_prepared(store: Store, config: RunConfig, prepared: Prepared) -> None:
    """Write orders and rows, then the report: with the report in place the data is complete."""
    store.write(CONFIG, config.model_dump_json(by_alias=True, indent=2).encode())
    for name in NAMES:
        store.write(f"data/{name}.parquet", write_rows([example.row for example in prepared.splits[name]]))
    store.write(REPORT, prepared.report.model_dump_json(by_alias=True, indent=2).encode())


def load_prepared(store: Store, tokenizer: Callable[[], Tokenizer]) -> Prepared | None:
    """What an earlier attempt prepared, or None."""
    if not has_rows(store):
        return None
    report = DataReport.model_validate_json(store.read(REPORT))
    encoder = tokenizer()
    splits: Splits = {
        name: [encode(row, encoder) for row in read_rows(store.read(f"data/{name}.parquet"))] for name in NAMES
    }
    return Prepared(splits, report)


def summarise(name: SplitName, examples: Sequence[Example]) -> SplitReport:
    """Counts and lengths of one split."""
    lengths = sorted(len(example.ids) for example in examples)
    cuts = quantiles(lengths, n=20, method="inclusive") if len(lengths) > 1 else lengths * 19
    return SplitReport(
        name=name,
        rows=len(examples),
        groups=len({example.row.group for example in examples}),
        tokens=sum(lengths),
        supervised_tokens=sum(example.taught for example in examples),
        lengths=LengthSummary(median=round(cuts[9]), p95=round(cuts[18]), longest=lengths[-1]),
    )


def _leave_out_long(rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> tuple[list[Example], list[LeftOut]]:
    """Rows over the limit are left out whole: a cut answer would teach the model to stop anywhere."""
    examples = [encode(row, tokenizer) for row in rows]
    fitting = [example for example in examples if len(example.ids) <= max_length]
    long = [example for example in examples if len(example.ids) > max_length]
    if not fitting:
        shortest = min(len(example.ids) for example in long)
        raise DataRejected(
            f"All {len(long)} rows are longer than training.maxLength ({max_length} tokens); the shortest has "
            f"{shortest}. Raise training.maxLength."
        )
    if not long:
        return fitting, []
    reason = f"longer than training.maxLength ({max_length} tokens)"
    return fitting, [LeftOut(reason=reason, rows=len(long), examples=[example.row.number for example in long[:5]])]


def _warn(splits: Splits, too_long: Sequence[LeftOut]) -> list[str]:
    warnings = []
    dropped = sum(left.rows for left in too_long)
    if dropped:
        total = dropped + sum(map(len, splits.values()))
        warnings.append(f"{dropped} of {total} rows are longer than training.maxLength and were left out.")
    groups = len({example.row.group for example in splits["test"]})
    if groups < FEW_TEST_GROUPS:
        warnings.append(
            f"The test split holds {groups} independent groups; with fewer than {FEW_TEST_GROUPS} the confidence "
            "intervals are rough."
        )
    return warnings
