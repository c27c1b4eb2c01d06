"""The job of the quickstart with other settings, carried out by `finetune run` on the small real model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / ".cache/models/SmolLM2-135M-Instruct"
FINETUNE = [str(Path(sys.executable).parent / "finetune"), "run", "-o", "yaml"]


def carry_out(name: str, spec: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Figures of one run: sizes in bytes, seconds of training, and of each metric the values of base and result.

    `spec` holds what differs from the quickstart, by part and field; a field that is None is left out.
    """
    document = yaml.safe_load((ROOT / "manifests/examples/quickstart.yaml").read_text())
    document["metadata"]["name"] = name
    for part, fields in ({"output": {"uri": f"file://{folder}"}} | spec).items():
        merged = document["spec"].get(part, {}) | fields
        document["spec"][part] = {field: value for field, value in merged.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / f"{name}.yaml"
    manifest.write_text(yaml.safe_dump(document))
    answer = subprocess.run([*FINETUNE, str(manifest)], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    status = yaml.safe_load(answer.stdout)["status"]
    report = json.loads(next((folder / "default" / name).glob("runs/*/report.json")).read_text())
    return {
        "trainedParameters": report["model"]["trainableParameters"],
        "publishedBytes": status["adapter"]["sizeBytes"],
        "publishedBaseBytes": report["model"]["sizeBytes"],
        "seconds": round(report["training"]["seconds"], 1),
        "steps": report["training"]["steps"],
        "verdict": status["evaluation"]["verdict"],
        **{metric["name"]: [metric["base"], metric["adapter"]] for metric in status["evaluation"]["metrics"]},
    }
