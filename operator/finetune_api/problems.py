"""From a document to a FineTuneJob, or to sentences: what is wrong, where, and what to write instead."""

import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finetune_api.documents import InvalidManifest, Problem, load_yaml
from finetune_api.job import FineTuneJob
from finetune_api.pods import OPERATORS_OWN, PodTemplateSpec
from finetune_api.schema import (
    PATTERNS,
    READABLE_PATTERN,
    SCHEMES,
    WRITABLE_PATTERN,
    WRITABLE_SCHEMES,
    Model,
    fields_of,
    listed,
    nested_model,
    written,
)

__all__ = ["InvalidManifest", "Problem", "explain", "load_yaml", "parse_job"]

Location = tuple[str | int, ...]


def parse_job(document: object) -> FineTuneJob:
    """The job in a document, judged as the API server judges it. Raises InvalidManifest with every problem found."""
    if not isinstance(document, dict):
        message = f"a FineTuneJob is a mapping with apiVersion, kind, metadata and spec, got {_shown(document)}"
        raise InvalidManifest([Problem("", message)])
    received = {"apiVersion": "", "kind": "", **_as_received(document, FineTuneJob)}
    try:
        return FineTuneJob.model_validate_json(json.dumps(received), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidManifest(explain(error, document)) from error


def explain(error: ValidationError, document: Mapping[str, Any]) -> list[Problem]:
    """Every problem of a document, in the order of the models' fields; of another kind of document, only that.

    The document has been validated by the names that manifests use (camelCase), as parse_job does.
    """
    problems = [_problem(details, document) for details in error.errors()]
    other_kind = any(problem.path == "kind" and problem.suggestion is None for problem in problems)
    return [problem for problem in problems if problem.path in ("apiVersion", "kind")] if other_kind else problems


def _as_received(value: Any, model: type[Model] | None) -> Any:
    """The document after the API server's reading: a known field that is null is left out, 3.0 is 3."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_as_received(entry, model) for entry in value]
    if not isinstance(value, dict):
        return value
    fields = fields_of(model) if model else {}
    return {
        key: _as_received(child, nested_model(fields[key].annotation) if key in fields else None)
        for key, child in value.items()
        if child is not None or key not in fields
    }


def _problem(details: ErrorDetails, document: Mapping[str, Any]) -> Problem:
    location = details["loc"]
    value = _value_at(document, location)
    message, suggestion = _sentences(details, location, value)
    return Problem(_path(location), message, suggestion)


def _path(location: Location) -> str:
    """spec.evaluation.metrics[1]; the models hold no unions, so that every part is a field or an index."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _value_at(document: Any, location: Location) -> Any:
    for part in location:
        if isinstance(document, dict):
            document = document.get(str(part))
        elif isinstance(document, list) and isinstance(part, int):
            document = document[part]
    return document


def _model_at(location: Location) -> type[Model]:
    """The model that the last part of a location is a field of."""
    model: type[Model] = FineTuneJob
    for part in location[:-1]:
        if isinstance(part, str):
            model = nested_model(fields_of(model)[part].annotation) or model
    return model


def _sentences(details: ErrorDetails, location: Location, value: Any) -> tuple[str, str | None]:
    """What is wrong, and what to do where that can be known."""
    context: dict[str, Any] = details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            return "unknown field", _known_field(location)
        case "missing":
            return "required, but missing", _about(location)
        case "literal_error":
            return _not_allowed(re.findall("'([^']+)'", context["expected"]), value)
        case "string_pattern_mismatch":
            return _pattern(context["pattern"], str(value))
        case "value_error":
            return str(context["error"]), None
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal" as bound:
            return f"must be {_BOUNDS[bound]} {written(*context.values())}, got {_shown(value)}", None
        case "string_too_short" | "string_too_long" | "too_short" | "too_long" as size:
            return _size(size, context, value), None
        case kind if kind in _TYPES:
            return f"must be {_TYPES[kind]}, got {_shown(value)}", _retyped(kind, value)
        case _:
            return details["msg"], None


_BOUNDS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)


def _shown(value: Any) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return repr(value if len(value) <= 60 else f"{value[:57]}...")
        case _:
            return written(value)


