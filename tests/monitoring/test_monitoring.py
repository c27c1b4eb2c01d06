"""Alerts fire when they should and only then; every query of the dashboard finds data; the docs name what there is."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from finetune_operator.telemetry import LiveState, Telemetry
from finetune_trainer.session import Standing
from finetune_trainer.telemetry import make_registry
from support.dashboard import panels, queries, read_dashboard
from support.helm import CHART
from support.promtool import PromtoolError, run_promtool, run_rules

ALERTS = CHART / "files" / "alerts.yaml"
PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text(encoding="utf-8")
RULES = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
RUN = 'namespace="clinic",job="trainers",instance="10.0.0.9:8080",pod="p",job_name="triage",run="3f9a1c2b"'
OPERATOR = 'namespace="finetune-system",job="operator",instance="10.0.0.1:8080",pod="a"'
RUN_LABELS = {"namespace": "clinic", "job": "trainers", "instance": "10.0.0.9:8080", "pod": "p", "job_name": "triage"}
RUN_LABELS |= {"run": "3f9a1c2b"}
OPERATOR_LABELS = {"namespace": "finetune-system", "job": "operator"}


@dataclass(frozen=True)
class Case:
    """Series, each sampled every 30 s, and what fires in the end."""

    alert: str
    series: dict[str, str]
    """Values by series, in promtool's notation: 0+1x10 is 0, 1 … 10."""
    minutes: int
    labels: dict[str, str] | None = None
    """Labels of the one alert that fires, without its severity; None if it stays silent."""


def fires(alert: str, series: dict[str, str], minutes: int, **labels: str) -> Case:
    return Case(alert, series, minutes, labels)


def silent(alert: str, series: dict[str, str], minutes: int) -> Case:
    return Case(alert, series, minutes)


def loss(split: str = "train") -> str:
    return f'finetune_trainer_loss{{{RUN},split="{split}"}}'


def finished(result: str) -> str:
    return f'finetune_runs_finished_total{{{OPERATOR},result="{result}",trigger="Created"}}'


def memory(kind: str) -> str:
    return f'finetune_trainer_gpu_memory_bytes{{{RUN},kind="{kind}"}}'


