"""Whether plain data has the form that a structural schema describes, as the API server would judge it."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def find_faults(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """Every place where the value differs from the schema. Unknown fields count: the API server drops them."""
    if not isinstance(value, TYPES[schema["type"]]) or isinstance(value, bool) != (schema["type"] == "boolean"):
        return [f"{path} is {value!r}, not {schema['type']}"]
    return [*_of_scalar(value, schema, path), *_of_children(value, schema, path)]


def _of_scalar(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path} is {value!r}, not one of {schema['enum']}"
    if schema.get("format") == "date-time" and datetime.fromisoformat(value).tzinfo is None:
        yield f"{path} is {value!r}, a time without a zone"
    if isinstance(value, list | dict) and len(value) > schema.get("maxItems", len(value)):
        yield f"{path} has {len(value)} entries"


def _of_children(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, entry in enumerate(value):
            yield from find_faults(entry, schema["items"], f"{path}[{index}]")
        keys = schema.get("x-kubernetes-list-map-keys")
        if keys and len({tuple(entry[key] for key in keys) for entry in value}) < len(value):
            yield f"{path} has two entries of one {keys}"
    if isinstance(value, dict):
        yield from (f"{path}.{name} is missing" for name in schema.get("required", []) if name not in value)
        for name, child in value.items():
            known = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            yield from find_faults(child, known, f"{path}.{name}") if known else [f"{path}.{name} is unknown"]