def _retyped(kind: str, value: Any) -> str | None:
    """How to write the value so that it has the wanted type."""
    match _TYPES[kind], value:
        case "a whole number" | "a number", str() if _NUMBER.fullmatch(value):
            return "Write it without quotes."
        case "true or false", str() if value.lower() in ("true", "false", "yes", "no", "on", "off"):
            return "Write it without quotes."
        case "text", bool() | int() | float():
            return "Put it in quotes."
        case "a list", str() | int() | float():
            return f"Write [{written(value)}]."
    return None


def _size(kind: str, context: Mapping[str, Any], value: Any) -> str:
    unit = "characters" if kind.startswith("string") else "entries"
    if kind.endswith("short"):
        return "must not be empty"
    return f"must have at most {context['max_length']} {unit}, got {len(value)}"


def _not_allowed(allowed: list[str], value: Any) -> tuple[str, str | None]:
    nearest = _nearest(str(value), allowed)
    return f"must be {listed(allowed)}, got {_shown(value)}", f"Did you mean {nearest}?" if nearest else None


def _nearest(word: str, known: list[str]) -> str | None:
    """The known word that was probably meant, whatever its case and dashes."""
    plain = {_plain(name): name for name in known}
    matches = get_close_matches(_plain(word), plain, n=1, cutoff=0.75)
    return plain[matches[0]] if matches else None


def _plain(word: str) -> str:
    return re.sub(r"[-_. ]", "", word).lower()


def _known_field(location: Location) -> str:
    word, siblings = str(location[-1]), list(fields_of(_model_at(location)))
    nearest = _nearest(word, siblings)
    if nearest:
        return f"Did you mean {nearest}?"
    elsewhere = [path for path in _paths(FineTuneJob, "") if _plain(path.rpartition(".")[2]) == _plain(word)]
    nested = [path for path in elsewhere if "." in path]
    if 0 < len(nested) <= 3:
        return f"Did you mean {' or '.join(nested)}?"
    fixed = f"{OPERATORS_OWN}. " if _model_at(location) is PodTemplateSpec else ""
    return f"{fixed}Known fields here: {', '.join(siblings)}."


def _paths(model: type[Model], prefix: str) -> Iterator[str]:
    """Paths of every field that a person may set."""
    for name, field in fields_of(model).items():
        if name != "status":
            yield f"{prefix}{name}"
            nested = nested_model(field.annotation)
            yield from _paths(nested, f"{prefix}{name}.") if nested else ()


def _about(location: Location) -> str:
    """What belongs into a missing field."""
    field = fields_of(_model_at(location))[str(location[-1])]
    nested = nested_model(field.annotation)
    if nested is None:
        return str(field.description)
    required = [name for name, child in fields_of(nested).items() if child.is_required()]
    return f"It takes at least: {', '.join(required)}."


def _pattern(pattern: str, value: str) -> tuple[str, str | None]:
    if pattern in (READABLE_PATTERN, WRITABLE_PATTERN):
        return _uri(SCHEMES if pattern == READABLE_PATTERN else WRITABLE_SCHEMES, value)
    return f"{PATTERNS[pattern]}, got {_shown(value)}", None


def _uri(schemes: tuple[str, ...], value: str) -> tuple[str, str | None]:
    """What is wrong with a value that should be a URI with one of the schemes."""
    known = listed([f"{scheme}://" for scheme in schemes])
    scheme, separator, rest = value.partition("://")
    if separator and scheme in schemes:
        return "must not contain spaces" if rest else f"names nothing after {scheme}://", None
    if separator and scheme in SCHEMES:
        return f"{scheme}:// can be read but not written", f"Use {known}."
    return f"must start with {known}, got {_shown(value)}", _meant_uri(value, schemes)


def _meant_uri(value: str, schemes: tuple[str, ...]) -> str | None:
    """The URI that a misspelt scheme, a bare path or the bare name of a hub repository stands for."""
    misspelt = re.match(rf"({'|'.join(schemes)}):/*", value, re.IGNORECASE)
    if misspelt:
        return f"Did you mean {misspelt[1].lower()}://{value[misspelt.end() :]}?"
    if not value or "://" in value or value.startswith("~"):
        return None
    local = f"file://{value if value.startswith(('/', '.')) else f'./{value}'}"
    if "hf" in schemes and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", value):
        return f"For a hub repository write hf://{value}; for a local path {local}."
    return f"For a local path write {local}."
