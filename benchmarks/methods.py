"""Every method once on a small real model and a real task.

Usage: python benchmarks/methods.py [--methods lora,dora,...] [--folder FOLDER]

Each run is the job of the quickstart with another method, carried out by `finetune run` and judged on the same 36
held-out rows. Rates and epochs are those at which a method learns the task, not tuned
further. Needs `make setup model`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from small_model import ROOT, carry_out

NO_LORA = {"lora": None, "quantization": None}
METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "lora": {},
    "lora, int8": {"method": {"quantization": "int8"}},
    "rsLoRA": {"method": {"lora": {"dropout": 0, "rslora": True}}, "training": {"learningRate": 2e-4}},
    "DoRA": {"method": {"lora": {"dropout": 0, "dora": True}}},
    "PiSSA": {"method": {"quantization": "none", "lora": {"dropout": 0, "init": "pissa"}},
              "training": {"learningRate": 2e-4}},
    "full": {"method": {**NO_LORA, "type": "full"}, "training": {"learningRate": 5e-5}},
    "prefix": {"method": {**NO_LORA, "type": "prefix"},
               "training": {"learningRate": 1e-2, "epochs": 8, "maxEpochs": 8}},
    "bottleneck": {"method": {**NO_LORA, "type": "bottleneck"}, "training": {"learningRate": 1e-3}},
}  # fmt: skip


def main() -> None:
    """Run the methods; print a line of JSON for each and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=";".join(METHODS), help="names, separated by semicolons")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache/methods")
    options = parser.parse_args()
    rows = []
    for name in options.methods.split(";"):
        rows.append((name, carry_out(slug(name), METHODS[name], options.folder)))
        print(json.dumps({"method": name, **rows[-1][1]}), flush=True)
    print("| method | trained | published | steps | seconds | exact match | perplexity | verdict |")
    print("|---|---|---|---|---|---|---|---|")
    for name, row in rows:
        print(as_row(name, row))


def slug(name: str) -> str:
    """A name as Kubernetes allows it."""
    return "method-" + name.lower().replace(", ", "-")


def as_row(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    exact, perplexity = row["exactMatch"], row["perplexity"]
    return (
        f"| {name} | {row['trainedParameters']:,} | {row['publishedBytes'] / 2**20:.1f} MiB | {row['steps']} "
        f"| {row['seconds']:.0f} | {exact[0]:.3f} → {exact[1]:.3f} | {perplexity[0]:.1f} → {perplexity[1]:.3f} "
        f"| {row['verdict']} |"
    )


if __name__ == "__main__":
    main()
