"""The article's claim, on a small real model and a real task: what 4 and 8 bit save, and what they cost.

Usage: python benchmarks/claim.py [--seeds 1,2,3] [--quantizations none,int8,nf4] [--folder FOLDER]

Each run is the job of the quickstart with another quantisation and seed, carried out by `finetune run`. Reported are
the bytes of the base as loaded, the size of the adapter, the seconds of training, and base and adapter on the same 36
held-out rows. Needs `make setup model`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from small_model import MODEL, ROOT, carry_out


def main() -> None:
    """Run every quantisation with every seed; print a line of JSON for each run and a table of means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--quantizations", default="none,int8,nf4")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache/claim")
    options = parser.parse_args()
    quantizations = options.quantizations.split(",")
    rows = [
        measure(quantization, int(seed), options.folder)
        for seed in options.seeds.split(",")
        for quantization in quantizations
    ]
    plain = [row for row in rows if row["quantization"] == "none"]
    print("| base | bytes | saved | exact match | improvement kept | perplexity | seconds of training |")
    print("|---|---|---|---|---|---|---|")
    for quantization in quantizations:
        print(summary([row for row in rows if row["quantization"] == quantization], plain))


def measure(quantization: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run."""
    spec = {"method": {"quantization": quantization}, "training": {"seed": seed}}
    row = {
        "quantization": quantization,
        "seed": seed,
        "baseBytes": base_bytes(quantization),
        **carry_out(f"claim-{quantization}-{seed}", spec, folder),
    }
    print(json.dumps(row), flush=True)
    return row


def base_bytes(quantization: str) -> int:
    """What the weights of the base take once loaded, with the constants of quantisation."""
    code = (
        "import sys, torch; from pathlib import Path; from finetune_trainer.base import load_base\n"
        "model = load_base(Path(sys.argv[1]), sys.argv[2], torch.device('cpu'))\n"
        "total = sum(p.numel() * p.element_size() for p in model.parameters())\n"
        "for p in model.parameters():\n"
        "    state = getattr(p, 'quant_state', None)\n"
        "    parts = [state.absmax, getattr(state.state2, 'absmax', None)] if state else [getattr(p, 'SCB', None)]\n"
        "    total += sum(part.numel() * part.element_size() for part in parts if part is not None)\n"
        "print(total)"
    )
    command = [sys.executable, "-c", code, str(MODEL), quantization]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def summary(rows: list[dict[str, Any]], plain: list[dict[str, Any]]) -> str:
    """A row of the table: means over seeds, and the share of the plain base's improvement that is kept."""

    def gain(of: list[dict[str, Any]]) -> float:
        return mean(row["exactMatch"][1] - row["exactMatch"][0] for row in of)

    kept = f"{gain(rows) / gain(plain):.0%}" if plain else "-"
    saved = f"{1 - rows[0]['baseBytes'] / plain[0]['baseBytes']:.0%}" if plain else "-"
    before, after = (mean(row["exactMatch"][side] for row in rows) for side in (0, 1))
    exact = ", ".join(f"{row['exactMatch'][1]:.3f}" for row in rows)
    perplexity = f"{mean(row['perplexity'][0] for row in rows):.2f} → {mean(row['perplexity'][1] for row in rows):.3f}"
    seconds = mean(row["seconds"] for row in rows)
    name = rows[0]["quantization"]
    return (
        f"| {name} | {rows[0]['baseBytes']:,} | {saved} | {before:.3f} → {after:.3f} ({exact}) | {kept} | {perplexity} "
        f"| {seconds:.0f} |"
    )


if __name__ == "__main__":
    main()
