"""Data files in, raw records out. Every complaint names the file and the row."""

import csv
import io
import json
import os
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetune_trainer.errors import DataRejected, StorageError

SHOWN_PROBLEMS = 5

Entry = tuple[int, dict[str, Any] | str]
"""Row number within its file, from 1, with the row or with what is wrong with it."""

_BOM = b"\xef\xbb\xbf"
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    bytes: "binary",
    type(None): "null",
}


@dataclass(frozen=True)
class SourceFile:
    """One file that was read."""

    name: str
    before: int
    """Rows in the files before it."""


@dataclass(frozen=True)
class Records:
    """The rows of all files as they were written, not yet understood."""

    uri: str
    records: list[tuple[int, dict[str, Any]]]
    """Row number and row. Numbers count from 1 through all files: lines in JSONL, rows below the header in CSV."""
    columns: list[str]
    """Every field that some row has, in order of first appearance."""
    files: list[SourceFile]

    def place(self, number: int) -> str:
        """Where a person finds a row, for instance "triage.jsonl, row 4711"."""
        file = self.files[bisect_right(self.files, number - 1, key=lambda file: file.before) - 1]
        return f"{file.name}, row {number - file.before}"


def read_records(files: Sequence[Path], uri: str) -> Records:
    """Read JSONL, JSON, Parquet and CSV files in the given order.

    Raises DataRejected when any row of any file cannot be read, StorageError when a file cannot be opened.
    """
    if not files:
        raise DataRejected(f"{uri} holds no data files. Readable are {', '.join(_READERS)}.")
    records: list[tuple[int, dict[str, Any]]] = []
    problems: list[str] = []
    sources: list[SourceFile] = []
    before = 0
    for path, name in zip(files, _names(files), strict=True):
        sources.append(SourceFile(name, before))
        entries = _read_file(path, name)
        for row, value in entries:
            if isinstance(value, str):
                problems.append(f"{name}, row {row}: {value}")
            else:
                records.append((before + row, value))
        before += entries[-1][0]
    if problems:
        raise DataRejected(list_problems(problems))
    columns = list(dict.fromkeys(column for _, record in records for column in record))
    return Records(uri, records, columns, sources)


def list_problems(problems: Sequence[str], advice: str = "") -> str:
    """The first few problems, the number of the others, and what to do."""
    shown = list(problems[:SHOWN_PROBLEMS])
    hidden = len(problems) - len(shown)
    if hidden:
        shown.append(f"… and {hidden} more {'row' if hidden == 1 else 'rows'}")
    what = "the row" if len(problems) == 1 else "these rows"
    return f"{'; '.join(shown)}. Fix or remove {what}. {advice}".rstrip()


def describe(value: object) -> str:
    """What kind of value this is, in a word a person uses."""
    return _KINDS.get(type(value), f"of type {type(value).__name__}")


def _names(files: Sequence[Path]) -> list[str]:
    """Paths below the folder that all files share; only the file name for a single file."""
    folder = os.path.commonpath([path.parent for path in files])
    return [path.relative_to(folder).as_posix() for path in files]


def _read_file(path: Path, name: str) -> list[Entry]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataRejected(f"{name} is none of {', '.join(_READERS)}. Convert it, or remove it from the dataset.")
    try:
        entries = list(reader(path, name))
    except OSError as error:
        raise StorageError(
            f"{name} cannot be opened ({error.strerror}). Check that it exists and may be read."
        ) from error
    if not entries:
        raise DataRejected(f"{name} holds no rows. Fill it, or remove it from the dataset.")
    return entries


def _read_jsonl(path: Path, _name: str) -> Iterator[Entry]:
    # Bytes, not text: text mode also breaks lines at a bare \r, and one bad byte would end the reading.
    with path.open("rb") as file:
        for row, line in enumerate(file, start=1):
            content = line.removeprefix(_BOM) if row == 1 else line
            if content.strip():
                yield row, _parse_line(content)


def _parse_line(line: bytes) -> dict[str, Any] | str:
    """The object on one line, or what is wrong with it."""
    try:
        text = line.decode().rstrip("\r\n")
        return _as_row(json.loads(text), _SURROGATE_ESCAPE.search(text) is not None)
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start + 1} of the line)"
    except json.JSONDecodeError as error:
        return f"not valid JSON ({error.msg} at column {error.colno})"
    except ValueError:
        return "not usable JSON (a number has too many digits)"
    except RecursionError:
        return "not usable JSON (nested too deeply)"


def _as_row(value: object, has_surrogates: bool) -> dict[str, Any] | str:
    if not isinstance(value, dict):
        return f"{describe(value)}, not an object"
    # JSON can escape half of a character pair, which no UTF-8 file can hold: it would fail much later, when written.
    if has_surrogates and not _is_encodable(value):
        return "holds half a character (a \\ud… escape without its partner)"
    return value


def _is_encodable(value: dict[str, Any]) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_json(path: Path, name: str) -> Iterator[Entry]:
    """Read one list of objects; a file that does not begin with a list is JSONL under another name."""
    with path.open("rb") as file:
        is_list = file.read(4096).removeprefix(_BOM).lstrip().startswith(b"[")
    return _read_list(path, name) if is_list else _read_jsonl(path, name)


def _read_list(path: Path, name: str) -> Iterator[Entry]:
    text = _decode(path, name)
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{error.msg} in line {error.lineno} at column {error.colno}"
        raise DataRejected(f"{name} is not valid JSON ({where}). Fix the file.") from error
    except (ValueError, RecursionError) as error:
        raise DataRejected(f"{name} holds JSON with too long numbers or too deep nesting. Fix the file.") from error
    has_surrogates = _SURROGATE_ESCAPE.search(text) is not None
    for row, value in enumerate(values, start=1):
        yield row, _as_row(value, has_surrogates)


def _read_parquet(path: Path, name: str) -> Iterator[Entry]:
    with path.open("rb") as file:
        try:
            batches = pq.ParquetFile(file).iter_batches()
            records = (record for batch in batches for record in batch.to_pylist())
            yield from enumerate(records, start=1)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise DataRejected(
                f"{name} cannot be read as Parquet ({reason}). Write or upload the file again."
            ) from error


def _read_csv(path: Path, name: str) -> Iterator[Entry]:
    csv.field_size_limit(sys.maxsize)  # the module's default refuses documents above 128 KiB
    lines = csv.reader(io.StringIO(_decode(path, name), newline=""), strict=True)
    header: list[str] = []
    row = 0
    try:
        header = _check_header(next(lines, []), name)
        for row, cells in enumerate(lines, start=1):
            if cells:
                yield row, _as_record(header, cells)
    except csv.Error as error:
        # The reader cannot find its way back into the rows after a broken quote.
        yield row + 1, f"not valid CSV ({error}; line {lines.line_num} of the file)"


def _as_record(header: list[str], cells: list[str]) -> dict[str, Any] | str:
    if len(cells) != len(header):
        return f"has {len(cells)} fields, but the header has {len(header)}"
    # CSV cannot tell an empty text from a missing one.
    return {column: cell or None for column, cell in zip(header, cells, strict=True)}


def _check_header(cells: list[str], name: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise DataRejected(f"{name} separates its columns by something else than commas. Save it with commas.")
    if "" in header or len(set(header)) < len(header):
        raise DataRejected(f"{name} has a header with an empty or repeated column name. Give each column its own name.")
    return header


def _decode(path: Path, name: str) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataRejected(f"{name}, line {line}: not UTF-8. Save the file in UTF-8.") from error


_READERS: dict[str, Callable[[Path, str], Iterator[Entry]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
}
