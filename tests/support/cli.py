"""The `finetune` command run in this process, and small jobs for it."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from finetune_api.documents import dump_yaml
from finetune_cli.__main__ import main
from support.manifests import make_manifest

QUICK: dict[str, Any] = {
    "method": {"quantization": "none", "lora": {"rank": 4}},
    "training": {"learningRate": 1e-2, "epochs": 1, "maxEpochs": 1, "batchSize": 8, "validationsPerEpoch": 1},
    "evaluation": {"metrics": ["perplexity"], "primaryMetric": "perplexity"},
}
"""A run of seconds whose adapter is surely better than the random base."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def finetune(*arguments: str | Path, stdin: str = "") -> Ended:
    """Run `finetune` with these arguments, without a terminal."""
    out, err = io.StringIO(), io.StringIO()
    told = patch.object(sys, "argv", ["finetune", *map(str, arguments)])
    typed = patch.object(sys, "stdin", io.StringIO(stdin))
    with told, typed, redirect_stdout(out), redirect_stderr(err):
        code = _exit_code()
    return Ended(code, out.getvalue(), err.getvalue())


def make_job(model: Path, data: Path, store: Path, **spec: Any) -> dict[str, Any]:
    """A quick FineTuneJob as plain data; fields of `spec` replace those of QUICK."""
    places = {
        name: {"uri": f"file://{path}"} for name, path in (("model", model), ("dataset", data), ("output", store))
    }
    return make_manifest({"name": "triage"}, **{**QUICK, **places, **spec})


def write_job(path: Path, job: Mapping[str, Any]) -> Path:
    """Write a job as YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump_yaml(job), encoding="utf-8")
    return path


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write records as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def triage(count: int, first: int = 0) -> list[dict[str, str]]:
    """Messages to a clinic, each with the word it asks for."""
    answers = ("today", "week", "routine")
    return [
        {"prompt": f"the patient has a cough since monday {number} please book {answers[number % 3]}",
         "completion": answers[number % 3]}
        for number in range(first, first + count)
    ]  # fmt: skip


def _exit_code() -> int:
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
