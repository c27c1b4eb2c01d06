"""Full fine-tuning: every weight of the model is trained."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from finetune_trainer.base import load_base
from finetune_trainer.tuned import Tuned, trainable

WEIGHTS = "model.safetensors"


def attach_full(base: PreTrainedModel, source: Path) -> Tuned:
    """Train every weight of a float32 model that was loaded from `source`."""
    base.requires_grad_(True)

    @contextmanager
    def bare() -> Iterator[None]:
        """The weights as they were published, read again: a copy kept for the whole run would cost as much memory."""
        published = load_base(source, "none", torch.device("cpu"), dtype=torch.float32)
        _exchange(base, published)
        try:
            yield
        finally:
            _exchange(base, published)

    return Tuned(
        base=base,
        parameters=trainable(base),
        bare=bare,
        save=lambda folder, _: write_model(base, folder),
        weights=WEIGHTS,
    )


@torch.no_grad()
def _exchange(model: PreTrainedModel, other: PreTrainedModel) -> None:
    """Swap the values of two models, tensor by tensor."""
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        kept = mine.cpu().clone()
        mine.copy_(theirs)
        theirs.copy_(kept)


def write_model(model: PreTrainedModel, folder: Path) -> None:
    """Write a whole model as a hub would hold it, in bfloat16: half the size of float32, and what servers load."""
    halved: dict[int, Tensor] = {}  # by where they lie: tied weights stay one
    for value in model.state_dict().values():
        if value.data_ptr() not in halved:
            halved[value.data_ptr()] = value.to("cpu", torch.bfloat16 if value.is_floating_point() else value.dtype)
    weights = {name: halved[value.data_ptr()] for name, value in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights, max_shard_size="1TB")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}, indent=2))
