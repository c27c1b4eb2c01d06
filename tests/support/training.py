"""A training run on a tiny model, in memory."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from peft import PeftModel

from finetune_api.training import EarlyStoppingSpec, MethodSpec, Quantization, TrainingSpec
from finetune_trainer.checkpoint import Checkpoint
from finetune_trainer.loop import Data, Loop
from finetune_trainer.model import adapt, load_base, pick_device
from finetune_trainer.rows import Row
from finetune_trainer.session import Standing
from finetune_trainer.tokens import Example, encode, load_tokenizer


def load_adapted(folder: Path, quantization: Quantization = "none", seed: int = 1, **lora: object) -> PeftModel:
    """A loaded base with a fresh LoRA adapter."""
    method = MethodSpec.model_validate({"quantization": quantization, "lora": {"dropout": 0.1, **lora}})
    return adapt(load_base(folder, quantization, pick_device()), method, seed)


def encode_all(folder: Path, rows: Sequence[Row]) -> list[Example]:
    """Tokenise rows with the folder's tokenizer."""
    tokenizer = load_tokenizer(folder)
    return [encode(row, tokenizer) for row in rows]


def make_loop(
    model: PeftModel, data: Data, save: Callable[[Checkpoint], object] = lambda _: None, **training: object
) -> Loop:
    """A loop over two quick epochs unless told otherwise."""
    defaults: dict[str, object] = {
        "epochs": 2, "max_epochs": 2, "batch_size": 4, "learning_rate": 5e-3, "seed": 7,
        "early_stopping": EarlyStoppingSpec(enabled=False),
    }  # fmt: skip
    return Loop(model, data, TrainingSpec.model_validate(defaults | training), Standing(), lambda _: None, save)


def never() -> threading.Event:
    """A stop signal that never comes."""
    return threading.Event()
