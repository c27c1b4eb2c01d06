"""What a run published, or a folder of it: its files, and the base that they belong to."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from finetune_api.methods import MethodSpec, Quantization
from finetune_api.run import Result
from finetune_api.training import ModelSpec
from finetune_cli.stored import open_run
from finetune_trainer.errors import InvalidConfig, ModelNotLoadable, NotFound
from finetune_trainer.store import Store

CONFIGS: dict[str, Result] = {
    "adapter_config.json": "adapter", "bottleneck_config.json": "adapter", "config.json": "model"
}  # fmt: skip
"""What a published folder is told by: an adapter in PEFT layout, bottleneck adapters, or a whole model."""


def run_of(location: str) -> Store:
    """The run that a location names, or that holds the folder it names."""
    place = location.rstrip("/")
    return open_run(next((run for r in get_args(Result) if (run := place.removesuffix(f"/{r}")) != place), place))


def base_of(run: Store, folder: Path, model: str | None) -> tuple[ModelSpec, Quantization]:
    """The base model and how it was quantised: from the run's manifest, else from the folder. Raises InvalidConfig."""
    try:
        spec: dict[str, Any] = json.loads(run.read("manifest.json"))["spec"]
    except NotFound:
        named = model or _named_base(folder)
        spec = {"model": {"uri": named if "://" in named else f"hf://{named}"}, "method": {"quantization": "none"}}
    quantization = MethodSpec.model_validate(spec["method"]).storage
    return (ModelSpec(uri=model) if model else ModelSpec.model_validate(spec["model"])), quantization


def _named_base(folder: Path) -> str:
    """The base that an adapter names; a whole model names none."""
    for name, result in CONFIGS.items():
        if result == "adapter" and (folder / name).exists():
            return str(json.loads((folder / name).read_text())["base_model_name_or_path"])
    raise InvalidConfig("This folder does not say which base it was trained from. Name it with --model.")


@contextmanager
def published(run: Store) -> Iterator[tuple[Path, Result]]:
    """The files that a run published, or of a folder that was published, and what they are. Raises ModelNotLoadable."""
    for store in (*(run.under(result) for result in get_args(Result)), run):
        found = next((result for name, result in CONFIGS.items() if store.exists(name)), None)
        if found:
            break
    else:
        *names, last = CONFIGS
        raise ModelNotLoadable(
            f"{run.uri_of('')} holds no adapter and no model: there is no {', '.join(names)} or {last}."
        )
    with tempfile.TemporaryDirectory(prefix="finetune-published-") as folder:
        for file in store.list():
            store.read_file(file.path, Path(folder) / file.path)
        yield Path(folder), found
