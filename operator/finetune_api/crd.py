"""The CustomResourceDefinition of FineTuneJob, made from the models.

Pydantic writes JSON Schema 2020-12; Kubernetes takes "structural" OpenAPI 3.0, where every node has one type and
references, null types, unions, `const` and numeric exclusive bounds do not exist.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from finetune_api.job import GROUP, KIND, VERSION, FineTuneJob
from finetune_api.schema import PATTERNS, written

PLURAL = "finetunejobs"

KEPT = (
    "description",
    "type",
    "format",
    "nullable",
    "enum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "minimum",
    "maximum",
    "required",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)
"""Keywords that mean the same on both sides."""
CONVERTED = (
    "const",
    "pattern",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "uniqueItems",
    "items",
    "prefixItems",
    "properties",
    "additionalProperties",
    "default",
)
DROPPED = ("$defs", "title")

UNSEEN = {"observedGeneration": -1}
"""Status of a job that the operator has not seen yet: without one, kstatus would take it for ready."""
READY_REASON = '.status.conditions[?(@.type=="Ready")].reason'

Schema = dict[str, Any]


def build_crd() -> Schema:
    """The CustomResourceDefinition, as plain data."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["ftj"],
                "categories": ["finetuning"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": served_schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _printer_columns(),
                }
            ],
        },
    }


def served_schema() -> Schema:
    """What the API server is given: it keeps a spec as it was written, and a status as one thing.

    It has no defaults to fill in: a default is the word of whoever reads the job. Written into every object, it could
    no longer be told from a person's choice, and most of an object would be defaults.
    """
    schema = job_schema()
    parts = schema["properties"]
    # One writer owns all of a status. Owned field by field, its list of owners would be longer than the status itself.
    status = parts["status"] | {"x-kubernetes-map-type": "atomic"}
    return schema | {"properties": parts | {"spec": unfilled(parts["spec"]), "status": status}}


def job_schema() -> Schema:
    """Structural schema of a FineTuneJob, with its defaults; its metadata is checked by Kubernetes itself."""
    schema = FineTuneJob.model_json_schema()
    schema["properties"] |= {
        "apiVersion": {"description": f"Always {GROUP}/{VERSION}.", "type": "string"},
        "kind": {"description": f"Always {KIND}.", "type": "string"},
        "metadata": {"type": "object"},
    }
    schema["required"] = ["spec"]
    result = structural(schema)
    result["properties"]["status"]["default"] = UNSEEN
    return result


def structural(schema: Mapping[str, Any]) -> Schema:
    """The structural form of a JSON schema. Raises ValueError on what has no such form or is not known here."""
    return _convert(schema, schema.get("$defs", {}))


def unfilled(schema: Schema) -> Schema:
    """The schema with its defaults told instead of filled in; its rules take them into account."""
    result = {key: value for key, value in schema.items() if key != "default"}
    told = _told_default(schema)
    if told:
        result["description"] = f"{schema['description']} Default: {told}."
    if "x-kubernetes-validations" in schema:
        rules = schema["x-kubernetes-validations"]
        result["x-kubernetes-validations"] = [rule | {"rule": _filling_in(rule["rule"], schema)} for rule in rules]
    if "properties" in schema:
        result["properties"] = {name: unfilled(child) for name, child in schema["properties"].items()}
    return result | {key: unfilled(schema[key]) for key in ("items", "additionalProperties") if key in schema}


def _told_default(schema: Schema) -> str:
    """A default in words; empty if there is nothing to tell. Of an object with fields, its fields tell."""
    default = schema.get("default")
    return "" if default in (None, "", [], {}) or "properties" in schema else written(default)


def _filling_in(rule: str, schema: Schema) -> str:
    """A CEL rule that goes by the default of a field that is left out: `self.a` becomes has(self.a) ? self.a : 1."""
    return re.sub(r"(?<![\w.])(?<!has\()self(\.\w+\b(?!\())+", lambda path: _with_default(path[0], schema), rule)


def _with_default(path: str, schema: Schema) -> str:
    """The field of that path, or its default value if it, or an object around it, is left out."""
    present, place, node = [], "self", schema
    for name in path.split(".")[1:]:
        place, node = f"{place}.{name}", node.get("properties", {}).get(name, {})
        if "default" in node:
            present.append(f"has({place})")
    return f"({' && '.join(present)} ? {path} : {json.dumps(node['default'])})" if "default" in node else path


