"""How fast the trainer is on one card, through `finetune run`: tokens a second, and seconds to the first step.

Usage: python benchmarks/speed.py [--shape 7b] [--settings article,packed,small] [--folder FOLDER] [--epochs 1]
       [--rows 2500] [--peer trl=PYTHON] [--peer unsloth=PYTHON]

The settings: `article` is the default of a manifest, 8 rows a step; `packed` has 24 rows, about 8,000 tokens, a step;
`small` is the same within 10 GiB. `case` is the article's case study end to end: 5 whole epochs, and base and adapter
answer the held-out rows with 128 tokens each. Prints a line of JSON for each. With `--peer trl=PYTHON` and
`--peer unsloth=PYTHON`, the interpreters of environments that hold these, they are measured too, on the same card right
after, and a table compares them. Peaks: ours is what the allocator has reserved, theirs what it has given out.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from workload import write_model, write_rows

SETTINGS: dict[str, dict[str, Any]] = {
    "article": {},
    "packed": {"training": {"batchSize": 24}},
    "small": {"training": {"batchSize": 24}, "resources": {"gpuMemory": "10Gi"}},
    "case": {
        "training": {"epochs": 5, "maxEpochs": 5, "validationsPerEpoch": 2, "earlyStopping": {"enabled": False}},
        "evaluation": {"maxNewTokens": 128},
    },
}
GIB = 2**30


def main() -> None:
    """Measure each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="7b")
    parser.add_argument("--settings", default="article,packed,small")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/finetune-speed"))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--peer", action="append", default=[], help="trl=PYTHON or unsloth=PYTHON")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model = write_model(options.folder / f"model-{options.shape}", options.shape)
    rows = write_rows(options.folder / f"rows-{options.rows}.jsonl", options.rows)
    settings, found = options.settings.split(","), []
    for name in settings:
        found.append({"peer": "ours", "setting": name, **measure(name, model, rows, options.folder, options.epochs)})
        print(json.dumps(found[-1]), flush=True)
    for peer in options.peer:
        found += measure_peer(*peer.split("=", 1), model, [name for name in settings if name != "case"])
    if options.peer:
        print_table(settings, found)


def measure_peer(peer: str, python: str, model: Path, settings: list[str]) -> list[dict[str, Any]]:
    """The settings as a peer does them, in its own environment."""
    command = [python, str(PEERS), peer, str(model), "--settings", ",".join(settings)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    print(told, end="", flush=True)
    return [json.loads(line) for line in told.splitlines() if line.startswith('{"peer"')]


def print_table(settings: list[str], found: list[dict[str, Any]]) -> None:
    """Tokens a second and peak, and how many times a peer's ours is."""
    ours = {row["setting"]: row.get("tokensPerSecond") for row in found if row["peer"] == "ours"}
    print("| setting | who | tokens/s | ours is | peak GiB |", "|---|---|---|---|---|", sep="\n")
    for row in (row for name in settings for row in found if row["setting"] == name):
        rate, own = row.get("tokensPerSecond"), ours.get(row["setting"])
        times = f"{own / rate:.1f} times" if rate and own and row["peer"] != "ours" else ""
        shown = f"{rate:,}" if rate else row.get("error", "failed")
        print(f"| {row['setting']} | {row['peer']} | {shown} | {times} | {row.get('peakGiB', '')} |")


def measure(name: str, model: Path, rows: Path, folder: Path, epochs: int) -> dict[str, Any]:
    """One run in a process of its own."""
    job = manifest(name, model, rows, folder, epochs)
    file = folder / f"{name}.json"
    file.write_text(json.dumps(job))
    started = time.monotonic()
    ended = subprocess.run([*FINETUNE, "run", str(file)], capture_output=True, text=True)
    wall = time.monotonic() - started
    if ended.returncode:
        return {"error": ended.stderr[-600:]}
    report = json.loads(
        next((folder / "out/default").glob(f"{job['metadata']['name']}/runs/*/report.json")).read_text()
    )
    training = report["training"]
    return {
        "tokensPerSecond": round(training["steadyTokensPerSecond"]),
        "overall": round(training["tokensPerSecond"]),
        "predicted": round(training["layout"]["predictedTokensPerSecond"]),
        "tokensPerStep": round(training["tokens"] / training["steps"]),
        "steps": training["steps"],
        "peakGiB": round(training["peakMemoryBytes"] / GIB, 2),
        "predictedGiB": round(training["layout"]["predictedMemoryBytes"] / GIB, 2),
        "layout": training["layout"],
        "seconds": report["seconds"],
        "secondsToFirstStep": training["secondsToFirstStep"],
        "wall": round(wall, 1),
        "losses": [round(point["value"], 4) for point in training["trainLoss"][:: max(1, training["steps"] // 8)]],
        "validation": [round(point["value"], 4) for point in training["validationLoss"]],
        "samples": len(report["samples"]),
        "device": training["device"],
    }


def manifest(name: str, model: Path, rows: Path, folder: Path, epochs: int) -> dict[str, Any]:
    """The job of a setting."""
    setting = SETTINGS[name]
    training = {"epochs": epochs, "maxEpochs": epochs, "validationsPerEpoch": 1, **setting.get("training", {})}
    return {
        "apiVersion": "finetuning.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": f"speed-{name}-{int(time.time())}"},
        "spec": {
            "model": {"uri": f"file://{model}"},
            "dataset": {"uri": f"file://{rows}"},
            "training": training,
            "evaluation": setting.get("evaluation", {"metrics": ["perplexity"], "primaryMetric": "perplexity"}),
            "output": {"uri": f"file://{folder}/out"},
            "resources": setting.get("resources", {}),
        },
    }


PEERS = Path(__file__).with_name("peers.py")
FINETUNE = [sys.executable, "-m", "finetune_cli"]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if __name__ == "__main__":
    main()
