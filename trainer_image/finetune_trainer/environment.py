"""What must be set in a process before torch and transformers are imported."""

import logging
import os
import warnings

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


def settle_process() -> None:
    """No telemetry, no progress bars of libraries, no spinning threads. What the user has set stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module=r"(transformers|peft|bitsandbytes|torch)\b")
    # bitsandbytes warns at import that an optional kernel it would fetch from a hub is not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