LEADS = {f"finetune_leader{{{OPERATOR}}}": "1x400"}
AGE = f'finetune_watch_age_seconds{{{OPERATOR},resource="pods"}}'
ERRORS = f'finetune_reconcile_errors_total{{{OPERATOR},kind="ClusterError"}}'
RETRIES = f'finetune_retries_total{{{OPERATOR},reason="OutOfMemory"}}'
WAITING = 'finetune_jobs{namespace="clinic",phase="Queued",pod="a"}'
TRAINS = {f'finetune_trainer_stage{{{RUN},stage="train"}}': "1x400"}
STEP = f"finetune_trainer_step{{{RUN}}}"
CASES = [
    fires("FineTuneNoLeader", {f"finetune_leader{{{OPERATOR}}}": "0x400"}, 5, **OPERATOR_LABELS),
    fires("FineTuneNoLeader", {}, 5),
    silent("FineTuneNoLeader", LEADS, 5),
    silent(
        "FineTuneNoLeader", {**LEADS, 'finetune_leader{namespace="finetune-system",job="operator",pod="b"}': "0x400"}, 5
    ),
    fires("FineTuneWatchStale", {**LEADS, AGE: "100+30x20"}, 5, **OPERATOR_LABELS, resource="pods"),
    silent("FineTuneWatchStale", {**LEADS, AGE: "0 30 60 0 30 60 0 30 60 0 30"}, 5),
    silent("FineTuneWatchStale", {f"finetune_leader{{{OPERATOR}}}": "0x400", AGE: "100+30x20"}, 5),
    fires("FineTuneReconcileErrors", {ERRORS: "0+1x100"}, 30, **OPERATOR_LABELS, kind="ClusterError"),
    silent("FineTuneReconcileErrors", {ERRORS: "0 1 2 2x100"}, 30),
    fires("FineTuneManyRetries", {RETRIES: "0 1 2 3 4 5 6 7 7x100"}, 30, **OPERATOR_LABELS, reason="OutOfMemory"),
    silent("FineTuneManyRetries", {RETRIES: "0 1 2 3 3x100"}, 30),
    fires("FineTuneRunFailed", {finished("Failed"): "0 0 0 1x20"}, 5, **OPERATOR_LABELS),
    fires("FineTuneRunFailed", {finished("Failed"): "_ _ _ 1x20"}, 5, **OPERATOR_LABELS),
    fires("FineTuneRunFailed", {finished("Failed"): "1x60 2x10"}, 32, **OPERATOR_LABELS),
    silent("FineTuneRunFailed", {finished("Failed"): "_ _ _ 1x100"}, 30),
    silent("FineTuneRunFailed", {finished("Succeeded"): "0+1x20", finished("Rejected"): "0+1x20"}, 5),
    fires("FineTuneRunRejected", {finished("Rejected"): "0 0 0 1x20"}, 5, **OPERATOR_LABELS),
    silent("FineTuneRunRejected", {finished("Succeeded"): "0+1x20", finished("Failed"): "0+1x20"}, 5),
    fires("FineTuneJobWaits", {WAITING: "1x400"}, 70, namespace="clinic", phase="Queued"),
    silent("FineTuneJobWaits", {WAITING: "1x100 0x100"}, 70),
    fires("FineTuneLossNotANumber", {loss(): "1 1 NaN NaN NaN"}, 2, **RUN_LABELS, split="train"),
    fires("FineTuneLossNotANumber", {loss(): "1 1 Inf Inf Inf"}, 2, **RUN_LABELS, split="train"),
    silent("FineTuneLossNotANumber", {loss(): "1 1 2 3 4"}, 2),
    fires("FineTuneLossRises", {loss(): "1+0.01x400"}, 120, **RUN_LABELS, split="train"),
    silent("FineTuneLossRises", {loss(): "4-0.01x200 2x200"}, 180),
    silent("FineTuneLossRises", {loss("validation"): "1+0.01x400"}, 120),
    fires("FineTuneTrainerStandsStill", {**TRAINS, STEP: "0+1x20 20x100"}, 45, **RUN_LABELS, stage="train"),
    silent("FineTuneTrainerStandsStill", {**TRAINS, STEP: "0+1x400"}, 45),
    silent(
        "FineTuneTrainerStandsStill", {f'finetune_trainer_stage{{{RUN},stage="train"}}': "0x400", STEP: "7x400"}, 45
    ),
    fires("FineTuneGpuMemoryNearlyFull", {memory("reserved"): "78x60", memory("total"): "80x60"}, 15, **RUN_LABELS),
    silent("FineTuneGpuMemoryNearlyFull", {memory("reserved"): "70x60", memory("total"): "80x60"}, 15),
]


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.alert}-{'fires' if case.labels is not None else 'silent'}"
)
def test_an_alert_fires_when_it_should_and_only_then(case: Case) -> None:
    (severity,) = {rule["labels"]["severity"] for rule in RULES if rule["alert"] == case.alert}
    firing = {"alertname": case.alert, "alertstate": "firing"}
    full = [firing | case.labels | {"severity": severity}] if case.labels is not None else []
    samples = [{"labels": f"ALERTS{selector(labels)}", "value": 1} for labels in full]
    query = {"expr": f"ALERTS{selector(firing)}", "eval_time": f"{case.minutes}m", "exp_samples": samples}

    run_rules([ALERTS], [unit_test(case.series, [query])])


