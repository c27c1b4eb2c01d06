"""What Flux and Argo CD make of an object, by their own code: a Go program over their packages, built once."""

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.binaries import CACHE, find_go

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "gitops" / "kstatus"
KUSTOMIZATION = ROOT / "manifests" / "gitops" / "flux" / "kustomization.yaml"
HEALTH = ROOT / "manifests" / "gitops" / "argocd" / "health.lua"


@dataclass(frozen=True)
class Verdict:
    """What is said of one object."""

    kstatus: str
    kstatus_message: str
    flux: str
    flux_error: str
    argo: str
    argo_message: str


def judge(objects: Sequence[dict[str, Any]], kustomization: Path = KUSTOMIZATION) -> list[Verdict]:
    """One verdict for each object, with the health checks that we ship. The first call may build for minutes."""
    ended = subprocess.run(
        [find_program(), kustomization, HEALTH], input=json.dumps(list(objects)), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return [
        Verdict(
            kstatus=found["kstatus"],
            kstatus_message=found["kstatusMessage"],
            flux=found["flux"],
            flux_error=found["fluxError"],
            argo=found["argo"],
            argo_message=found["argoMessage"],
        )
        for found in json.loads(ended.stdout)
    ]


def find_program() -> Path:
    """The built program; its name follows its source, so that a change builds it anew."""
    sources = b"".join((PROGRAM / name).read_bytes() for name in ("main.go", "go.mod", "go.sum"))
    program = CACHE / f"kstatus-{hashlib.sha256(sources).hexdigest()[:8]}"
    if not program.exists():
        built = program.with_suffix(f".{os.getpid()}")
        built.parent.mkdir(parents=True, exist_ok=True)
        command = [find_go(), "build", "-trimpath", "-ldflags", "-s -w", "-o", str(built), "."]
        subprocess.run(command, cwd=PROGRAM, env=os.environ | {"CGO_ENABLED": "0"}, check=True)
        built.replace(program)
    return program
