"""Write every file that is made from the models; with --check, only say which of them are stale.

Usage: python scripts/generate.py [--check]
"""

import sys
from pathlib import Path

from finetune_api.crd import build_crd
from finetune_api.documents import dump_yaml
from finetune_api.reference import build_reference

ROOT = Path(__file__).resolve().parent.parent
ORIGIN = "Made from operator/finetune_api by `make generate`; do not edit."


def generated() -> dict[str, str]:
    """Text of each generated file by its path in the repository."""
    return {
        "manifests/crd/finetunejobs.finetuning.dev.yaml": f"# {ORIGIN}\n{dump_yaml(build_crd())}",
        "docs/reference/finetunejob.md": f"<!-- {ORIGIN} -->\n\n{build_reference()}",
    }


def stale_files() -> list[str]:
    """Paths of generated files that are missing or differ from what the models say."""
    return [name for name, text in generated().items() if not _holds(ROOT / name, text)]


def write_files() -> None:
    """Write every generated file."""
    for name, text in generated().items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


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
