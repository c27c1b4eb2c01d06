"""Write every file that is made from the models; with --check, only say which of them are stale.

Usage: python scripts/generate.py [--check]
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_api.crd import build_crd
from finetune_api.documents import dump_yaml
from finetune_api.reference import build_reference
from finetune_operator.rbac import OPERATOR, OPERATOR_NAMESPACE, build_operator_roles, build_rules, build_user_roles

ROOT = Path(__file__).resolve().parent.parent
CHART = "charts/finetune-operator"
HELM = Path(sys.executable).parent / "helm"
FROM_API = "Made from operator/finetune_api by `make generate`; do not edit."
FROM_PERMISSIONS = "Made from operator/finetune_operator/permissions.py by `make generate`; do not edit."
FROM_CHART = f"Made from {CHART} by `make generate`; do not edit."


def generated() -> Iterator[tuple[str, str]]:
    """Path in the repository and text of each generated file. The chart is rendered last, from files made before."""
    crd = build_crd()
    yield "manifests/crd/finetunejobs.finetuning.dev.yaml", _documents(FROM_API, crd)
    yield f"{CHART}/files/crd.yaml", _documents(FROM_API, _kept(crd))
    yield "docs/reference/finetunejob.md", f"<!-- {FROM_API} -->\n\n{build_reference()}"
    yield f"{CHART}/files/rbac.yaml", _documents(FROM_PERMISSIONS, build_rules())
    yield "manifests/rbac/operator.yaml", _documents(FROM_PERMISSIONS, *build_operator_roles())
    yield "manifests/rbac/users.yaml", _documents(FROM_PERMISSIONS, *build_user_roles())
    yield "manifests/operator/install.yaml", f"# {FROM_CHART}\n{_render()}"


def stale_files() -> list[str]:
    """Paths of generated files that are missing or differ from what the models say."""
    return [name for name, text in generated() if not _holds(ROOT / name, text)]


def write_files() -> None:
    """Write every generated file."""
    for name, text in generated():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _documents(origin: str, *data: Any) -> str:
    return f"# {origin}\n" + "---\n".join(dump_yaml(document) for document in data)


def _kept(crd: dict[str, Any]) -> dict[str, Any]:
    """The CRD as the chart holds it: Helm never deletes it, for every job would go with it."""
    return crd | {"metadata": {"name": crd["metadata"]["name"], "annotations": {"helm.sh/resource-policy": "keep"}}}


def _render() -> str:
    """What Helm installs with the default values."""
    command = [str(HELM), "template", OPERATOR, str(ROOT / CHART), "--namespace", OPERATOR_NAMESPACE]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def main(arguments: list[str]) -> None:
    """Write or check."""
    if arguments != ["--check"]:
        write_files()
        return
    stale = stale_files()
    if stale:
        sys.exit("\n".join(f"{name} is stale: run `make generate`." for name in stale))


if __name__ == "__main__":
    main(sys.argv[1:])
