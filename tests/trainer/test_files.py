"""Reading data files: every kind of file, and every complaint with file and row."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_trainer.errors import DataRejected, StorageError
from finetune_trainer.files import Records, list_problems, read_records

URI = "s3://clinic/data"
WANT = [(1, {"prompt": "a", "completion": "b"}), (2, {"prompt": "ü", "completion": "日本"})]


def write_file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_parquet(folder: Path, name: str, columns: dict[str, Any]) -> Path:
    path = folder / name
    pq.write_table(pa.table(columns), path)
    return path


def read(*files: Path) -> Records:
    return read_records(list(files), URI)


def refusal(*files: Path) -> str:
    with pytest.raises(DataRejected) as caught:
        read(*files)
    return str(caught.value)


JSONL = "\n".join(json.dumps(record, ensure_ascii=False) for _, record in WANT)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", JSONL),
        ("rows.ndjson", JSONL + "\n"),
        ("ROWS.JSONL", JSONL.replace("\n", "\r\n")),
        ("bom.jsonl", b"\xef\xbb\xbf" + JSONL.encode()),
        ("lines.json", JSONL),
        ("list.json", json.dumps([record for _, record in WANT], indent=2)),
        ("bom.json", b"\xef\xbb\xbf \n" + json.dumps([record for _, record in WANT]).encode()),
        ("rows.csv", "prompt,completion\na,b\nü,日本\n"),
        ("bom.csv", b"\xef\xbb\xbf" + 'prompt, completion\r\n"a","b"\r\nü,日本'.encode()),
    ],
)
def test_every_text_layout_gives_the_same_rows(tmp_path: Path, name: str, content: str | bytes) -> None:
    records = read(write_file(tmp_path, name, content))
    assert records.records == WANT
    assert records.columns == ["prompt", "completion"]
    assert records.uri == URI


def test_parquet_gives_rows_with_nested_values_and_nulls(tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": "a"}], [{"role": "user", "content": None}]]
    path = write_parquet(tmp_path, "rows.parquet", {"messages": messages, "day": [date(2026, 1, 2), None]})
    records = read(path)
    assert records.records == [
        (1, {"messages": messages[0], "day": date(2026, 1, 2)}),
        (2, {"messages": messages[1], "day": None}),
    ]


def test_a_large_parquet_file_keeps_its_row_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [str(number) for number in range(1, 70_001)]}), path, row_group_size=1000)
    records = read(path).records
    assert [number for number, _ in records] == list(range(1, 70_001))
    assert all(record["text"] == str(number) for number, record in records)


def test_row_numbers_run_through_all_files_and_lead_back_to_file_and_line(tmp_path: Path) -> None:
    first = write_file(tmp_path, "a/part.jsonl", '{"text": "1"}\n\n{"text": "3"}\n')
    second = write_file(tmp_path, "b/part.csv", "text,label\nx,\ny,2\n")
    records = read(first, second)
    assert [number for number, _ in records.records] == [1, 3, 4, 5]
    assert records.columns == ["text", "label"]
    assert [records.place(number) for number in (1, 3, 4, 5)] == [
        "a/part.jsonl, row 1",
        "a/part.jsonl, row 3",
        "b/part.csv, row 1",
        "b/part.csv, row 2",
    ]


def test_a_line_separator_inside_text_does_not_break_the_line(tmp_path: Path) -> None:
    text = "one\u2028two\x85three"
    path = write_file(tmp_path, "rows.jsonl", json.dumps({"text": text}, ensure_ascii=False))
    assert read(path).records == [(1, {"text": text})]


def test_broken_json_names_file_row_and_column(tmp_path: Path) -> None:
    lines = ['{"text": "fine"}'] * 4710 + ['{"text": "broken" "more": 1}']
    want = "triage.jsonl, row 4711: not valid JSON (Expecting ',' delimiter at column 19). Fix or remove the row."
    assert refusal(write_file(tmp_path, "triage.jsonl", "\n".join(lines))) == want


@pytest.mark.parametrize(
    ("line", "want"),
    [
        (b"[1, 2]", "a list, not an object"),
        (b"null", "null, not an object"),
        (b'"text"', "text, not an object"),
        (b"3.5", "a number, not an object"),
        (b"true", "true or false, not an object"),
        (b'{"text": "caf\xe9"}', "not UTF-8 (byte 14 of the line)"),
        (b'{"text": ' + b"9" * 5000 + b"}", "not usable JSON (a number has too many digits)"),
        (b'{"text": ' + b"[" * 200_000, "not usable JSON (nested too deeply)"),
        (rb'{"text": "\ud83d"}', r"holds half a character (a \ud… escape without its partner)"),
    ],
)
def test_a_bad_line_is_named_with_its_fault(tmp_path: Path, line: bytes, want: str) -> None:
    path = write_file(tmp_path, "rows.jsonl", b'{"text": "fine"}\n\n' + line + b"\n")
    assert refusal(path) == f"rows.jsonl, row 3: {want}. Fix or remove the row."


def test_an_escaped_pair_is_one_character(tmp_path: Path) -> None:
    assert read(write_file(tmp_path, "rows.jsonl", r'{"text": "\ud83d\ude00"}')).records == [(1, {"text": "😀"})]


def test_problems_of_all_files_are_listed_up_to_five_and_the_rest_counted(tmp_path: Path) -> None:
    first = write_file(tmp_path, "a.jsonl", "{\n" * 3)
    second = write_file(tmp_path, "b.jsonl", '{"text": "fine"}\n' + "7\n" * 19)
    message = refusal(first, second)
    want = ["a.jsonl, row 1", "a.jsonl, row 2", "a.jsonl, row 3", "b.jsonl, row 2", "b.jsonl, row 3"]
    assert [problem.split(":")[0] for problem in message.split("; ")[:5]] == want
    assert message.endswith("; … and 17 more rows. Fix or remove these rows.")


def test_one_hidden_problem_is_one_row() -> None:
    assert list_problems(["p"] * 6, "Do.") == "p; p; p; p; p; … and 1 more row. Fix or remove these rows. Do."


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    full = write_file(tmp_path, "full.jsonl", '{"text": "fine"}')
    empty = write_file(tmp_path, name, content)
    assert name in refusal(full, empty)


@pytest.mark.parametrize(("name", "content"), [("rows.json", "[]"), ("rows.csv", "prompt,completion\n")])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: str) -> None:
    want = f"{name} holds no rows. Fill it, or remove it from the dataset."
    assert refusal(write_file(tmp_path, name, content)) == want


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    assert "holds no rows" in refusal(write_parquet(tmp_path, "rows.parquet", {"text": pa.array([], pa.string())}))


def test_a_dataset_without_files_is_refused() -> None:
    assert refusal() == f"{URI} holds no data files. Readable are .jsonl, .ndjson, .json, .parquet, .csv."


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.xlsx", "README.md"])
def test_a_file_of_another_kind_is_refused_rather_than_skipped(tmp_path: Path, name: str) -> None:
    assert f"{name} is none of .jsonl, .ndjson" in refusal(write_file(tmp_path, name, "text"))


def test_a_missing_file_is_a_storage_error(tmp_path: Path) -> None:
    for name in ("gone.jsonl", "gone.json", "gone.parquet", "gone.csv"):
        with pytest.raises(StorageError, match=rf"^{name} cannot be opened \(No such file or directory\)"):
            read(tmp_path / name)


def test_a_broken_list_names_the_line(tmp_path: Path) -> None:
    message = refusal(write_file(tmp_path, "rows.json", '[\n  {"text": "a"},\n  {"text" "b"}\n]'))
    assert message == "rows.json is not valid JSON (Expecting ':' delimiter in line 3 at column 11). Fix the file."


def test_an_element_that_is_not_an_object_is_named(tmp_path: Path) -> None:
    message = refusal(write_file(tmp_path, "rows.json", '[{"text": "a"}, "b", {"text": "\\udc00"}]'))
    assert message.startswith("rows.json, row 2: text, not an object; rows.json, row 3: holds half a character")


def test_a_list_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    assert "too deep nesting" in refusal(write_file(tmp_path, "rows.json", "[" * 200_000))


def test_latin1_is_refused_with_the_line(tmp_path: Path) -> None:
    for name, content in (("rows.csv", "prompt,completion\na,b\ncafé,c\n"), ("rows.json", '[\n{"a":\n"é"}]')):
        message = refusal(write_file(tmp_path, name, content.encode("latin-1")))
        assert message == f"{name}, line 3: not UTF-8. Save the file in UTF-8."


@pytest.mark.parametrize("damage", ["cut", "garbage", "page"])
def test_damaged_parquet_is_refused(tmp_path: Path, damage: str) -> None:
    path = write_parquet(tmp_path, "rows.parquet", {"text": [f"row {number} " * 50 for number in range(500)]})
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "garbage":
        content[:] = b"not parquet at all"
    else:
        content[20:400] = bytes(380)
    message = refusal(write_file(tmp_path, "rows.parquet", bytes(content)))
    assert message.startswith("rows.parquet cannot be read as Parquet (")
    assert message.endswith("). Write or upload the file again.")
    assert "\n" not in message


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"], pa.binary()).buffers())
    assert "cannot be read as Parquet" in refusal(write_parquet(tmp_path, "rows.parquet", {"text": broken}))


def test_a_parquet_date_that_no_calendar_holds_is_refused(tmp_path: Path) -> None:
    days = pa.array([2**30], pa.int32()).cast(pa.date32())
    assert "cannot be read as Parquet" in refusal(write_parquet(tmp_path, "rows.parquet", {"day": days}))


def test_csv_keeps_newlines_quotes_and_long_texts_and_reads_empty_as_missing(tmp_path: Path) -> None:
    long = "x" * 300_000
    path = write_file(tmp_path, "rows.csv", f'prompt,note,completion\n"say ""hi"",\r\nplease",,{long}\n')
    assert read(path).records == [(1, {"prompt": 'say "hi",\r\nplease', "note": None, "completion": long})]


def test_csv_rows_of_another_width_are_named(tmp_path: Path) -> None:
    message = refusal(write_file(tmp_path, "rows.csv", "prompt,completion\na,b\n\nc\nd,e,f\n"))
    assert message == (
        "rows.csv, row 3: has 1 fields, but the header has 2; rows.csv, row 4: has 3 fields, but the header has 2. "
        "Fix or remove these rows."
    )


def test_an_unclosed_quote_in_csv_is_named(tmp_path: Path) -> None:
    message = refusal(write_file(tmp_path, "rows.csv", 'prompt,completion\na,b\n"c,d\ne,f\n'))
    assert message.startswith("rows.csv, row 2: not valid CSV (unexpected end of data; line 4 of the file)")


@pytest.mark.parametrize(
    ("header", "want"),
    [
        ("prompt;completion", "separates its columns by something else than commas"),
        ("prompt\tcompletion", "separates its columns by something else than commas"),
        ("prompt,prompt", "empty or repeated column name"),
        ("prompt,,completion", "empty or repeated column name"),
    ],
)
def test_an_unusable_csv_header_is_refused(tmp_path: Path, header: str, want: str) -> None:
    assert want in refusal(write_file(tmp_path, "rows.csv", f"{header}\na,b\n"))