def _printer_columns() -> list[Schema]:
    """Columns of `kubectl get`, and with priority 1 of `-o wide`; one column shows one field, hence Step and Of."""
    return [
        {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
        {"name": "Step", "type": "integer", "jsonPath": ".status.progress.step"},
        {"name": "Of", "type": "integer", "jsonPath": ".status.progress.totalSteps"},
        {"name": "Verdict", "type": "string", "jsonPath": ".status.evaluation.verdict"},
        {"name": "Adapter", "type": "string", "jsonPath": ".status.current.runId"},
        {"name": "Run", "type": "string", "jsonPath": ".status.run.id", "priority": 1},
        {"name": "Reason", "type": "string", "jsonPath": READY_REASON, "priority": 1},
        {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]


def _convert(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Schema:
    node = _one_type(_resolved(node, defs), defs)
    unknown = node.keys() - {*KEPT, *CONVERTED, *DROPPED}
    if unknown or "type" not in node:
        raise ValueError(
            f"no structural form for {', '.join(sorted(unknown)) or 'a schema without type'}: {dict(node)}"
        )
    result = {key: node[key] for key in KEPT if key in node}
    if "description" in node:
        result["description"] = " ".join(node["description"].split())
    result |= _scalar_keywords(node)
    result |= _children(node, defs)
    if "default" in node:
        result["default"] = _without_nulls(node["default"])
    return result


def _resolved(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Schema:
    """The node with its reference inlined; what stands beside the reference wins."""
    if "$ref" not in node:
        return dict(node)
    target = defs[node["$ref"].removeprefix("#/$defs/")]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _one_type(node: Schema, defs: Mapping[str, Any]) -> Schema:
    """The node without its null alternative; nullable only if null must be written out."""
    if "anyOf" not in node:
        return node
    others = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
    if len(others) != 1 or len(node["anyOf"]) != 2:
        raise ValueError(f"no structural form for a union: {node['anyOf']}")
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    optional = "default" in rest and rest["default"] is None
    null = {} if optional else {"nullable": True}
    if optional:
        del rest["default"]
    return {**_resolved(others[0], defs), **rest, **null}


def _scalar_keywords(node: Schema) -> Schema:
    result: Schema = {}
    if "const" in node:
        result["enum"] = [node["const"]]
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in node:
            result |= {bound.lower(): node[f"exclusive{bound}"], f"exclusive{bound}": True}
    if "pattern" in node:
        result |= _with_rule(node, f"self.matches({json.dumps(node['pattern'])})", PATTERNS[node["pattern"]])
    if node["type"] == "number":
        result |= {"format": "double", **_whole_number_rule(node)}
    if node["type"] == "integer":
        result["format"] = "int32" if node.get("maximum", 2**31) < 2**31 else "int64"
    return result


def _whole_number_rule(node: Schema) -> Schema:
    """A CEL rule for a fractional minimum: the API server cuts the bound when the value is whole, so 0 passes 0.01."""
    minimum = node.get("minimum", 0)
    if float(minimum).is_integer():
        return {}
    return _with_rule(node, f"self >= {minimum}", f"must be at least {minimum}")


def _with_rule(node: Schema, rule: str, message: str) -> Schema:
    """The node's CEL rules and one more. A rule has a message for people; a pattern only shows itself."""
    return {"x-kubernetes-validations": [*node.get("x-kubernetes-validations", []), {"rule": rule, "message": message}]}


def _children(node: Schema, defs: Mapping[str, Any]) -> Schema:
    result: Schema = {}
    if "properties" in node:
        result["properties"] = {name: _convert(child, defs) for name, child in node["properties"].items()}
    match node.get("additionalProperties", False):
        case dict() as values:
            result["additionalProperties"] = _convert(values, defs)
        case True:
            raise ValueError(f"no structural form for an object with any further fields: {node}")
    if "items" in node or "prefixItems" in node:
        result["items"] = _convert(_entry(node), defs)
    if node.get("uniqueItems"):
        result["x-kubernetes-list-type"] = "set"
    return result


def _entry(node: Schema) -> Schema:
    """The one schema that all entries of a list or tuple share."""
    first, *others = node.get("prefixItems", [node.get("items")])
    if any(other != first for other in others):
        raise ValueError(f"no structural form for a tuple of different types: {node}")
    return dict(first)


def _without_nulls(default: Any) -> Any:
    """A default as Kubernetes takes it: complete, for CEL rules judge it before the defaults of its fields apply."""
    if not isinstance(default, dict):
        return default
    return {name: _without_nulls(value) for name, value in default.items() if value is not None}
