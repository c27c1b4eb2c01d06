"""Reference documentation of FineTuneJob in Markdown, made from the models."""

from collections.abc import Iterator

from pydantic.fields import FieldInfo

from finetune_api.crd import Schema, job_schema
from finetune_api.job import API_VERSION, KIND, FineTuneJob, FineTuneJobSpec, Metadata
from finetune_api.run import ExitCode
from finetune_api.schema import Model, fields_of, nested_model, written
from finetune_api.settings import source_of
from finetune_api.status import FineTuneJobStatus

TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
}
ENDINGS = {
    ExitCode.DONE: ("The run is complete and published.", "Nothing. Read the verdict."),
    ExitCode.INVALID_CONFIG: ("The settings contradict each other or what was found.", "Change the manifest."),
    ExitCode.DATA_REJECTED: ("The dataset cannot be trained on.", "Mend the rows that the message names."),
    ExitCode.DIVERGED: ("The loss is no longer a number.", "Lower the learning rate or look at the data."),
    ExitCode.OUT_OF_MEMORY: (
        "A forward or backward pass did not fit the device.",
        "Run again with fewer `microBatchTokens`; the result stays the same.",
    ),
    ExitCode.STORAGE: ("Reading or writing a store failed after retries.", "Run again once the store answers."),
    ExitCode.MODEL_NOT_LOADABLE: ("The base model is missing, damaged or not supported.", "Change `spec.model`."),
    ExitCode.STOPPED: ("A signal stopped the run after it had saved.", "Run again; it goes on from there."),
}
"""What each exit code of the trainer means, and what to do next."""


NONE = "none"
HEADER = ["Field", "Type", "Allowed", "Default", "Default from", "Meaning"]


def build_reference() -> str:
    """The whole page."""
    schema = job_schema()
    sections = [
        f"# {KIND}",
        f"`apiVersion: {API_VERSION}`, `kind: {KIND}`. {FineTuneJob.__doc__}",
        "A field of `spec` that is not listed here is refused. Fields that are not required may be left out.",
        *_section("metadata", Metadata, Metadata.model_json_schema()),
        *_rules(schema),
        *_section("spec", FineTuneJobSpec, schema["properties"]["spec"]),
        *_section("status", FineTuneJobStatus, schema["properties"]["status"]),
        "## Exit codes",
        "How a trainer process ends.",
        _table(["Code", "Name", "Meaning", "What to do"], _exit_rows()),
    ]
    return "\n\n".join(sections) + "\n"


def _section(path: str, model: type[Model], schema: Schema) -> Iterator[str]:
    """Heading, description, table and rules of an object, then the same of the objects in it."""
    yield f"{'###' if '.' in path else '##'} {path}"
    yield _text(str(model.__doc__))
    yield _table(HEADER, [_row(path, name, field, schema) for name, field in fields_of(model).items()])
    yield from _rules(schema)
    for name, field in fields_of(model).items():
        nested, child = nested_model(field.annotation), schema["properties"][name]
        if nested:
            yield from _section(_child_path(path, name, child), nested, child.get("items", child))


def _row(path: str, name: str, field: FieldInfo, parent: Schema) -> list[str]:
    schema = parent["properties"][name]
    meaning, _, unset = _text(field.description or schema["description"]).partition(" Default: ")
    if nested_model(field.annotation):
        target = _child_path(path, name, schema)
        meaning = f"{meaning} See [{target}](#{_anchor(target)})."
    start = [f"`{name}`", _type(schema), _allowed(schema)]
    if path.startswith("status"):
        return [*start, "", "", meaning]
    if field.is_required():
        return [*start, "required", "", meaning]
    default = unset.rstrip(".") or _default(schema)
    origin = "" if default == NONE else source_of(field).removeprefix("default: ")
    return [*start, default, origin, meaning]


def _default(schema: Schema) -> str:
    """The value that takes effect; of an object with fields, their rows tell."""
    if "properties" in schema and "default" in schema:
        return ""
    value = schema.get("default")
    return f"`{written(value)}`" if value not in (None, "", [], {}) else NONE


def _child_path(path: str, name: str, schema: Schema) -> str:
    return f"{path}.{name}{'[]' if schema['type'] == 'array' else ''}"


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return "".join(letter for letter in heading.lower() if letter.isalnum())


def _text(plain: str) -> str:
    """Plain text in one line that Markdown shows as it is, also in a table."""
    return " ".join(plain.split()).replace("<", "&lt;").replace("|", "\\|")


def _type(schema: Schema) -> str:
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"mapping to {_type(schema['additionalProperties'])}"
    return "time" if schema.get("format") == "date-time" else TYPES[schema["type"]]


def _allowed(schema: Schema) -> str:
    """Bounds in words: 1 to 512; more than 0, at most 1; at most 1024 characters; the values of an enum."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "maxItems" in schema:
        entries = f"{_span(schema.get('minItems', 0), schema['maxItems'])} entries"
        return ": ".join(part for part in (entries, _allowed(schema["items"])) if part)
    if "maxProperties" in schema:
        return f"{_span(0, schema['maxProperties'])} entries"
    if "maxLength" in schema:
        return f"{_span(schema.get('minLength', 0), schema['maxLength'])} characters"
    return _range(schema) if "minimum" in schema else ""


def _span(low: int, high: int) -> str:
    if low == high:
        return str(low)
    return f"{low} to {high}" if low else f"at most {high}"


def _range(schema: Schema) -> str:
    low, high = written(schema["minimum"]), written(schema["maximum"])
    if schema.get("exclusiveMinimum"):
        return f"more than {low}, at most {high}"
    return f"{low} to less than {high}" if schema.get("exclusiveMaximum") else f"{low} to {high}"


def _rules(schema: Schema) -> Iterator[str]:
    """Rules that the API server checks on an object and its fields, without those that repeat a number's bounds."""
    for rule in _messages(schema):
        yield f"Rule: {rule}."
    fields: dict[str, list[str]] = {}
    for name, field in schema["properties"].items():
        for rule in _messages(field) if "properties" not in field and field["type"] != "number" else ():
            fields.setdefault(rule, []).append(f"`{name}`")
    for rule, names in fields.items():
        yield f"Rule for {', '.join(names)}: {rule}."


def _messages(schema: Schema) -> list[str]:
    return [_text(rule["message"]) for rule in schema.get("x-kubernetes-validations", [])]


def _exit_rows() -> list[list[str]]:
    return [[str(code.value), f"`{code.name}`", *ENDINGS[code]] for code in ExitCode]


def _table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; columns that are empty throughout are left out."""
    kept = [index for index in range(len(header)) if any(row[index] for row in rows)]
    lines = [[line[index] for index in kept] for line in (header, ["---"] * len(header), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
