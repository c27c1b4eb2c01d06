"""What there is to compute on, told without loading torch."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

from finetune_api.cards import Card, card_called

CPU_RATE, CPU_BANDWIDTH = 1e12, 3e10
"""A CPU of our days, roughly; what is chosen hardly depends on it."""
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux tells a container how much memory it may use, new and old."""
ASK = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


def this_machine() -> Card:
    """The first GPU with all its memory, or the CPU where there is none."""
    return first_gpu() or cpu()


def cpu() -> Card:
    """The CPU and the main memory that this process may still take."""
    return Card("CPU", main_memory(), CPU_RATE, CPU_BANDWIDTH)


def first_gpu() -> Card | None:
    """The first GPU that the driver's own tool knows of."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    answer = subprocess.run([tool, *ASK], capture_output=True, text=True)
    name, comma, mebibytes = answer.stdout.partition("\n")[0].rpartition(",")
    return card_called(name, int(mebibytes) * 2**20) if comma and mebibytes.strip().isdecimal() else None


def main_memory() -> int:
    """Bytes of main memory that this process may still take."""
    there = [psutil.virtual_memory().available]
    for file in LIMITS:
        with suppress(OSError, ValueError):  # absent, or "max"
            there.append(int(file.read_text()) - psutil.Process().memory_info().rss)
    return min(there)
