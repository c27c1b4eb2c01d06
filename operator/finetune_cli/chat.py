"""`chat`: ask what was published."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_cli.published import base_of, published, run_of
from finetune_trainer.environment import cache_folder
from finetune_trainer.store import Store

if TYPE_CHECKING:  # it loads torch
    from finetune_trainer.tuned import Tuned


def chat_with(location: str, message: str | None, model: str | None, with_base: bool, longest: int) -> None:
    """Answer one message, or every line typed until the input ends."""
    from finetune_trainer.evaluate import generate
    from finetune_trainer.rows import Message
    from finetune_trainer.tokens import load_tokenizer, prompt_ids

    run = run_of(location)
    with published(run) as (folder, result):
        tokenizer = load_tokenizer(folder)
        tuned = load_published(run, folder, model, alone=result == "model" and not with_base)
    for text in [message] if message is not None else typed_lines():
        prompt = prompt_ids([Message("user", text)], tokenizer)
        for adapted in (False, True) if with_base else (True,):
            with tuned.inference(adapted=adapted):
                [answer] = generate(tuned, tokenizer, [prompt], longest)
            name = f"{result if adapted else 'base'}:".ljust(len(result) + 2) if with_base else ""
            print(f"{name}{answer}", flush=True)


def load_published(run: Store, folder: Path, model: str | None, alone: bool) -> "Tuned":
    """What a folder holds, on its base; a whole model may do without one. Raises RunError."""
    from finetune_trainer.base import pick_device
    from finetune_trainer.fetch import fetch_model
    from finetune_trainer.method import load

    if alone:
        return load(folder, "none", folder, pick_device())
    spec, quantization = base_of(run, folder, model)
    return load(fetch_model(spec, cache_folder()), quantization, folder, pick_device())


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
