"""Values are checked before anything is installed, and refused with a sentence that names the value."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.helm import CHART, HelmError, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
BY_HELM = {"global"}
"""Values that Helm itself hands down."""


def paths(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every value that the schema names, down to what users fill freely."""
    schema = SCHEMA["definitions"][schema["$ref"].split("/")[-1]] if "$ref" in schema else schema
    named = schema.get("properties", {})
    if path:
        yield path
    for name, child in named.items():
        yield from paths(child, f"{path}.{name}".lstrip("."))


def has(values: dict[str, Any], path: str) -> bool:
    first, _, rest = path.partition(".")
    return first in values and (not rest or has(values[first], rest))


def test_every_value_of_the_schema_stands_in_the_values_file() -> None:
    filled_by_users = ("resources.", "affinity.")
    named = [path for path in paths(SCHEMA) if path not in BY_HELM and not path.startswith(filled_by_users)]

    assert [path for path in named if not has(DEFAULTS, path)] == []


def test_an_object_of_the_schema_takes_no_unknown_values() -> None:
    def objects(schema: object) -> Iterator[dict[str, Any]]:
        if isinstance(schema, dict):
            if "properties" in schema and isinstance(schema.get("type"), str):
                yield schema
            for child in schema.values():
                yield from objects(child)

    found = list(objects(SCHEMA))
    assert len(found) > 15
    assert [each for each in found if each.get("additionalProperties") is not False] == []


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        ("replica=3", "Additional property replica is not allowed"),
        ("image.name=x", "image: Additional property name is not allowed"),
        ("replicas=0", "replicas: Must be greater than or equal to 1"),
        ("replicas=two", "replicas: Invalid type. Expected: integer, given: string"),
        ("image.digest=latest", "image.digest: Does not match pattern '^(sha256:[0-9a-f]{64})?$'"),
        ("image.tag=a:b", "image.tag: Does not match pattern"),
        ("image.repository=", "image.repository: Does not match pattern"),
        (
            "image.pullPolicy=Sometimes",
            'image.pullPolicy must be one of the following: "Always", "IfNotPresent", "Never"',
        ),
        ("watchNamespaces=team-a", "watchNamespaces: Invalid type. Expected: array, given: string"),
        ("watchNamespaces={Team_A}", "watchNamespaces.0: Does not match pattern"),
        ("watchNamespaces={a,a}", "watchNamespaces: array items[0,1] must be unique"),
        ("logLevel=debug", 'logLevel must be one of the following: "DEBUG", "INFO", "WARNING", "ERROR"'),
        ("tuning.workers=1000", "tuning.workers: Must be less than or equal to 256"),
        ("tuning.progressSeconds=0", "tuning.progressSeconds: Must be greater than 0"),
        ("trainer.hubEndpoint=hub.example.com", "trainer.hubEndpoint: Does not match pattern '^(https?://[^\\s]+)?$'"),
        ("trainer.env.A=1", "trainer.env.A: Invalid type. Expected: string, given: integer"),
        ("trainer.env.A-B=x", "Does not match pattern '^[A-Za-z_][A-Za-z0-9_]*$'"),
        ("trainer.imagePullSecrets={Not A Name}", "trainer.imagePullSecrets.0: Does not match pattern"),
        ("networkPolicy.apiServer.cidrs={192.0.2.1}", "networkPolicy.apiServer.cidrs.0: Does not match pattern"),
        ("metrics.serviceMonitor.interval=30", "metrics.serviceMonitor.interval: Invalid type"),
        ("podLabels.a=true", "podLabels.a: Invalid type. Expected: string, given: boolean"),
        ("tolerations[0].key=a,tolerations[0].effects=NoSchedule", "tolerations.0: Additional property effects"),
        ("leaderElection=false", "only one operator may act on a job. Set replicas to 1 or leaderElection to true"),
        ("extraEnv[0].name=FINETUNE_WORKERS,extraEnv[0].value=x", "extraEnv: FINETUNE_WORKERS belongs to the chart"),
        ("trainer.env.FINETUNE_JOB=x", "trainer.env: FINETUNE_JOB is reserved"),
        ("networkPolicy.trainer.enabled=true", "list the namespaces in networkPolicy.trainer.namespaces"),
    ],
)
def test_a_wrong_value_is_named(settings: str, want: str) -> None:
    with pytest.raises(HelmError) as caught:
        render("--set", settings)

    assert want in str(caught.value)
