"""What the chart installs, for each set of values. `UPDATE_GOLDEN=1` writes the golden files anew."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.binaries import find_binary
from finetune_api.contract import JOB_LABEL, MANAGED_BY_LABEL, MANAGER, RUN_LABEL, TRAINER_PORT
from finetune_api.crd import build_crd
from finetune_api.documents import dump_yaml, load_yaml
from finetune_operator.permissions import PERMISSIONS
from finetune_operator.rbac import SCOPES, rules_of
from finetune_operator.settings import PREFIX, Settings, read_settings
from support.helm import CHART, VALUES, Manifest, identity, pick, render, run_helm

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in VALUES.glob("*.yaml"))
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace"}


def rendered(name: str, *arguments: str | Path) -> list[Manifest]:
    return render("--values", VALUES / f"{name}.yaml", *arguments)


def container(manifests: list[Manifest]) -> dict[str, Any]:
    (only,) = pick(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(only)


def environment(manifests: list[Manifest]) -> dict[str, str]:
    """Variables of the operator; what Kubernetes fills in stands as the path of the field."""
    return {
        entry["name"]: entry["value"] if "value" in entry else entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in container(manifests)["env"]
    }


def without_copies(manifest: Manifest) -> Manifest:
    """An object without the dashboard, of which golden files need no copy."""
    return manifest | {"data": "files/dashboard.json"} if manifest["kind"] == "ConfigMap" else manifest


def kustomize(folder: Path) -> dict[tuple[str, str, str], Manifest]:
    """What `kubectl apply --kustomize` would apply."""
    command = [str(find_binary("kubectl")), "kustomize", str(folder)]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    # kustomize writes 2e-05, which PyYAML alone takes for text.
    documents = [load_yaml(part) for part in text.split("\n---\n")]
    return {identity(document): document for document in documents if isinstance(document, dict)}


@pytest.mark.parametrize("name", NAMES)
def test_the_objects_are_those_of_the_golden_file(name: str) -> None:
    objects = [without_copies(m) for m in rendered(name) if m["kind"] != "CustomResourceDefinition"]
    text = "---\n".join(dump_yaml(manifest) for manifest in objects)
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")

    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_chart_has_nothing_to_complain_about(name: str) -> None:
    assert "0 chart(s) failed" in run_helm("lint", "--strict", CHART, "--values", VALUES / f"{name}.yaml")


def test_the_chart_has_the_version_of_the_package() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))

    assert (chart["version"], chart["appVersion"]) == (package, package)


def test_the_crd_is_the_generated_one_and_outlives_the_chart() -> None:
    want = build_crd()
    want["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}

    assert pick(rendered("default"), "CustomResourceDefinition") == want
    assert not [m for m in rendered("air-gapped") if m["kind"] == "CustomResourceDefinition"]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_the_operator_is_given_and_valid(name: str) -> None:
    variables = environment(rendered(name))
    known = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    ports = {f"{PREFIX}METRICS_PORT", f"{PREFIX}HEALTH_PORT"}

    settings = read_settings(variables)
    assert {variable for variable in variables if variable.startswith(PREFIX)} <= known - ports
    assert settings.namespace == "metadata.namespace"
    assert settings.pod_name == "metadata.name"
    assert {port["name"]: port["containerPort"] for port in container(rendered(name))["ports"]} == {
        "metrics": settings.metrics_port,
        "health": settings.health_port,
    }


def test_the_default_values_are_the_defaults_of_the_operator() -> None:
    given = read_settings(environment(rendered("default")))
    own = Settings(trainer_image=given.trainer_image, namespace=given.namespace, pod_name=given.pod_name)

    assert given == own


def test_every_value_reaches_the_operator() -> None:
    settings = read_settings(environment(rendered("everything")))

    assert settings == Settings(
        trainer_image="registry.example.com/mirror/finetune/trainer:1.2.3",
        image_pull_policy="Always",
        image_pull_secrets=("pull-trainer", "pull-mirror"),
        trainer_env={
            "AWS_ENDPOINT_URL": "https://s3.example.com",
            "HF_ENDPOINT": "https://hub.example.com",
            "HTTP_PROXY": "http://proxy.example.com:3128",
            "HTTPS_PROXY": "http://proxy.example.com:3128",
            "NO_PROXY": "localhost,127.0.0.1,.svc,.cluster.local,10.0.0.0/8",
            "QUOTES": 'it\'s "quoted" & <odd>',
        },
        trainer_ca_config_map="trainer-ca",
        namespace="metadata.namespace",
        lease_name="tuner",
        pod_name="metadata.name",
        workers=32,
        progress_seconds=2.5,
        retry_base_seconds=30,
        watch_stale_seconds=90,
        log_level="DEBUG",
    )


def test_watched_namespaces_and_leader_election_reach_the_operator() -> None:
    namespaced = read_settings(environment(rendered("namespaced", "--set", "leaderElection=false")))

    assert namespaced.watch_namespaces == ("team-a", "team-b")
    assert namespaced.leader_election is False


def test_what_a_user_sets_for_the_trainers_wins_over_what_the_chart_makes() -> None:
    objects = rendered("air-gapped", "--set", "trainer.env.HF_ENDPOINT=https://other.example.com")

    assert read_settings(environment(objects)).trainer_env["HF_ENDPOINT"] == "https://other.example.com"


def test_a_proxy_is_for_the_trainers_and_never_for_what_is_in_the_cluster() -> None:
    variables = environment(rendered("everything"))

    assert read_settings(variables).trainer_env["NO_PROXY"] == "localhost,127.0.0.1,.svc,.cluster.local,10.0.0.0/8"
    assert "NO_PROXY" not in variables
    assert "NO_PROXY" not in read_settings(environment(rendered("default"))).trainer_env


def test_a_digest_wins_over_a_tag() -> None:
    objects = rendered("air-gapped", "--set", "image.tag=1.2.3")

    assert container(objects)["image"] == f"registry.example.com/finetune-operator@sha256:{'1':0>64}"


def test_an_installation_for_some_namespaces_holds_no_rights_beyond_them() -> None:
    objects = rendered("namespaced")
    places = {identity(m)[1] for m in objects if m["kind"] in ("Role", "RoleBinding")}

    assert {m["kind"] for m in objects} & CLUSTER_SCOPED == {"CustomResourceDefinition"}
    assert places == {"finetune-system", "team-a", "team-b"}


@pytest.mark.parametrize(("name", "kind"), [("default", "ClusterRole"), ("namespaced", "Role")])
def test_the_roles_grant_exactly_what_the_operator_uses(name: str, kind: str) -> None:
    roles = [m for m in rendered(name) if m["kind"] in ("Role", "ClusterRole")]
    by_place = {identity(m): m["rules"] for m in roles if not identity(m)[2].endswith(("-view", "-edit"))}
    everywhere = rules_of("jobs") + rules_of("cluster") if kind == "ClusterRole" else rules_of("jobs")
    places = [("ClusterRole", "")] if kind == "ClusterRole" else [("Role", "team-a"), ("Role", "team-b")]

    assert by_place == {(*place, "finetune-operator"): everywhere for place in places} | {
        ("Role", "finetune-system", "finetune-operator-leader"): rules_of("operator")
    }
    assert sum(len(rules_of(scope)) for scope in SCOPES) == len(PERMISSIONS)


def test_a_second_installation_has_names_and_a_lease_of_its_own() -> None:
    first, second = render(name="finetune-operator"), render(name="nlp")
    names = {identity(m) for m in first} & {identity(m) for m in second}
    leases = [rule["resourceNames"] for rule in pick(second, "Role")["rules"] if "resourceNames" in rule]

    assert names == {("CustomResourceDefinition", "", "finetunejobs.finetuning.dev")}
    assert leases == [["nlp-finetune-operator"]]
    assert environment(second)["FINETUNE_LEASE_NAME"] == "nlp-finetune-operator"


def test_every_selector_finds_the_operators_pods() -> None:
    objects = rendered("everything")
    deployment, service = pick(objects, "Deployment"), pick(objects, "Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    policy = next(m for m in objects if identity(m) == ("NetworkPolicy", "finetune-system", "tuner"))
    monitor = pick(objects, "ServiceMonitor")

    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels
    assert pick(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_trainer_pods_are_found_by_the_labels_that_they_carry() -> None:
    objects = rendered("everything")
    trainers = {MANAGED_BY_LABEL: MANAGER}
    monitor, policy = pick(objects, "PodMonitor"), pick(objects, "NetworkPolicy", "-trainer")
    sources = {
        each["targetLabel"]: each["sourceLabels"] for each in monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]
    }

    assert monitor["spec"]["selector"]["matchLabels"] == trainers
    assert policy["spec"]["podSelector"]["matchLabels"] == trainers
    assert policy["spec"]["ingress"][0]["ports"] == [{"port": TRAINER_PORT, "protocol": "TCP"}]
    assert sources == {"job_name": [pod_label(JOB_LABEL)], "run": [pod_label(RUN_LABEL)]}


def pod_label(name: str) -> str:
    """A pod's label as Prometheus' service discovery calls it."""
    return "__meta_kubernetes_pod_label_" + name.replace(".", "_").replace("/", "_")


def test_one_replica_needs_no_disruption_budget() -> None:
    assert not [m for m in rendered("namespaced") if m["kind"] == "PodDisruptionBudget"]


def test_the_chart_carries_its_dashboard_and_alerts_unchanged() -> None:
    objects = rendered("everything")
    dashboard, rules = pick(objects, "ConfigMap", "-dashboard"), pick(objects, "PrometheusRule")

    assert dashboard["data"] == {"finetune.json": (CHART / "files" / "dashboard.json").read_text(encoding="utf-8")}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert rules["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))


def test_kustomize_installs_the_same_without_helm() -> None:
    built = kustomize(ROOT / "manifests" / "operator")
    namespace = built.pop(("Namespace", "", "finetune-system"))

    assert built == {identity(manifest): manifest for manifest in render()}
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_overlay_of_the_docs_names_both_images(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "kind: Kustomization" in block]
    shutil.copytree(ROOT / "manifests" / "operator", tmp_path / "operator")
    overlay = tmp_path / "overlay" / "kustomization.yaml"
    overlay.parent.mkdir()
    overlay.write_text(text, encoding="utf-8")
    built = list(kustomize(overlay.parent).values())

    assert container(built)["image"] == "registry.example.com/finetune-operator:0.1.0"
    assert environment(built)["FINETUNE_TRAINER_IMAGE"] == "registry.example.com/finetune-trainer:0.1.0"
    assert read_settings(environment(built)).lease_name == "finetune-operator"


def test_the_values_of_the_docs_are_accepted(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if block.startswith("trainer:")]
    values = tmp_path / "values.yaml"
    values.write_text(text, encoding="utf-8")

    settings = read_settings(environment(render("--values", values)))
    assert settings.trainer_ca_config_map == "company-ca"
    assert settings.trainer_env.keys() == {"HF_ENDPOINT", "HTTPS_PROXY", "NO_PROXY", "AWS_ENDPOINT_URL"}
