"""`chat`: ask a published adapter."""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune_api.training import ModelSpec, Quantization
from finetune_cli.stored import open_run
from finetune_trainer.environment import cache_folder
from finetune_trainer.errors import ModelNotLoadable, NotFound
from finetune_trainer.store import Store


def chat_with(location: str, message: str | None, model: str | None, with_base: bool, longest: int) -> None:
    """Answer one message, or every line typed until the input ends."""
    from finetune_trainer.evaluate import generate
    from finetune_trainer.fetch import fetch_model
    from finetune_trainer.model import inference, load_adapter, load_base, pick_device
    from finetune_trainer.rows import Message
    from finetune_trainer.tokens import load_tokenizer, prompt_ids

    run = open_run(location.rstrip("/").removesuffix("/adapter"))
    with local_adapter(run) as folder:
        spec, quantization = base_of(run, folder, model)
        tokenizer = load_tokenizer(folder)
        adapted = load_adapter(load_base(fetch_model(spec, cache_folder()), quantization, pick_device()), folder)
    for text in [message] if message is not None else typed_lines():
        prompt = prompt_ids([Message("user", text)], tokenizer)
        for adapter in (False, True) if with_base else (True,):
            with inference(adapted, adapter=adapter):
                [answer] = generate(adapted, tokenizer, [prompt], longest)
            name = ("adapter: " if adapter else "base:    ") if with_base else ""
            print(f"{name}{answer}", flush=True)


def base_of(run: Store, folder: Path, model: str | None) -> tuple[ModelSpec, Quantization]:
    """The base model and how it was quantised: from the run's manifest, else from the adapter itself."""
    try:
        spec: dict[str, Any] = json.loads(run.read("manifest.json"))["spec"]
    except NotFound:
        named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        spec = {"model": {"uri": named if "://" in named else f"hf://{named}"}, "method": {"quantization": "none"}}
    quantization: Quantization = spec["method"]["quantization"]
    return (ModelSpec(uri=model) if model else ModelSpec.model_validate(spec["model"])), quantization


@contextmanager
def local_adapter(run: Store) -> Iterator[Path]:
    """The files of a run's adapter, or of a folder that is an adapter itself. Raises ModelNotLoadable."""
    store = run.under("adapter") if run.exists("adapter/adapter_config.json") else run
    if not store.exists("adapter_config.json"):
        raise ModelNotLoadable(f"{store.uri_of('')} holds no adapter: there is no adapter_config.json.")
    with tempfile.TemporaryDirectory(prefix="finetune-chat-") as folder:
        for file in store.list():
            store.read_file(file.path, Path(folder) / file.path)
        yield Path(folder)


def typed_lines() -> Iterator[str]:
    """Lines from the terminal, with a prompt when there is one."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
