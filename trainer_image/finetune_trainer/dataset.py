"""Rows in and out of Parquet, as they are kept beside a run."""

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetune_trainer.errors import StorageError
from finetune_trainer.rows import Message, Row

SCHEMA = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])), nullable=False),
        pa.field("text", pa.string()),
    ]
)


def write_rows(rows: Sequence[Row]) -> bytes:
    """The rows as one Parquet file that `datasets` reads as it is; equal rows give equal bytes."""
    from datasets import Dataset  # two seconds to import, and only preparing needs it

    table = pa.Table.from_pylist([_as_record(row) for row in rows], schema=SCHEMA)
    buffer = io.BytesIO()
    Dataset(table).to_parquet(buffer, write_page_checksum=True)
    return buffer.getvalue()


def read_rows(content: bytes) -> list[Row]:
    """The rows that `write_rows` wrote. Raises StorageError when the bytes are damaged."""
    try:
        records = pq.read_table(io.BytesIO(content), schema=SCHEMA, page_checksum_verification=True).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StorageError(
            "The stored rows of this run are damaged. Delete the run's data folder to prepare them anew."
        ) from error
    return [_as_row(record) for record in records]


def _as_record(row: Row) -> dict[str, Any]:
    messages = [{"role": message.role, "content": message.content} for message in row.messages]
    return {"number": row.number, "group": row.group, "messages": messages, "text": row.text}


def _as_row(record: dict[str, Any]) -> Row:
    messages = tuple(Message(turn["role"], turn["content"]) for turn in record["messages"])
    return Row(record["number"], record["group"], messages, record["text"])