def selector(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def unit_test(series: dict[str, str], queries: list[dict[str, Any]]) -> dict[str, Any]:
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": "30s", "input_series": inputs, "promql_expr_test": queries}


def test_every_alert_is_seen_firing_and_seen_silent() -> None:
    named = {rule["alert"] for rule in RULES}

    assert {case.alert for case in CASES if case.labels is not None} == named
    assert {case.alert for case in CASES if case.labels is None} == named


def test_a_test_of_an_alert_can_fail() -> None:
    with pytest.raises(PromtoolError, match="ALERTS"):
        test_an_alert_fires_when_it_should_and_only_then(fires("FineTuneNoLeader", LEADS, 5, **OPERATOR_LABELS))


def test_promtool_takes_the_alerts() -> None:
    assert f"SUCCESS: {len(RULES)} rules found" in run_promtool("check", "rules", ALERTS)


def test_an_alert_names_what_it_is_about() -> None:
    full = {"alertname": "FineTuneGpuMemoryNearlyFull", "eval_time": "15m", "exp_alerts": [
        {
            "exp_labels": {**RUN_LABELS, "severity": "info"},
            "exp_annotations": {
                "summary": "clinic/triage uses 97.5% of its GPU's memory.",
                "description": "A longer example can end the attempt. Lower spec.training.microBatchTokens; "
                "the result stays the same.",
            },
        }
    ]}  # fmt: skip
    stale = {"alertname": "FineTuneWatchStale", "eval_time": "5m", "exp_alerts": [
        {
            "exp_labels": {**OPERATOR_LABELS, "resource": "pods", "severity": "critical"},
            "exp_annotations": {
                "summary": "The operator has not heard of pods for 6m 40s.",
                "description": "It restarts itself when this lasts. If it comes back, the API server or a proxy "
                "drops watches.",
            },
        }
    ]}  # fmt: skip
    series = {memory("reserved"): "78x60", memory("total"): "80x60", **LEADS, AGE: "100+30x60"}

    run_rules([ALERTS], [unit_test(series, []) | {"alert_rule_test": [full, stale]}])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert f"### {rule['alert']}\n" in PAGE


SHOWN = {
    'finetune_jobs{job="operator",namespace="clinic",phase="Training"}': "1x200",
    'finetune_gpu_seconds_total{job="operator",namespace="clinic"}': "0+30x200",
    finished("Succeeded"): "0+1x200",
    f'finetune_checks_total{{{OPERATOR},result="unchanged"}}': "0+1x200",
    f'finetune_failures_total{{{OPERATOR},reason="OutOfMemory"}}': "0+1x200",
    RETRIES: "0+1x200",
    ERRORS: "0+1x200",
    **LEADS,
    **TRAINS,
    AGE: "0+1x200",
    f"finetune_workqueue_depth{{{OPERATOR}}}": "0x200",
    f'finetune_api_requests_total{{{OPERATOR},verb="list",resource="pods",code="200"}}': "0+1x200",
    **{
        f'{name}_bucket{{{OPERATOR}{labels},le="{bound}"}}': "0+1x200"
        for name, labels in (
            ("finetune_stage_duration_seconds", ',stage="train"'),
            ("finetune_queue_wait_seconds", ""),
            ("finetune_reconcile_duration_seconds", ""),
        )
        for bound in ("1", "+Inf")
    },
    loss("train"): "2x200",
    loss("validation"): "2x200",
    **{memory(kind): "8x200" for kind in ("allocated", "reserved", "total")},
    **{
        f"finetune_trainer_{name}{{{RUN}}}": "1x200"
        for name in ("step", "total_steps", "checkpoint_step", "tokens_per_second", "learning_rate")
    },
}
"""What a Prometheus holds after some runs."""


@pytest.mark.parametrize("name", queries())
def test_every_query_of_the_dashboard_finds_data(name: str) -> None:
    query = queries(namespace="clinic", job="triage")[name]
    found = {"expr": f"count({query}) > bool 0", "eval_time": "90m", "exp_samples": [{"labels": "{}", "value": 1}]}

    run_rules([ALERTS], [unit_test(SHOWN, [found])])


@pytest.mark.parametrize("name", ["Jobs by phase A", "GPU hours A", "Loss A"])
def test_the_dashboard_shows_only_the_chosen_namespace(name: str) -> None:
    elsewhere = {"expr": queries(namespace="other")[name], "eval_time": "90m", "exp_samples": []}

    run_rules([ALERTS], [unit_test(SHOWN, [elsewhere])])


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(taken) == len(set(taken))
    assert len({panel["id"] for panel in read_dashboard()["panels"]}) == len(read_dashboard()["panels"])


def test_every_variable_of_the_dashboard_is_used_and_known() -> None:
    used = set(re.findall(r"\$\{?(\w+)", str(panels())))
    chosen = {variable["name"] for variable in read_dashboard()["templating"]["list"]}

    assert used == chosen | {"__range", "__rate_interval"}
    assert not [query for query in queries().values() if "$" in query]


def documented() -> set[str]:
    """Names in the tables of metrics."""
    return set(re.findall(r"^\| `(finetune_\w+)`", PAGE, re.MULTILINE))


def test_every_metric_of_the_operator_is_documented() -> None:
    telemetry = Telemetry()
    telemetry.show(LiveState(lambda: [("clinic", "Training")], lambda: {"pods": 0.0}, lambda: 0, lambda: True))

    assert {name for name in documented() if not name.startswith("finetune_trainer_")} == names(telemetry.registry)


def test_every_metric_of_a_trainer_is_documented() -> None:
    exported = {name for name in names(make_registry(Standing())) if name.startswith("finetune_")}

    assert {name for name in documented() if name.startswith("finetune_trainer_")} == exported


def names(registry: CollectorRegistry) -> set[str]:
    """Names of metrics as Prometheus knows them."""
    return {f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in registry.collect()}


def test_alerts_and_dashboard_use_only_documented_metrics() -> None:
    used = re.findall(r"finetune_\w+", " ".join([*(rule["expr"] for rule in RULES), *queries().values()]))

    assert {name.removesuffix("_bucket") for name in used} <= documented()


def test_the_scrape_configuration_of_the_docs_is_valid(tmp_path: Path) -> None:
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "scrape_configs" in block]
    path = tmp_path / "prometheus.yaml"
    # Debian builds Prometheus without the discovery of pods.
    found = text.replace("kubernetes_sd_configs: [{role: pod}]", "static_configs: [{targets: [localhost]}]")
    path.write_text(found, encoding="utf-8")

    assert found != text
    assert "SUCCESS" in run_promtool("check", "config", "--syntax-only", path)
