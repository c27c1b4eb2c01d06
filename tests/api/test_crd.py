"""The CRD is structural, complete, and says the same as the models.

Whether the CEL rules hold is for an API server to judge; here they are only compared with the models' own sentences.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.crd import build_crd, job_schema, served_schema, structural, unfilled
from finetune_api.documents import load_yaml
from finetune_api.methods import PARTS
from finetune_api.pods import (
    KEY_PATTERN,
    LABEL_PATTERN,
    RESERVED_ANNOTATIONS,
    RESERVED_LABELS,
    RESERVED_VARIABLES,
)
from finetune_api.problems import InvalidManifest, parse_job
from finetune_api.schema import PATTERNS
from support.manifests import make_manifest

ROOT = Path(__file__).parents[2]
TEXT = {"type": "string"}

FORBIDDEN = {
    "$ref",
    "$defs",
    "definitions",
    "const",
    "title",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "prefixItems",
    "uniqueItems",
    "patternProperties",
    "dependencies",
    "deprecated",
    "id",
    "readOnly",
    "writeOnly",
    "examples",
}
"""Keywords that the Kubernetes documentation forbids in a structural schema, or that OpenAPI 3.0 does not have."""


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a structural schema with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def unlike(subject: str, prefixes: tuple[str, ...]) -> str:
    return " && ".join(f"!{subject}.startsWith('{prefix}')" for prefix in prefixes)


def node(path: str) -> dict[str, Any]:
    return dict(nodes(job_schema()))[path]


def served(path: str) -> dict[str, Any]:
    return dict(nodes(served_schema()))[path]


@pytest.mark.parametrize(
    ("schema", "want"),
    [
        (TEXT, TEXT),
        ({"type": "string", "title": "Name", "description": "A name."}, {"type": "string", "description": "A name."}),
        ({"type": "string", "const": "lora"}, {"type": "string", "enum": ["lora"]}),
        ({"type": "string", "minLength": 1, "maxLength": 9}, {"type": "string", "minLength": 1, "maxLength": 9}),
        ({"type": "number"}, {"type": "number", "format": "double"}),
        ({"type": "integer"}, {"type": "integer", "format": "int64"}),
        ({"type": "integer", "maximum": 9}, {"type": "integer", "maximum": 9, "format": "int32"}),
        ({"type": "integer", "maximum": 2**31}, {"type": "integer", "maximum": 2**31, "format": "int64"}),
        (
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            {
                "type": "number",
                "format": "double",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 1,
                "exclusiveMaximum": True,
            },
        ),
        (
            {"type": "number", "minimum": 0.01},
            {
                "type": "number",
                "format": "double",
                "minimum": 0.01,
                "x-kubernetes-validations": [{"rule": "self >= 0.01", "message": "must be at least 0.01"}],
            },
        ),
        ({"anyOf": [TEXT, {"type": "null"}], "default": None}, TEXT),
        ({"anyOf": [TEXT, {"type": "null"}]}, {"type": "string", "nullable": True}),
        ({"anyOf": [TEXT, {"type": "null"}], "default": "a"}, {"type": "string", "nullable": True, "default": "a"}),
        (
            {"type": "array", "prefixItems": [TEXT, TEXT], "minItems": 2, "maxItems": 2},
            {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2},
        ),
        (
            {"type": "array", "items": {"type": "string", "title": "T"}, "uniqueItems": True},
            {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
        ),
        (
            {"type": "object", "properties": {"a": TEXT}, "additionalProperties": False},
            {"type": "object", "properties": {"a": TEXT}},
        ),
        ({"type": "object", "additionalProperties": TEXT}, {"type": "object", "additionalProperties": TEXT}),
        (
            {
                "$defs": {"A": TEXT},
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/A", "description": "An a."}},
            },
            {"type": "object", "properties": {"a": {"type": "string", "description": "An a."}}},
        ),
        (
            {"$defs": {"A": TEXT}, "anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}], "default": None},
            TEXT,
        ),
        (
            {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "default": {"a": "x", "b": None}},
            {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "default": {"a": "x"}},
        ),
    ],
)
def test_each_keyword_takes_its_structural_form(schema: dict[str, Any], want: dict[str, Any]) -> None:
    assert structural(schema) == want


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [TEXT, {"type": "array", "items": TEXT}]},
        {"anyOf": [TEXT, {"type": "integer"}, {"type": "null"}]},
        {"oneOf": [TEXT]},
        {"type": "integer", "multipleOf": 2},
        {"type": "object", "patternProperties": {"a": TEXT}},
        {"type": "object", "additionalProperties": True},
        {"type": "array", "prefixItems": [TEXT, {"type": "integer"}]},
        {"description": "anything"},
        {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 2}}},
    ],
)
def test_what_has_no_structural_form_is_an_error(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no structural form"):
        structural(schema)


def test_a_schema_is_left_as_it_was() -> None:
    schema = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    structural(schema)

    assert schema == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}


def test_every_node_of_the_crd_is_structural() -> None:
    for path, schema in nodes(job_schema()):
        assert schema["type"] in ("object", "array", "string", "integer", "number", "boolean"), path
        assert not FORBIDDEN & schema.keys(), path
        assert not ("properties" in schema and "additionalProperties" in schema), path
        assert schema["type"] != "array" or "items" in schema, path
        assert set(schema.get("required", [])) <= set(schema.get("properties", {})), path
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            assert schema.get(bound, True) is True, path


def test_every_field_is_described() -> None:
    bare = [
        path for path, schema in nodes(job_schema()) if "description" not in schema and not path.endswith(("[]", "{}"))
    ]

    assert bare == [".metadata"]


def test_the_resource_is_named_and_served() -> None:
    crd = build_crd()
    (version,) = crd["spec"]["versions"]

    assert crd["metadata"]["name"] == "finetunejobs.finetuning.dev"
    assert crd["spec"]["scope"] == "Namespaced"
    assert crd["spec"]["names"]["shortNames"] == ["ftj"]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert version["subresources"] == {"status": {}}


def test_every_printed_column_shows_a_field_that_exists() -> None:
    (version,) = build_crd()["spec"]["versions"]
    known = dict(nodes(job_schema()))
    columns = {column["name"]: column for column in version["additionalPrinterColumns"]}

    assert [name for name, column in columns.items() if "priority" not in column] == [
        "Phase",
        "Step",
        "Of",
        "Verdict",
        "Adapter",
        "Age",
    ]
    for name, column in columns.items():
        if name != "Age":
            assert known[column["jsonPath"].replace('[?(@.type=="Ready")]', "[]")]["type"] == column["type"]


def test_metadata_is_left_to_kubernetes() -> None:
    assert node(".metadata") == {"type": "object"}


def test_only_what_has_no_default_is_required() -> None:
    required = {path: schema["required"] for path, schema in nodes(job_schema()) if "required" in schema}

    assert {path: fields for path, fields in required.items() if not path.startswith(".status")} == {
        "": ["spec"],
        ".spec": ["model", "dataset", "output"],
        ".spec.model": ["uri"],
        ".spec.model.secretRef": ["name"],
        ".spec.dataset": ["uri"],
        ".spec.dataset.secretRef": ["name"],
        ".spec.output": ["uri"],
        ".spec.output.secretRef": ["name"],
        ".spec.podTemplate.env[]": ["name"],
        ".spec.podTemplate.imagePullSecrets[]": ["name"],
    }


def test_the_defaults_are_those_of_the_models() -> None:
    spec = parse_job(make_manifest()).spec.model_dump(mode="json", by_alias=True, exclude_none=True)

    for name in ("method", "training", "evaluation", "resources", "podTemplate", "retrain"):
        assert node(f".spec.{name}")["default"] == spec[name]
    assert node(".spec.dataset.split")["default"] == spec["dataset"]["split"]
    assert node(".spec.training.batchSize")["default"] == 8
    assert "default" not in node(".spec.training.maxEpochs")
    assert "default" not in node(".spec.dataset.format")
    assert "default" not in node(".spec.retrain.schedule")
    assert "default" not in node(".spec.output.secretRef")


@pytest.mark.parametrize(
    "field", [".training.learningRate", ".training.microBatchTokens", ".method.quantization", ".method.lora"]
)
def test_what_depends_on_the_method_or_the_machine_is_not_written_out(field: str) -> None:
    # A default written out by the API server would stay when the method changes.
    assert "default" not in node(f".spec{field}")


def test_no_default_is_written_into_a_spec_but_each_is_told() -> None:
    told = dict(nodes(served_schema()["properties"]["spec"], ".spec"))

    for path, schema in nodes(job_schema()["properties"]["spec"], ".spec"):
        assert "default" not in told[path], path
        worth_telling = "properties" not in schema and schema.get("default") not in (None, "", [], {})
        assert (told[path].get("description") != schema.get("description")) == worth_telling, path
    assert told[".spec.dataset.split.test"]["description"].endswith(" after training. Default: 0.15.")
    assert told[".spec.evaluation.metrics"]["description"].endswith(" Default: exactMatch, tokenF1, perplexity.")
    assert told[".spec.suspend"]["description"].endswith(" Default: false.")
    assert told[".spec.training.earlyStopping.minDelta"]["description"].endswith(" Default: 0.")


def test_what_is_served_differs_in_nothing_else() -> None:
    changing = {"default", "description", "x-kubernetes-validations", "x-kubernetes-map-type", "properties", "items"}
    asked = dict(nodes(job_schema()))

    for path, schema in nodes(served_schema()):
        assert {name: value for name, value in schema.items() if name not in changing} == {
            name: value for name, value in asked[path].items() if name not in changing
        }, path
    assert served(".status.history")["default"] == []


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        (
            ".spec.dataset.split",
            "(has(self.test) ? self.test : 0.15) + (has(self.validation) ? self.validation : 0.1) <= 0.8",
        ),
        (".spec.training", "!has(self.maxEpochs) || self.maxEpochs >= (has(self.epochs) ? self.epochs : 3)"),
        (
            ".spec.evaluation",
            '(has(self.primaryMetric) ? self.primaryMetric : "tokenF1") in '
            '(has(self.metrics) ? self.metrics : ["exactMatch", "tokenF1", "perplexity"])',
        ),
        (
            ".spec.podTemplate.tolerations[]",
            "has(self.key) || (has(self.operator) ? self.operator : \"Equal\") == 'Exists'",
        ),
        ("", "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')"),
    ],
)
def test_a_rule_goes_by_the_default_of_what_is_left_out(path: str, rule: str) -> None:
    assert rule in [each["rule"] for each in served(path)["x-kubernetes-validations"]]


def test_a_rule_reaches_into_an_object_that_is_left_out() -> None:
    inner = {"type": "object", "properties": {"init": TEXT | {"description": "Start.", "default": "a"}, "free": TEXT}}
    rule = "self.lora.init == 'b' || self.lora.free == 'c' || has(self.lora.init) || !has(self.lora)"

    def filled(**default: Any) -> str:
        schema = {"type": "object", "properties": {"lora": inner | default}}
        (only,) = unfilled(schema | {"x-kubernetes-validations": [{"rule": rule}]})["x-kubernetes-validations"]
        return str(only["rule"])

    rest = " == 'b' || self.lora.free == 'c' || has(self.lora.init) || !has(self.lora)"
    assert filled() == f'(has(self.lora.init) ? self.lora.init : "a"){rest}'
    assert filled(default={}) == f'(has(self.lora) && has(self.lora.init) ? self.lora.init : "a"){rest}'


def test_a_status_has_one_owner_and_its_conditions_are_each_there_once() -> None:
    assert served(".status")["x-kubernetes-map-type"] == "atomic"
    assert served(".status.conditions")["x-kubernetes-list-map-keys"] == ["type"]


def test_a_job_that_the_operator_has_not_seen_is_not_taken_for_ready() -> None:
    # kstatus compares it with metadata.generation, and takes a job without status for current.
    assert served(".status")["default"] == {"observedGeneration": -1}


def test_no_default_is_null_anywhere() -> None:
    assert "null" not in repr(job_schema())
    assert "None" not in repr(job_schema())


@pytest.mark.parametrize(
    ("path", "rule", "breach"),
    [
        (
            ".spec.dataset.split",
            "self.test + self.validation <= 0.8",
            {"dataset": {"uri": "s3://a", "split": {"test": 0.5, "validation": 0.4}}},
        ),
        (
            ".spec.training",
            "!has(self.maxEpochs) || self.maxEpochs >= self.epochs",
            {"training": {"epochs": 6, "maxEpochs": 5}},
        ),
        (".spec.evaluation", "self.primaryMetric in self.metrics", {"evaluation": {"metrics": ["exactMatch"]}}),
        (
            ".spec.method.lora.targetModules",
            "!('all-linear' in self) || size(self) == 1",
            {"method": {"lora": {"targetModules": ["all-linear", "q_proj"]}}},
        ),
        (
            ".spec.method",
            "self.type != 'full' || !has(self.quantization) || self.quantization == 'none'",
            {"method": {"type": "full", "quantization": "nf4"}},
        ),
        *[
            (
                ".spec.method",
                f"self.type == '{part}' || !has(self.{part})",
                {"method": {"type": "full", part: {}}},
            )
            for part in PARTS
        ],
        (
            ".spec.method",
            "!has(self.lora) || !(self.lora.init in ['orthogonal', 'pissa', 'olora']) || "
            "(has(self.quantization) && self.quantization == 'none')",
            {"method": {"lora": {"init": "pissa"}}},
        ),
        (".spec.dataset.split.test", "self >= 0.01", {"dataset": {"uri": "s3://a", "split": {"test": 0}}}),
        (
            ".spec.podTemplate.labels",
            f"self.all(key, key.matches('{KEY_PATTERN}'))",
            {"podTemplate": {"labels": {"my team": "a"}}},
        ),
        (
            ".spec.podTemplate.nodeSelector",
            f"self.all(key, self[key].matches('{LABEL_PATTERN}'))",
            {"podTemplate": {"nodeSelector": {"zone": "eu west"}}},
        ),
        *[
            (
                ".spec.podTemplate.labels",
                f"self.all(key, {unlike('key', RESERVED_LABELS)})",
                {"podTemplate": {"labels": {f"{prefix}x": "a"}}},
            )
            for prefix in RESERVED_LABELS
        ],
        *[
            (
                ".spec.podTemplate.annotations",
                f"self.all(key, {unlike('key', RESERVED_ANNOTATIONS)})",
                {"podTemplate": {"annotations": {f"{prefix}x": "a"}}},
            )
            for prefix in RESERVED_ANNOTATIONS
        ],
        *[
            (
                ".spec.podTemplate.env[].name",
                unlike("self", RESERVED_VARIABLES),
                {"podTemplate": {"env": [{"name": f"{prefix}X"}]}},
            )
            for prefix in RESERVED_VARIABLES
        ],
        (
            ".spec.podTemplate.tolerations[]",
            "has(self.key) || self.operator == 'Exists'",
            {"podTemplate": {"tolerations": [{"effect": "NoSchedule"}]}},
        ),
        (
            ".spec.podTemplate.tolerations[]",
            "self.operator == 'Equal' || !has(self.value)",
            {"podTemplate": {"tolerations": [{"key": "gpu", "operator": "Exists", "value": "a100"}]}},
        ),
        (
            ".spec.podTemplate.tolerations[]",
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            {"podTemplate": {"tolerations": [{"key": "gpu", "tolerationSeconds": 5}]}},
        ),
    ],
)
def test_a_rule_speaks_the_same_sentence_as_the_models(path: str, rule: str, breach: dict[str, Any]) -> None:
    messages = {each["rule"]: each["message"] for each in node(path)["x-kubernetes-validations"]}
    with pytest.raises(InvalidManifest) as caught:
        parse_job(make_manifest(**breach))

    (problem,) = caught.value.problems
    assert problem.path.replace("[0]", "[]") == path.removeprefix(".")
    assert problem.message.startswith(messages[rule])


def test_every_rule_of_the_spec_has_a_sentence_and_stands_once() -> None:
    for path, schema in nodes(job_schema()):
        rules = [rule["rule"] for rule in schema.get("x-kubernetes-validations", [])]
        messages = [rule["message"] for rule in schema.get("x-kubernetes-validations", [])]
        assert len(set(rules)) == len(rules), path
        assert all(messages), path
        assert not any(message.endswith(".") for message in messages), path


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_becomes_a_rule_with_a_sentence_for_people(pattern: str) -> None:
    schema = structural({"type": "string", "maxLength": 9, "pattern": pattern})

    assert "pattern" not in schema
    (rule,) = schema["x-kubernetes-validations"]
    assert rule == {"rule": f"self.matches({json.dumps(pattern)})", "message": PATTERNS[pattern]}


def test_a_pattern_without_a_sentence_is_an_error() -> None:
    with pytest.raises(KeyError):
        structural({"type": "string", "pattern": "^[a-z]$"})


def test_a_pattern_does_not_displace_the_other_rules_of_a_field() -> None:
    rules = {rule["rule"].partition("(")[0] for rule in node(".spec.output.uri")["x-kubernetes-validations"]}

    assert rules == {"self == oldSelf", "self.matches"}


def test_a_pod_may_not_be_told_its_image_command_volumes_or_security_context() -> None:
    assert set(node(".spec.podTemplate")["properties"]) == {
        "labels",
        "annotations",
        "nodeSelector",
        "tolerations",
        "env",
        "serviceAccountName",
        "imagePullSecrets",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
    }


def test_conditions_are_merged_by_their_type() -> None:
    conditions = node(".status.conditions")

    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert "type" in conditions["items"]["required"]


def test_a_description_is_one_line() -> None:
    for path, schema in nodes(job_schema()):
        assert "\n" not in schema.get("description", ""), path
        assert "  " not in schema.get("description", ""), path


def test_the_output_of_a_job_cannot_be_moved() -> None:
    (rule,) = [rule for rule in node(".spec.output.uri")["x-kubernetes-validations"] if "oldSelf" in rule["rule"]]

    assert rule["rule"] == "self == oldSelf"
    assert rule["message"].startswith("output.uri cannot be changed: earlier adapters of this job would be left behind")


def test_a_job_has_a_name_that_fits_a_label() -> None:
    (rule,) = job_schema()["x-kubernetes-validations"]

    assert rule["rule"] == "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')"
    assert rule["message"].startswith("metadata.name must be at most 63 lowercase letters, digits and dashes")


def test_text_and_lists_that_people_write_are_bounded_so_that_rules_stay_cheap() -> None:
    for path, schema in nodes(job_schema()["properties"]["spec"], ".spec"):
        if schema["type"] == "string" and "enum" not in schema:
            assert "maxLength" in schema, path
        if schema["type"] == "array":
            assert "maxItems" in schema, path


def test_the_committed_manifest_is_what_the_models_say() -> None:
    text = (ROOT / "manifests/crd/finetunejobs.finetuning.dev.yaml").read_text(encoding="utf-8")

    assert text.startswith("# Made from operator/finetune_api by `make generate`; do not edit.\n")
    assert load_yaml(text) == build_crd()
