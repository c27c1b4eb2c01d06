"""Stage 1 as a whole: what is counted, left out, refused and kept."""

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.errors import DataRejected
from finetune_trainer.prepare import load_prepared, prepare, save_prepared
from finetune_trainer.rows import Row
from finetune_trainer.store import open_store
from finetune_trainer.tokens import encode, load_tokenizer
from support.jobs import make_config, make_job, write_dataset
from support.rows import chat_row, echo_rows


def config_for(model: Path, rows: list[Row], tmp_path: Path, **spec: Any) -> Any:
    job = make_job(model, write_dataset(tmp_path / "rows.jsonl", rows), tmp_path / "out", **spec)
    return make_config(job, tmp_path / "cache")


def test_rows_over_max_length_are_left_out_whole_and_counted_never_cut(tiny_qwen: Path, tmp_path: Path) -> None:
    rows = [*echo_rows(40), chat_row(41, "a fever " * 60, "today"), chat_row(42, "a cough", "week " * 100)]
    prepared = prepare(config_for(tiny_qwen, rows, tmp_path, training={"maxLength": 100}), tmp_path)
    [left_out] = prepared.report.left_out
    assert (left_out.rows, left_out.examples) == (2, [41, 42])
    assert "training.maxLength (100 tokens)" in left_out.reason
    assert sum(split.rows for split in prepared.report.splits) == 40
    assert max(len(example.ids) for split in prepared.splits.values() for example in split) <= 100
    assert any("2 of 42 rows are longer" in warning for warning in prepared.report.warnings)
    tokenizer = load_tokenizer(tiny_qwen)
    for example in prepared.splits["train"]:
        assert tokenizer.decode(example.ids).rstrip().endswith(f"{example.row.answer}<|im_end|>")


def test_rows_that_are_all_too_long_are_refused_with_the_length_that_would_do(tiny_qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataRejected, match=r"All 20 rows are longer than training.maxLength \(16 tokens\); the shortest has \d+"
    ):
        prepare(config_for(tiny_qwen, echo_rows(20), tmp_path, training={"maxLength": 16}), tmp_path)


def test_a_row_of_which_nothing_would_be_learnt_is_refused(tiny_qwen: Path) -> None:
    tokenizer = load_tokenizer(tiny_qwen)
    tokenizer.chat_template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    assert encode(chat_row(5, "a fever", "today"), tokenizer).taught == 1  # the end of the turn
    tokenizer.chat_template = None
    with pytest.raises(DataRejected, match="Row 5: no token of the answer is left"):
        encode(Row(5, "g", text=""), tokenizer)


def test_no_group_spans_two_splits_and_the_counts_add_up(tiny_qwen: Path, tmp_path: Path) -> None:
    prepared = prepare(config_for(tiny_qwen, echo_rows(60), tmp_path), tmp_path)
    groups = [{example.row.group for example in split} for split in prepared.splits.values()]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    for split in prepared.report.splits:
        examples = prepared.splits[split.name]
        assert split.tokens == sum(len(example.ids) for example in examples)
        assert split.supervised_tokens == sum(sum(example.supervised) for example in examples)


def test_prepared_rows_come_back_from_the_store_as_they_were(tiny_qwen: Path, tmp_path: Path) -> None:
    config = config_for(tiny_qwen, echo_rows(30), tmp_path)
    prepared = prepare(config, tmp_path)
    store = open_store(f"file://{tmp_path}/run")
    assert load_prepared(store, lambda: load_tokenizer(tiny_qwen)) is None
    save_prepared(store, config, prepared)
    assert load_prepared(store, lambda: load_tokenizer(tiny_qwen)) == prepared
