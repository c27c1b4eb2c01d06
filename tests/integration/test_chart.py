"""The chart and the manifests on a real API server: everything is accepted, and jobs outlive the operator."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.control_plane import ControlPlane, KubectlError
from finetune_api.documents import load_yaml
from finetune_operator.permissions import PERMISSIONS, Permission
from support.helm import CHART, VALUES, HelmError, Manifest, pick, render, run_helm
from support.manifests import make_manifest
from support.monitoring_crds import find_monitoring_crds

ROOT = Path(__file__).parents[2]
SYSTEM = "finetune-system"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
CRD = "finetunejobs.finetuning.dev"
LEFT_OVER = (
    "deployment,service,serviceaccount,poddisruptionbudget,networkpolicy,role,rolebinding",
    "clusterrole,clusterrolebinding",
)
"""What an installation without Helm consists of, beside the CRD."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A cluster of this module's own, for the CRD comes and goes. Its namespaces enforce Pod Security `restricted`."""
    plane = ControlPlane(tmp_path_factory.mktemp("chart"))
    plane.start()
    for namespace in (SYSTEM, "team-a", "team-b"):
        plane.make_namespace(namespace, RESTRICTED)
    for path in find_monitoring_crds():
        plane.kubectl("create", "--filename", str(path))
    yield plane
    plane.stop()


@pytest.fixture
def empty(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The cluster without any installation, before and after."""
    yield plane
    for release in json.loads(helm(plane, "list", "--all-namespaces", "--output", "json")):
        helm(plane, "uninstall", release["name"], "--namespace", release["namespace"], "--wait")
    for kinds in LEFT_OVER:
        plane.kubectl("delete", kinds, "--namespace", SYSTEM, "--selector=app.kubernetes.io/part-of=finetune-operator")
    plane.kubectl("delete", "crd", CRD, "--ignore-not-found")


def helm(plane: ControlPlane, *arguments: str | Path) -> str:
    return run_helm(*arguments, kubeconfig=plane.kubeconfig)


def install(plane: ControlPlane, *arguments: str | Path, chart: Path = CHART) -> None:
    """Install, or upgrade what is installed."""
    helm(plane, "upgrade", "--install", "finetune-operator", chart, "--namespace", SYSTEM, *arguments)


def get(plane: ControlPlane, *arguments: str) -> dict[str, Any]:
    return dict(json.loads(plane.kubectl("get", *arguments, "--output", "json")))


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def listed(manifests: list[Manifest]) -> str:
    """Objects as kubectl reads them from a file."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


@pytest.mark.parametrize("name", sorted(path.stem for path in VALUES.glob("*.yaml")))
def test_every_object_is_accepted_without_a_warning(empty: ControlPlane, name: str) -> None:
    objects = render("--values", VALUES / f"{name}.yaml")
    flags = ("--server-side", "--dry-run=server", "--validate=strict", "--warnings-as-errors")

    applied = empty.kubectl("apply", *flags, "--filename", "-", input=listed(objects))

    assert len(applied.splitlines()) == len(objects)


@pytest.mark.parametrize("name", sorted(path.stem for path in VALUES.glob("*.yaml")))
def test_the_operators_pods_are_admitted_where_pod_security_is_restricted(empty: ControlPlane, name: str) -> None:
    objects = render("--values", VALUES / f"{name}.yaml")
    empty.kubectl("apply", "--filename", "-", input=listed([pick(objects, "ServiceAccount")]))

    assert "created" in create_pod(empty, pick(objects, "Deployment")["spec"]["template"])


def test_a_pod_that_may_do_more_is_refused(empty: ControlPlane) -> None:
    template = pick(render(), "Deployment")["spec"]["template"]
    del template["spec"]["serviceAccountName"]
    del template["spec"]["containers"][0]["securityContext"]["capabilities"]

    with pytest.raises(KubectlError, match="violates PodSecurity"):
        create_pod(empty, template)


def create_pod(plane: ControlPlane, template: Manifest) -> str:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", **template["metadata"]}}
    flags = ("--dry-run=server", "--validate=strict", "--namespace", SYSTEM)
    return plane.kubectl("create", *flags, "--filename", "-", input=json.dumps(pod | {"spec": template["spec"]}))


def test_an_installation_starts_its_replicas(empty: ControlPlane) -> None:
    install(empty)

    wait_until(lambda: len(operator_pods(empty)) == 2)
    assert empty.kubectl("get", "finetunejobs", "--all-namespaces") == ""


def operator_pods(plane: ControlPlane) -> list[dict[str, Any]]:
    return list(
        get(plane, "pods", "--namespace", SYSTEM, "--selector=app.kubernetes.io/name=finetune-operator")["items"]
    )


def test_jobs_outlive_upgrade_uninstall_and_a_new_installation(empty: ControlPlane) -> None:
    install(empty)
    empty.kubectl("apply", "--namespace", "team-a", "--filename", "-", input=json.dumps(make_manifest()))
    status = {"status": {"phase": "Succeeded", "message": "Done."}}
    patch = ("--subresource=status", "--type=merge", "--patch", json.dumps(status))
    empty.kubectl("patch", "finetunejob", "clinic-triage", "--namespace", "team-a", *patch)
    before = get(empty, "finetunejob", "clinic-triage", "--namespace", "team-a")

    install(empty, "--set", "replicas=3,logLevel=DEBUG")
    assert get(empty, "deployment", "finetune-operator", "--namespace", SYSTEM)["spec"]["replicas"] == 3
    helm(empty, "uninstall", "finetune-operator", "--namespace", SYSTEM, "--wait")
    assert get(empty, "deployments", "--namespace", SYSTEM)["items"] == []
    install(empty)

    assert get(empty, "finetunejob", "clinic-triage", "--namespace", "team-a") == before
    assert before["status"]["phase"] == "Succeeded"


def test_an_upgrade_brings_the_new_crd(empty: ControlPlane, tmp_path: Path) -> None:
    older = tmp_path / "chart"
    shutil.copytree(CHART, older)
    crd = load_yaml((CHART / "files" / "crd.yaml").read_text(encoding="utf-8"))
    assert isinstance(crd, dict)
    columns = crd["spec"]["versions"][0]["additionalPrinterColumns"]
    crd["spec"]["versions"][0]["additionalPrinterColumns"] = columns[:1]
    (older / "files" / "crd.yaml").write_text(json.dumps(crd), encoding="utf-8")

    def shown() -> list[str]:
        versions = get(empty, "crd", CRD)["spec"]["versions"]
        return [column["name"] for column in versions[0]["additionalPrinterColumns"]]

    install(empty, chart=older)
    assert shown() == [columns[0]["name"]]
    install(empty)
    assert shown() == [column["name"] for column in columns]


def test_a_second_installation_leaves_the_crd_to_the_first(empty: ControlPlane) -> None:
    install(empty, "--set", "watchNamespaces={team-a}")
    second = ("install", "nlp", CHART, "--namespace", "team-b", "--set", "watchNamespaces={team-b}")

    with pytest.raises(HelmError, match="exists and cannot be imported into the current release"):
        helm(empty, *second)
    helm(empty, *second, "--set", "crds.install=false")
    helm(empty, "uninstall", "nlp", "--namespace", "team-b", "--wait")

    assert get(empty, "crd", CRD)["metadata"]["annotations"]["meta.helm.sh/release-name"] == "finetune-operator"


@pytest.mark.parametrize(
    ("values", "allowed", "denied"),
    [("default", ["team-a", "default"], []), ("namespaced", ["team-a", "team-b"], ["default", SYSTEM])],
)
def test_the_operator_may_do_what_it_needs_and_only_where_it_should(
    empty: ControlPlane, values: str, allowed: list[str], denied: list[str]
) -> None:
    install(empty, "--values", VALUES / f"{values}.yaml")
    jobs = [permission for permission in PERMISSIONS if permission.scope == "jobs"]
    lease = [permission for permission in PERMISSIONS if permission.scope == "operator"]
    secrets = Permission("", "secrets", ("get", "list", "watch"), "jobs", "")
    needed = [(each, namespace) for each in jobs for namespace in allowed] + [(each, SYSTEM) for each in lease]
    too_much = [(each, namespace) for each in jobs for namespace in denied] + [(each, "team-a") for each in lease]
    secrets = Permission("", "secrets", ("get", "list", "watch"), "jobs", "")

    # Authorisation learns of new roles a moment after they exist.
    wait_until(lambda: verdicts(empty, needed) == {"true"})
    assert verdicts(empty, [*too_much, (secrets, "team-a")]) == {"false"}


def reviews(permission: Permission, namespace: str) -> list[Manifest]:
    """Questions to the API server, one for each verb, whether the operator has a right in a namespace."""
    resource, _, part = permission.resource.partition("/")
    named = {"name": permission.names[0]} if permission.names else {}
    asked = {"group": permission.group, "resource": resource, "subresource": part, "namespace": namespace, **named}
    user = f"system:serviceaccount:{SYSTEM}:finetune-operator"
    return [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {"user": user, "resourceAttributes": asked | {"verb": verb}},
        }
        for verb in permission.verbs
    ]


