"""What must be set in a process before torch and transformers are imported, and where it may write."""

import logging
import os
import sys
import warnings
from pathlib import Path

from finetune_api.contract import CACHE_VARIABLE

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that spin while they wait make everything several times slower where cores are shared.
    "OMP_WAIT_POLICY": "PASSIVE",
}
CACHES = {
    "HF_HOME": "huggingface",
    "TORCHINDUCTOR_CACHE_DIR": "torch",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
}
"""Variables that name caches of libraries, and the folders for them below ours."""


def settle_process() -> None:
    """No telemetry, no progress bars of libraries, no spinning threads. What the user has set stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module=r"(transformers|peft|bitsandbytes|torch)\b")
    # bitsandbytes warns at import that an optional kernel it would fetch from a hub is not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def cache_folder() -> Path:
    """Where downloads are kept: $FINETUNE_CACHE, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "finetune"


def keep_caches_in(folder: Path) -> None:
    """Let libraries cache below this folder: in a pod nothing else can be written. What the user has set stays."""
    for name, place in CACHES.items():
        os.environ.setdefault(name, str(folder / place))


def import_transformers_without_torch() -> None:
    """Import transformers for its tokenizers alone: it imports torch, seconds and hundreds of MiB, wherever it is."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import transformers  # noqa: F401
    finally:
        del sys.modules["torch"]
