"""Programs that run as several processes, numbered as torchrun numbers them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from finetune_trainer.crew import Crew

PATIENCE_SECONDS = 240


def run_processes(program: Path, count: int, *arguments: str) -> list[Any]:
    """What each process printed last, as JSON, by rank."""
    path = f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    common = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), *arguments], env=common | place, stdout=subprocess.PIPE, text=True
        )
        for place in Crew(processes=count).places()
    ]
    try:
        printed = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count
    return [json.loads(text.splitlines()[-1]) for text in printed]