def verdicts(plane: ControlPlane, rights: list[tuple[Permission, str]]) -> set[str]:
    """The different answers to whether the operator has rights in namespaces: true, false."""
    questions = [question for right in rights for question in reviews(*right)]
    answer = 'jsonpath={.status.allowed}{"\\n"}'
    answers = plane.kubectl("create", "--filename", "-", "--output", answer, input=listed(questions)).split()
    assert len(answers) == len(questions)
    return set(answers)


def test_who_may_edit_a_namespace_may_edit_its_jobs(empty: ControlPlane) -> None:
    install(empty)
    jane = empty.kubeconfig_for_user("jane")
    binding = ("create", "rolebinding", "jane", "--clusterrole=edit", "--user=jane", "--namespace", "team-a")
    empty.kubectl(*binding)

    def applied() -> bool:
        manifest = json.dumps(make_manifest())
        with suppress(KubectlError):
            empty.kubectl("apply", "--namespace", "team-a", "--filename", "-", input=manifest, kubeconfig=jane)
            return True
        return False

    wait_until(applied)
    with pytest.raises(KubectlError, match="forbidden"):
        empty.kubectl("get", "finetunejobs", "--namespace", "team-b", kubeconfig=jane)


def test_kustomize_alone_installs_the_operator(empty: ControlPlane) -> None:
    empty.kubectl("apply", "--kustomize", str(ROOT / "manifests" / "operator"))

    wait_until(lambda: len(operator_pods(empty)) == 2)
    assert get(empty, "crd", CRD)["spec"]["names"]["kind"] == "FineTuneJob"
