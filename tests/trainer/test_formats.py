"""From each known layout to rows, and what is said about rows that do not fit."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_api.training import DatasetSpec, RowFormat, SplitSpec
from finetune_trainer.errors import DataRejected
from finetune_trainer.files import Records, SourceFile, read_records
from finetune_trainer.formats import LAYOUTS, ParsedRows, convert, detect_format, rows_of
from finetune_trainer.rows import Message, Row

EXAMPLE = Path(__file__).parents[2] / "manifests/examples/data/clinic-triage.jsonl"

HELLO = (Message("user", "hello"), Message("assistant", "hi"))
CHAT = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]}


def make_records(*records: dict[str, Any]) -> Records:
    columns = list(dict.fromkeys(column for record in records for column in record))
    return Records("s3://clinic/rows.jsonl", list(enumerate(records, start=1)), columns, [SourceFile("rows.jsonl", 0)])


def make_spec(layout: RowFormat | None = None, group_by: str | None = None) -> DatasetSpec:
    return DatasetSpec(uri="s3://clinic/rows.jsonl", format=layout, split=SplitSpec(group_by=group_by))


def parse(*records: dict[str, Any], layout: RowFormat | None = None, group_by: str | None = None) -> ParsedRows:
    return rows_of(make_records(*records), make_spec(layout, group_by))


def refusal(*records: dict[str, Any], layout: RowFormat | None = None, group_by: str | None = None) -> str:
    with pytest.raises(DataRejected) as caught:
        parse(*records, layout=layout, group_by=group_by)
    return str(caught.value)


def problem_of(record: dict[str, Any], layout: RowFormat, group_by: str | None = None) -> str:
    with pytest.raises(DataRejected) as caught:
        convert(record, 1, layout, group_by)
    return str(caught.value)


def messages_of(record: dict[str, Any], layout: RowFormat) -> tuple[Message, ...]:
    return convert(record, 1, layout, None).messages


@pytest.mark.parametrize(
    ("columns", "want"),
    [
        (["case", "messages"], "messages"),
        (["prompt", "prompt_id", "messages"], "messages"),
        (["id", "conversations"], "sharegpt"),
        (["instruction", "input", "output", "text"], "alpaca"),
        (["instruction", "output"], "alpaca"),
        (["prompt", "completion"], "prompt-completion"),
        (["question", "answer"], "prompt-completion"),
        (["prompt", "response", "score"], "prompt-completion"),
        (["text", "label"], "text"),
    ],
)
def test_the_layout_is_detected_from_the_columns(columns: list[str], want: RowFormat) -> None:
    assert detect_format(columns) == want


def test_unknown_columns_are_listed_beside_every_known_layout() -> None:
    with pytest.raises(DataRejected) as caught:
        detect_format(["prompt", "chosen", "rejected"])
    assert "The columns prompt, chosen, rejected fit none of the known layouts" in str(caught.value)
    assert all(f"{name} {layout}" in str(caught.value) for name, layout in LAYOUTS.items())


def test_a_wide_table_is_listed_in_part() -> None:
    with pytest.raises(DataRejected, match=r"c0, .*, c19 and 80 more fit none"):
        detect_format([f"c{number}" for number in range(100)])


@pytest.mark.parametrize(
    ("record", "layout"),
    [
        (CHAT, "messages"),
        ({"messages": [{**CHAT["messages"][0], "tool_calls": None, "name": None}, CHAT["messages"][1]]}, "messages"),
        ({"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}]}, "sharegpt"),
        ({"conversations": [{"from": "user", "value": "hello"}, {"from": "assistant", "value": "hi"}]}, "sharegpt"),
        ({"instruction": "hello", "output": "hi"}, "alpaca"),
        ({"instruction": "hello", "input": None, "output": "hi"}, "alpaca"),
        ({"instruction": "hello", "input": " ", "output": "hi"}, "alpaca"),
        ({"prompt": "hello", "completion": "hi"}, "prompt-completion"),
        ({"prompt": "hello", "response": "hi"}, "prompt-completion"),
        ({"question": "hello", "answer": "hi"}, "prompt-completion"),
        ({"prompt": CHAT["messages"][:1], "completion": CHAT["messages"][1:]}, "prompt-completion"),
        ({"prompt": CHAT["messages"][:1], "completion": "hi"}, "prompt-completion"),
    ],
)
def test_every_layout_gives_the_same_row(record: dict[str, Any], layout: RowFormat) -> None:
    parsed = parse(record)
    assert (parsed.format, parsed.detected) == (layout, True)
    assert parsed.rows[0].messages == HELLO
    assert parsed.rows[0].group == parse(CHAT).rows[0].group


def test_alpaca_input_follows_the_instruction_after_a_blank_line() -> None:
    record = {"instruction": "Translate.", "input": "Hallo", "output": "Hello"}
    assert messages_of(record, "alpaca") == (Message("user", "Translate.\n\nHallo"), Message("assistant", "Hello"))


def test_text_becomes_a_row_without_messages() -> None:
    row = parse({"text": "Once."}).rows[0]
    assert (row.messages, row.text, row.answer) == ((), "Once.", "Once.")


def test_content_given_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo", "image_url": None}]
    record = {"messages": [{"role": "user", "content": parts}, CHAT["messages"][1]]}
    assert messages_of(record, "messages") == HELLO


def test_long_conversations_keep_system_tools_and_repeated_user_turns() -> None:
    turns = [
        ("system", ""),
        ("human", "a"),
        ("human", "b"),
        ("gpt", "c"),
        ("tool", ""),
        ("observation", "d"),
        ("gpt", "e"),
    ]
    record = {"conversations": [{"from": speaker, "value": value} for speaker, value in turns]}
    want = ["system", "user", "user", "assistant", "tool", "tool", "assistant"]
    assert [message.role for message in messages_of(record, "sharegpt")] == want


USER, ASSISTANT = CHAT["messages"]


@pytest.mark.parametrize(
    ("messages", "want"),
    [
        (None, '"messages" is missing'),
        ("[]", '"messages" is text, not a list'),
        ([], '"messages" is empty'),
        (["hello"], "turn 1 of messages is text, not an object"),
        ([USER], "there is no answer: the last turn is from user, not from assistant"),
        ([ASSISTANT], "there is no prompt: no turn is from user"),
        ([USER, {"role": "assistant", "content": " \n"}], '"content" in turn 2 of messages is empty'),
        ([USER, {"role": "assistant", "content": None}], '"content" is missing in turn 2 of messages'),
        ([USER, {"role": "assistant"}], '"content" is missing in turn 2 of messages'),
        ([USER, {"role": "assistant", "content": 7}], '"content" in turn 2 of messages is a number, not text'),
        ([{"role": "user", "content": ""}, ASSISTANT], '"content" in turn 1 of messages is empty'),
        ([{"role": "user", "content": []}, ASSISTANT], '"content" in turn 1 of messages is empty'),
        ([{"content": "hello"}, ASSISTANT], '"role" is missing in turn 1 of messages'),
        (
            [{"role": "bot", "content": "hello"}, ASSISTANT],
            'turn 1 of messages has the unknown role "bot" (known are system, user, assistant, tool)',
        ),
        (
            [{"role": ["user"], "content": "hello"}, ASSISTANT],
            "turn 1 of messages has the unknown role \"['user']\" (known are system, user, assistant, tool)",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, ASSISTANT],
            '"content" in turn 1 of messages has a part that is not {"type": "text", "text": "…"}; '
            "only text can be used",
        ),
        (
            [USER, {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, ASSISTANT],
            "turn 2 of messages holds a tool call, which cannot be trained on; write it out as content",
        ),
        (
            [USER, {"role": "system", "content": "x"}, ASSISTANT],
            "turn 2 is from system; only the first turn may be",
        ),
    ],
)
def test_a_bad_conversation_is_refused_with_its_field(messages: object, want: str) -> None:
    assert problem_of({"messages": messages}, "messages") == want


@pytest.mark.parametrize(
    ("record", "layout", "want"),
    [
        ({"conversations": [{"value": "a"}]}, "sharegpt", '"from" is missing in turn 1 of conversations'),
        ({"conversations": [{"from": "human"}]}, "sharegpt", '"value" is missing in turn 1 of conversations'),
        ({"output": "b"}, "alpaca", '"instruction" is missing'),
        ({"instruction": "a", "output": ""}, "alpaca", '"output" is empty'),
        ({"instruction": "a", "input": 3, "output": "b"}, "alpaca", '"input" is a number, not text'),
        ({"completion": "b"}, "prompt-completion", '"prompt" is missing'),
        ({"prompt": "a"}, "prompt-completion", '"completion" is missing'),
        ({"prompt": "a", "completion": False}, "prompt-completion", '"completion" is true or false, not text'),
        ({"prompt": "a", "completion": [USER]}, "prompt-completion", "there is no answer: the last turn is from user, "
         "not from assistant"),
        ({"text": None}, "text", '"text" is missing'),
        ({"text": "\t"}, "text", '"text" is empty'),
        ({"text": {"a": 1}}, "text", '"text" is an object, not text'),
    ],
)  # fmt: skip
def test_a_bad_record_is_refused_with_its_field(record: dict[str, Any], layout: RowFormat, want: str) -> None:
    assert problem_of(record, layout) == want


def test_an_empty_completion_is_not_replaced_by_another_column() -> None:
    record = {"prompt": "a", "completion": None, "answer": "something else"}
    assert problem_of(record, "prompt-completion") == '"completion" is missing'


def test_a_named_format_that_does_not_fit_says_row_field_and_columns() -> None:
    message = refusal({"prompt": "a", "completion": "b"}, layout="alpaca")
    assert message == (
        'rows.jsonl, row 1: "instruction" is missing. Fix or remove the row. A row of format alpaca is '
        '{"instruction": "…", "input": "…", "output": "…"} (input may be left out); '
        "the columns found are prompt, completion."
    )


def test_a_named_format_wins_over_detection() -> None:
    parsed = parse({**CHAT, "text": "Once."}, layout="text")
    assert (parsed.format, parsed.detected, parsed.rows[0].text) == ("text", False, "Once.")


def test_one_bad_row_among_many_refuses_them_all() -> None:
    good = [{"text": f"row {number}"} for number in range(99)]
    assert refusal(*good, {"text": ""}).startswith('rows.jsonl, row 100: "text" is empty. Fix or remove the row.')


def test_bad_rows_are_listed_up_to_five_and_the_rest_counted() -> None:
    message = refusal(*[{"text": ""}] * 22)
    assert [part for part in message.split("; ") if part.startswith("rows.jsonl")] == [
        f'rows.jsonl, row {number}: "text" is empty' for number in range(1, 6)
    ]
    assert "; … and 17 more rows. Fix or remove these rows." in message


def test_exact_duplicates_are_dropped_counted_and_named() -> None:
    other = {"text": "other"}
    parsed = parse({"text": "same"}, other, {"text": "same"}, {"text": "same", "note": 1})
    assert [row.number for row in parsed.rows] == [1, 2]
    assert parsed.duplicates == 2
    assert [(left.rows, left.examples) for left in parsed.left_out] == [(2, [3, 4])]


def test_the_same_prompt_with_another_answer_is_kept() -> None:
    parsed = parse({"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "c"})
    assert (len(parsed.rows), parsed.duplicates, parsed.left_out) == (2, 0, [])


def test_identical_rows_alone_are_refused() -> None:
    want = "All 500 rows of s3://clinic/rows.jsonl are identical. Give different examples."
    assert refusal(*[{"text": "same"}] * 500) == want


@pytest.mark.parametrize(
    ("value", "want"), [("P-7", "P-7"), (7, "7"), (0, "0"), (7.5, "7.5"), (False, "False"), (" a ", " a ")]
)
def test_the_group_is_the_value_of_the_group_by_column(value: object, want: str) -> None:
    assert parse({**CHAT, "patient": value}, group_by="patient").rows[0].group == want


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_a_row_without_a_group_is_refused(value: object) -> None:
    message = refusal({**CHAT, "patient": 1}, {"messages": CHAT["messages"], "patient": value}, group_by="patient")
    assert message.startswith('rows.jsonl, row 2: the groupBy column "patient" is missing or empty.')


def test_a_row_that_lacks_the_group_by_column_is_refused() -> None:
    assert refusal({**CHAT, "patient": 1}, CHAT, group_by="patient").startswith("rows.jsonl, row 2: the groupBy column")


def test_a_nested_group_is_refused() -> None:
    assert problem_of({**CHAT, "patient": [1]}, "messages", "patient").endswith("is a list, not text or a number")


def test_a_group_by_column_that_no_row_has_is_refused_once() -> None:
    want = 'groupBy names the column "patient", but the rows have messages.'
    assert refusal(CHAT, CHAT, group_by="patient") == want


def test_without_group_by_equal_prompts_form_a_group() -> None:
    def group(first: str, prompt: str, answer: str, role: str = "system") -> str:
        turns = [(role, first), ("user", prompt), ("assistant", answer)]
        record = {"messages": [{"role": role, "content": content} for role, content in turns]}
        return convert(record, 1, "messages", None).group

    assert group("s", "a", "b") == group("s", "a", "c")
    assert group("s", "a", "b") != group("s", "a", "b", role="user")
    assert len({group("s", "a", "b"), group("s", "b", "b"), group("t", "a", "b"), group("sa", "s", "b")}) == 4
    assert parse({"text": "a"}).rows[0].group != parse({"text": "b"}).rows[0].group


def test_extra_columns_are_ignored() -> None:
    assert parse({**CHAT, "score": 3, "nested": {"x": [1]}}).rows[0] == parse(CHAT).rows[0]


def test_parquet_nulls_are_read_as_missing(tmp_path: Path) -> None:
    def turn(role: str, content: str | None, calls: list[str] | None = None) -> dict[str, object]:
        return {"role": role, "content": content, "tool_calls": calls}

    path = tmp_path / "rows.parquet"
    rows = [[turn("user", "a"), turn("assistant", "b")], [turn("user", "a"), turn("assistant", None)], None]
    pq.write_table(pa.table({"messages": rows, "patient": pa.array([1, 2, None])}), path)
    with pytest.raises(DataRejected) as caught:
        rows_of(read_records([path], "s3://clinic"), make_spec(group_by="patient"))
    assert str(caught.value).startswith(
        'rows.parquet, row 2: "content" is missing in turn 2 of messages; '
        'rows.parquet, row 3: "messages" is missing. Fix or remove these rows.'
    )


def test_parquet_prompts_read_as_well_as_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["hello"], "completion": ["hi"]}), path)
    want = [Row(1, parse(CHAT).rows[0].group, HELLO)]
    assert rows_of(read_records([path], "s3://clinic"), make_spec()).rows == want


def test_the_published_example_is_read_whole() -> None:
    records = read_records([EXAMPLE], "file://clinic-triage.jsonl")
    parsed = rows_of(records, make_spec(group_by="case"))
    assert parsed.format == "messages"
    assert len(parsed.rows) + parsed.duplicates == len(EXAMPLE.read_text("utf-8").splitlines())
    assert {row.messages[-1].role for row in parsed.rows} == {"assistant"}
