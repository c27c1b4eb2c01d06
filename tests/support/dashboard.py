"""The queries of the Grafana dashboard, as Prometheus takes them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[2] / "charts" / "finetune-operator" / "files" / "dashboard.json"


def read_dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    return dict(json.loads(DASHBOARD.read_text(encoding="utf-8")))


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something."""
    return [panel for panel in read_dashboard()["panels"] if panel["type"] != "row"]


def queries(namespace: str = ".*", job: str = ".*", span: str = "1h", step: str = "5m") -> dict[str, str]:
    """PromQL by panel and letter, for instance `Loss A`, with every variable of the dashboard filled in.

    `namespace` and `job` are regular expressions; `span` is the time shown, `step` what Grafana takes for rates.
    """
    return dict(_filled(namespace, job, span, step))


def _filled(namespace: str, job: str, span: str, step: str) -> Iterator[tuple[str, str]]:
    variables = {"$namespace": namespace, "$job": job, "$__range": span, "$__rate_interval": step}
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in variables.items():
                query = query.replace(name, value)
            yield f"{panel['title']} {target['refId']}", query
