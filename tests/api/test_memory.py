"""Estimates of memory: arithmetic that can be done by hand."""

import pytest

from finetune_api.memory import ModelShape, estimate_memory
from finetune_api.training import Quantization

SHAPE = ModelShape(linear=((100, 10), (20, 100)), other_parameters=500, vocabulary=50)


def test_parameters_are_counted_by_kind() -> None:
    assert SHAPE.parameters == 1000 + 2000 + 500
    assert SHAPE.lora_parameters(4) == 4 * (110 + 120)


@pytest.mark.parametrize(("quantization", "want"), [("none", 2 * 3500), ("int8", 3000 + 1000), ("nf4", 1548 + 1000)])
def test_quantisation_shrinks_the_linear_layers_only(quantization: Quantization, want: int) -> None:
    assert estimate_memory(SHAPE, quantization, 4, 0, 0).base == want


def test_the_total_is_the_sum_and_grows_with_tokens_and_rank() -> None:
    small, large = estimate_memory(SHAPE, "nf4", 4, 10, 5), estimate_memory(SHAPE, "nf4", 8, 20, 10)
    assert small.total == small.base + small.adapter + small.activations + small.logits
    assert large.adapter == 2 * small.adapter == 2 * 16 * 4 * 230
    assert (large.activations, large.logits) == (2 * small.activations, 2 * small.logits)
