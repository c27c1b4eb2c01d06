"""A training run on a tiny model, in memory."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from finetune_api.layout import Layout
from finetune_api.methods import LoraSpec, Quantization
from finetune_api.training import EarlyStoppingSpec, TrainingSpec
from finetune_trainer.base import load_base, pick_device
from finetune_trainer.batches import pack
from finetune_trainer.checkpoint import Checkpoint
from finetune_trainer.loop import Data, Loop
from finetune_trainer.lora import attach_lora
from finetune_trainer.loss import make_batch, token_losses
from finetune_trainer.rows import Row
from finetune_trainer.session import Standing
from finetune_trainer.tokens import Example, encode, load_tokenizer
from finetune_trainer.tuned import Tuned


def load_adapted(
    folder: Path, quantization: Quantization = "none", seed: int = 1, exact: bool = False, **lora: object
) -> Tuned:
    """A loaded base with a fresh LoRA adapter; if exact, computing in float32."""
    base = load_base(folder, quantization, pick_device())
    return attach_lora(base.float() if exact else base, LoraSpec.model_validate({"dropout": 0.1, **lora}), seed)


def losses_of(tuned: Tuned, examples: Sequence[Example], draw: tuple[int, int] | None = None) -> Tensor:
    """Losses of the taught tokens of examples in one pack."""
    return token_losses(tuned, make_batch(pack(examples), tuned.device, draw))


def encode_all(folder: Path, rows: Sequence[Row]) -> list[Example]:
    """Tokenise rows with the folder's tokenizer."""
    tokenizer = load_tokenizer(folder)
    return [encode(row, tokenizer) for row in rows]


def make_loop(
    tuned: Tuned, data: Data, save: Callable[[Checkpoint], object] = lambda _: None, **training: object
) -> Loop:
    """A loop over two quick epochs unless told otherwise."""
    defaults: dict[str, object] = {
        "epochs": 2, "max_epochs": 2, "batch_size": 4, "learning_rate": 5e-3, "seed": 7,
        "early_stopping": EarlyStoppingSpec(enabled=False),
    }  # fmt: skip
    spec = TrainingSpec.model_validate(defaults | training)
    layout = Layout(pass_tokens=spec.micro_batch_tokens or 8192)
    return Loop(tuned, data, spec, layout, Standing(), lambda _: None, save)


def never() -> threading.Event:
    """A stop signal that never comes."""
    return threading.Event()
