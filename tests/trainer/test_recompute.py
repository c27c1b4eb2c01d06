"""Layers that are computed again give the numbers of layers that are kept."""

from pathlib import Path

import pytest
import torch

from finetune_api.methods import LoraSpec
from finetune_trainer.base import load_base, pick_device
from finetune_trainer.lora import attach_lora
from finetune_trainer.recompute import recompute
from finetune_trainer.tuned import Tuned
from support.rows import echo_rows
from support.training import encode_all, losses_of


def tuned(folder: Path, count: int) -> Tuned:
    base = load_base(folder, "nf4", pick_device())
    recompute(base, count)
    return attach_lora(base, LoraSpec(dropout=0.2), seed=1)


@pytest.mark.parametrize("count", [1, 2])
def test_gradients_are_the_same_with_dropout_and_packed_rows(count: int, tiny_llama: Path) -> None:
    examples, gradients = encode_all(tiny_llama, echo_rows(5)), []
    for again in (0, count):
        model = tuned(tiny_llama, again)
        losses_of(model, examples, draw=(1, 2)).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters.values()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_less_is_kept_for_the_backward_pass(tiny_llama: Path) -> None:
    examples, sizes = encode_all(tiny_llama, echo_rows(5)), []
    for again in (0, 2):
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=kept: (kept.append(tensor.numel()), tensor)[1], lambda tensor: tensor
        ):
            losses_of(tuned(tiny_llama, again), examples).sum()
        sizes.append(sum(kept))
    assert sizes[1] < sizes[0] / 2
