"""The layouts that datasets come in, and the way from each of them to a Row."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from finetune_api.identity import canonical
from finetune_api.report import LeftOut
from finetune_api.training import DatasetSpec, RowFormat
from finetune_trainer.errors import DataRejected
from finetune_trainer.files import SHOWN_PROBLEMS, Records, describe, list_problems
from finetune_trainer.rows import Message, Role, Row

Record = Mapping[str, Any]

LAYOUTS: dict[RowFormat, str] = {
    "messages": '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
    "sharegpt": '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}',
    "alpaca": '{"instruction": "…", "input": "…", "output": "…"} (input may be left out)',
    "prompt-completion": '{"prompt": "…", "completion": "…"} (or question; response, answer)',
    "text": '{"text": "…"}',
}
"""One row of each layout, in the order in which they are tried."""

_PROMPTS = ("prompt", "question")
_ANSWERS = ("completion", "response", "answer")
_COLUMNS: dict[RowFormat, list[set[str]]] = {
    "messages": [{"messages"}],
    "sharegpt": [{"conversations"}],
    "alpaca": [{"instruction", "output"}],
    "prompt-completion": [set(pair) for pair in product(_PROMPTS, _ANSWERS)],
    "text": [{"text"}],
}
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_SPEAKERS: dict[str, Role] = {**_ROLES, "human": "user", "gpt": "assistant", "observation": "tool"}
_SHOWN_COLUMNS = 20


@dataclass(frozen=True)
class ParsedRows:
    """All rows in one shape, and what was done to get there."""

    rows: list[Row]
    format: RowFormat
    detected: bool
    """Whether the format was detected rather than given."""
    duplicates: int
    """Exact duplicates dropped (same prompt and answer)."""
    left_out: list[LeftOut]
    """The duplicates, with examples. Nothing else is ever left out here."""


def rows_of(records: Records, spec: DatasetSpec) -> ParsedRows:
    """Convert all records. Raises DataRejected if a single one does not fit; drops exact duplicates only."""
    layout = spec.format or detect_format(records.columns)
    group_by = spec.split.group_by
    if group_by is not None and group_by not in records.columns:
        raise DataRejected(f'groupBy names the column "{group_by}", but the rows have {_listed(records.columns)}.')
    rows: list[Row] = []
    problems: list[str] = []
    for number, record in records.records:
        try:
            rows.append(convert(record, number, layout, group_by))
        except DataRejected as problem:
            problems.append(f"{records.place(number)}: {problem}")
    if problems:
        advice = f"A row of format {layout} is {LAYOUTS[layout]}; the columns found are {_listed(records.columns)}."
        raise DataRejected(list_problems(problems, advice))
    kept, dropped = drop_duplicates(rows)
    if len(kept) == 1 < len(rows):
        raise DataRejected(f"All {len(rows)} rows of {records.uri} are identical. Give different examples.")
    return ParsedRows(kept, layout, spec.format is None, len(dropped), _left_out(dropped))


def detect_format(columns: Sequence[str]) -> RowFormat:
    """The first layout whose columns are all there. Raises DataRejected with what was found and what is known."""
    for layout, choices in _COLUMNS.items():
        if any(needed <= set(columns) for needed in choices):
            return layout
    known = "; ".join(f"{name} {layout}" for name, layout in LAYOUTS.items())
    raise DataRejected(
        f"The columns {_listed(columns)} fit none of the known layouts. Rename them to fit one: {known}."
    )


def convert(record: Record, number: int, layout: RowFormat, group_by: str | None) -> Row:
    """One record as a Row. Raises DataRejected with the field that is wrong; `rows_of` adds file and row."""
    if layout == "text":
        text = _content(record, "text", None)
        return Row(number, _group(record, group_by) or _digest(text), text=text)
    messages = tuple(_CONVERSIONS[layout](record))
    _check_conversation(messages)
    return Row(number, _group(record, group_by) or _digest([[m.role, m.content] for m in messages[:-1]]), messages)


def drop_duplicates(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Rows kept and rows dropped; of rows with the same prompt and answer the first is kept."""
    seen: set[tuple[tuple[Message, ...], str | None]] = set()
    kept: list[Row] = []
    dropped: list[Row] = []
    for row in rows:
        key = (row.messages, row.text)
        (dropped if key in seen else kept).append(row)
        seen.add(key)
    return kept, dropped


def _left_out(duplicates: list[Row]) -> list[LeftOut]:
    if not duplicates:
        return []
    examples = [row.number for row in duplicates[:SHOWN_PROBLEMS]]
    return [LeftOut(reason="exact duplicate of an earlier row", rows=len(duplicates), examples=examples)]


def _from_messages(record: Record) -> list[Message]:
    return _turns(record, "messages", "role", "content", _ROLES)


