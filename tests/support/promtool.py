"""Prometheus' own tool, which checks configurations and rules and runs rules on made-up series."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

MISSING = "promtool is not installed: `apt-get install prometheus`, or put it on PATH from a Prometheus release."


class PromtoolError(Exception):
    """promtool found something wrong; the message is what it said."""


def find_promtool() -> str:
    """The tool's path."""
    found = shutil.which("promtool") or shutil.which("promtool", path="/usr/bin")
    if found is None:
        raise FileNotFoundError(MISSING)
    return found


def run_promtool(*arguments: str | Path) -> str:
    """What a command prints. Raises PromtoolError."""
    done = subprocess.run([find_promtool(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PromtoolError(done.stdout + done.stderr)
    return done.stdout


def run_rules(rules: list[Path], tests: list[dict[str, Any]], every: str = "30s") -> None:
    """Unit tests of rules, as `promtool test rules` reads them. Raises PromtoolError."""
    document = {"rule_files": [str(path) for path in rules], "evaluation_interval": every, "tests": tests}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tests.yaml")
        path.write_text(json.dumps(document), encoding="utf-8")
        run_promtool("test", "rules", path)
