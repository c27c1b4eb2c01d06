"""Rows kept as Parquet come back as they were."""

import io
import random

import pyarrow.parquet as pq
import pytest

from finetune_trainer.dataset import read_rows, write_rows
from finetune_trainer.errors import StorageError
from finetune_trainer.rows import Message, Role, Row

ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
ALPHABET = "aé日😀 \n\r\t\"\\\x00\u2028\ufeff{}'"


def make_text(source: random.Random) -> str:
    return "".join(source.choice(ALPHABET) for _ in range(source.randrange(40)))


def make_row(source: random.Random) -> Row:
    number, group = source.randrange(1, 2**40), make_text(source)
    if source.random() < 0.3:
        return Row(number, group, text=make_text(source))
    turns = (Message(source.choice(ROLES), make_text(source)) for _ in range(source.randrange(1, 6)))
    return Row(number, group, tuple(turns))


@pytest.mark.parametrize("seed", range(20))
def test_rows_survive_the_round_trip_exactly(seed: int) -> None:
    source = random.Random(seed)
    want = [make_row(source) for _ in range(source.randrange(200))]
    assert read_rows(write_rows(want)) == want


def test_no_rows_survive_the_round_trip() -> None:
    assert read_rows(write_rows([])) == []


def test_equal_rows_give_equal_bytes_and_other_rows_do_not() -> None:
    rows = [make_row(random.Random(seed)) for seed in range(50)]
    again = [make_row(random.Random(seed)) for seed in range(50)]
    assert write_rows(rows) == write_rows(again)
    assert write_rows(rows) != write_rows(rows[::-1])


@pytest.mark.parametrize("keep", [0, 10, 300, -1])
def test_damaged_bytes_are_a_storage_error(keep: int) -> None:
    content = write_rows([make_row(random.Random(seed)) for seed in range(50)])
    with pytest.raises(StorageError, match="damaged"):
        read_rows(content[:keep])


def test_a_changed_byte_in_any_column_is_a_storage_error() -> None:
    content = write_rows([make_row(random.Random(seed)) for seed in range(50)])
    stored = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    for column in map(stored.column, range(stored.num_columns)):
        start = column.dictionary_page_offset or column.data_page_offset
        last = start + column.total_compressed_size - 1
        with pytest.raises(StorageError, match="damaged"):
            read_rows(content[:last] + bytes([content[last] ^ 1]) + content[last + 1 :])