def _from_sharegpt(record: Record) -> list[Message]:
    return _turns(record, "conversations", "from", "value", _SPEAKERS)


def _from_alpaca(record: Record) -> list[Message]:
    instruction = _content(record, "instruction", "user")
    extra = "" if record.get("input") is None else _content(record, "input", "system")
    prompt = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    return [Message("user", prompt), Message("assistant", _content(record, "output", "assistant"))]


def _from_pair(record: Record) -> list[Message]:
    return [*_side(record, _PROMPTS, "user"), *_side(record, _ANSWERS, "assistant")]


def _side(record: Record, names: Sequence[str], role: Role) -> list[Message]:
    """A prompt or a completion: plain text of one role, or a list of messages."""
    # Chosen by presence, not by value: an empty "completion" must not be replaced by what "answer" holds.
    name = next((name for name in names if name in record), names[0])
    value = record.get(name)
    if isinstance(value, list):
        return _turns(record, name, "role", "content", _ROLES)
    return [Message(role, _content(record, name, role))]


_CONVERSIONS: dict[RowFormat, Callable[[Record], list[Message]]] = {
    "messages": _from_messages,
    "sharegpt": _from_sharegpt,
    "alpaca": _from_alpaca,
    "prompt-completion": _from_pair,
}


def _turns(record: Record, field: str, speaker: str, words: str, roles: Mapping[str, Role]) -> list[Message]:
    turns = record.get(field)
    if turns is None:
        raise DataRejected(f'"{field}" is missing')
    if not isinstance(turns, list):
        raise DataRejected(f'"{field}" is {describe(turns)}, not a list')
    if not turns:
        raise DataRejected(f'"{field}" is empty')
    return [_turn(turn, f"turn {at} of {field}", speaker, words, roles) for at, turn in enumerate(turns, start=1)]


def _turn(turn: object, place: str, speaker: str, words: str, roles: Mapping[str, Role]) -> Message:
    if not isinstance(turn, dict):
        raise DataRejected(f"{place} is {describe(turn)}, not an object")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise DataRejected(f"{place} holds a tool call, which cannot be trained on; write it out as content")
    name = turn.get(speaker)
    if name is None:
        raise DataRejected(f'"{speaker}" is missing in {place}')
    if not isinstance(name, str) or name not in roles:
        raise DataRejected(f'{place} has the unknown {speaker} "{name!s:.40}" (known are {", ".join(roles)})')
    return Message(roles[name], _content(turn, words, roles[name], f" in {place}"))


def _content(record: Record, field: str, role: Role | None, place: str = "") -> str:
    """The text of a field. Users and assistants must say something; systems and tools may be silent."""
    value = record.get(field)
    if value is None:
        raise DataRejected(f'"{field}" is missing{place}')
    text = _join_parts(value, f'"{field}"{place}') if isinstance(value, list) else value
    if not isinstance(text, str):
        raise DataRejected(f'"{field}"{place} is {describe(value)}, not text')
    if role not in ("system", "tool") and not text.strip():
        raise DataRejected(f'"{field}"{place} is empty')
    return text


def _join_parts(parts: list[Any], place: str) -> str:
    """Content given as a list of {"type": "text", "text": …}."""
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise DataRejected(f'{place} has a part that is not {{"type": "text", "text": "…"}}; only text can be used')
    return "".join(part["text"] for part in parts)


def _check_conversation(messages: Sequence[Message]) -> None:
    roles = [message.role for message in messages]
    if roles[-1] != "assistant":
        raise DataRejected(f"there is no answer: the last turn is from {roles[-1]}, not from assistant")
    if "user" not in roles:
        raise DataRejected("there is no prompt: no turn is from user")
    if "system" in roles[1:]:
        raise DataRejected(f"turn {roles.index('system', 1) + 1} is from system; only the first turn may be")


def _group(record: Record, group_by: str | None) -> str | None:
    if group_by is None:
        return None
    value = record.get(group_by)
    is_nan = isinstance(value, float) and math.isnan(value)  # how pandas writes a missing value
    if value is None or is_nan or not str(value).strip():
        raise DataRejected(f'the groupBy column "{group_by}" is missing or empty')
    if isinstance(value, dict | list):
        raise DataRejected(f'the groupBy column "{group_by}" is {describe(value)}, not text or a number')
    return str(value)


def _digest(prompt: object) -> str:
    return hashlib.sha256(canonical(prompt).encode()).hexdigest()[:16]


def _listed(columns: Sequence[str]) -> str:
    hidden = len(columns) - _SHOWN_COLUMNS
    return ", ".join(columns[:_SHOWN_COLUMNS]) + (f" and {hidden} more" if hidden > 0 else "")
