"""How fast the trainer is on one card, through `finetune run`: tokens a second, and seconds to the first step.

Usage: python benchmarks/speed.py [--shapes 7b] [--settings article,packed,small] [--folder FOLDER] [--epochs 1]
       [--rows 2500] [--processes 1] [--peer trl=PYTHON] [--peer unsloth=PYTHON]

The settings: `article` is the default of a manifest, 8 rows a step; `packed` has 24 rows, about 8,000 tokens, a step;
`small` is the same within 10 GiB (6 for the 3B shape, 3 for the 1B shape). `case` is the article's case study end to
end: 5 whole epochs, and base and adapter answer the held-out rows with 128 tokens each. `int8`, `dora`, `prefix`,
`bottleneck` and `full` are `article` by another method; `divided` is `article` on cards too small for the base, for two
processes and more, each with a card.

Prints a line of JSON for each, and a table of what was foreseen and measured. With `--peer trl=PYTHON` and `--peer
unsloth=PYTHON`, the interpreters of environments that hold these, they are measured too, on the same card right after,
and a table compares them. Peaks: ours is what the allocator has reserved, theirs what it has given out.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workload import write_model, write_rows

SETTINGS: dict[str, dict[str, Any]] = {
    "article": {},
    "packed": {"training": {"batchSize": 24}},
    "small": {"training": {"batchSize": 24}},
    "case": {
        "training": {"epochs": 5, "maxEpochs": 5, "validationsPerEpoch": 2, "earlyStopping": {"enabled": False}},
        "evaluation": {"maxNewTokens": 128},
    },
    "divided": {"resources": {"gpuMemory": "5Gi"}},
    "int8": {"method": {"quantization": "int8"}},
    "dora": {"method": {"lora": {"dora": True}}},
    "prefix": {"method": {"type": "prefix"}},
    "bottleneck": {"method": {"type": "bottleneck"}},
    "full": {"method": {"type": "full"}},
}
SMALL = {"7b": "10Gi", "3b": "6Gi", "1b": "3Gi", "tiny": "1Gi"}
GIB = 2**30


def main() -> None:
    """Measure each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="7b")
    parser.add_argument("--settings", default="article,packed,small")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/finetune-speed"))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--peer", action="append", default=[], help="trl=PYTHON or unsloth=PYTHON")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = write_rows(options.folder / f"rows-{options.rows}.jsonl", options.rows)
    settings, found = options.settings.split(","), []
    for shape in options.shapes.split(","):
        model = write_model(options.folder / f"model-{shape}", shape)
        for setting in settings:
            figures = measure(make_job(setting, shape, model, rows, options), options.folder, options.processes)
            found.append({"peer": "ours", "shape": shape, "setting": setting, **figures})
            print(json.dumps(found[-1]), flush=True)
        for peer in options.peer:
            found += measure_peer(*peer.split("=", 1), shape, model, [name for name in settings if name != "case"])
    print_forecasts([row for row in found if row["peer"] == "ours"])
    if options.peer:
        print_peers(found)


def measure(job: dict[str, Any], folder: Path, processes: int) -> dict[str, Any]:
    """One run, in processes of its own."""
    name = job["metadata"]["name"]
    file = folder / f"{name}.json"
    file.write_text(json.dumps(job))
    started = time.monotonic()
    ended = subprocess.run([*command(processes), "run", str(file)], capture_output=True, text=True)
    wall = time.monotonic() - started
    if ended.returncode:
        log = file.with_suffix(".log")
        log.write_text(ended.stdout + ended.stderr)
        return {"error": f"exit code {ended.returncode}; see {log}"}
    report = json.loads(next((folder / "out/default").glob(f"{name}/runs/*/report.json")).read_text())
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
        "warnings": report["warnings"],
        "device": training["device"],
        "processes": training["processes"],
    }


def command(processes: int) -> list[str]:
    """The command line of `finetune`, in so many processes."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(several if processes > 1 else []), "-m", "finetune_cli"]


def make_job(name: str, shape: str, model: Path, rows: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The job of a setting."""
    setting = SETTINGS[name]
    training = {"epochs": options.epochs, "maxEpochs": options.epochs, "validationsPerEpoch": 1}
    return {
        "apiVersion": "finetuning.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": f"speed-{shape}-{name}-{int(time.time())}"},
        "spec": {
            "model": {"uri": f"file://{model}"},
            "dataset": {"uri": f"file://{rows}"},
            "method": setting.get("method", {}),
            "training": training | setting.get("training", {}),
            "evaluation": setting.get("evaluation", {"metrics": ["perplexity"], "primaryMetric": "perplexity"}),
            "output": {"uri": f"file://{options.folder}/out"},
            "resources": {"gpuMemory": SMALL[shape]} if name == "small" else setting.get("resources", {}),
        },
    }


def measure_peer(peer: str, python: str, shape: str, model: Path, settings: Sequence[str]) -> list[dict[str, Any]]:
    """The settings as a peer does them, in its own environment."""
    order = [python, str(PEERS), peer, str(model), "--settings", ",".join(settings)]
    told = subprocess.run(order, stdout=subprocess.PIPE, text=True).stdout
    print(told, end="", flush=True)
    return [{"shape": shape, **json.loads(line)} for line in told.splitlines() if line.startswith('{"peer"')]


def print_forecasts(found: Sequence[dict[str, Any]]) -> None:
    """What was foreseen beside what was measured."""
    print(
        "| shape | setting | tokens/s foreseen | measured | | GiB foreseen | measured | |", "|---" * 8 + "|", sep="\n"
    )
    for row in found:
        if "error" not in row:
            pairs = (row["predicted"], row["tokensPerSecond"]), (row["predictedGiB"], row["peakGiB"])
            cells = " | ".join(f"{want:,} | {got:,} | {want / got - 1:+.0%}" for want, got in pairs)
            print(f"| {row['shape']} | {row['setting']} | {cells} |")


def print_peers(found: Sequence[dict[str, Any]]) -> None:
    """Tokens a second and peak, and how many times a peer's ours is."""
    ours = {(row["shape"], row["setting"]): row.get("tokensPerSecond") for row in found if row["peer"] == "ours"}
    print("| shape | setting | who | tokens/s | ours is | peak GiB |", "|---" * 6 + "|", sep="\n")
    for shape, setting in ours:
        for row in (row for row in found if (row["shape"], row["setting"]) == (shape, setting)):
            rate, own = row.get("tokensPerSecond"), ours[shape, setting]
            times = f"{own / rate:.1f} times" if rate and own and row["peer"] != "ours" else ""
            shown = f"{rate:,}" if rate else row.get("error", "failed")
            print(f"| {shape} | {setting} | {row['peer']} | {shown} | {times} | {row.get('peakGiB', '')} |")


PEERS = Path(__file__).with_name("peers.py")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if __name__ == "__main__":
    main()
