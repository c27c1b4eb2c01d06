"""What we ship for Argo CD and Flux can be installed as it is, and says the same in every place."""

import subprocess
from pathlib import Path
from typing import Any

from cluster.binaries import find_binary
from finetune_api.documents import dump_yaml, load_yaml
from support.health import HEALTH, KUSTOMIZATION

KEY = "resource.customizations.health.finetuning.dev_FineTuneJob"
PATCH = HEALTH.parent / "argocd-cm.yaml"


def read(path: Path) -> dict[str, Any]:
    document = load_yaml(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def test_the_config_map_holds_the_health_check() -> None:
    assert read(PATCH)["data"] == {KEY: HEALTH.read_text(encoding="utf-8")}


def test_the_patch_leaves_the_rest_of_the_config_map_alone(tmp_path: Path) -> None:
    installed = tmp_path / "argocd-cm.yaml"
    metadata = {"name": "argocd-cm", "namespace": "argocd"}
    installed.write_text(
        dump_yaml({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"url": "https://argo"}})
    )
    files = ("-f", str(installed), "--patch-file", str(PATCH))
    command = [str(find_binary("kubectl")), "patch", "--local", *files, "-o", "yaml"]
    patched = load_yaml(subprocess.check_output(command, text=True))

    assert isinstance(patched, dict)
    assert patched["data"] == {"url": "https://argo", KEY: HEALTH.read_text(encoding="utf-8")}


def test_the_kustomization_waits_longer_than_a_run_takes() -> None:
    spec = read(KUSTOMIZATION)["spec"]

    assert spec["wait"] is True
    assert spec["timeout"] == "24h"
    assert [check["kind"] for check in spec["healthCheckExprs"]] == ["FineTuneJob"]
