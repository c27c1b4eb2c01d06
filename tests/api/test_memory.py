"""Estimates of memory: arithmetic that can be done by hand."""

import pytest

from finetune_api.layout import Layout
from finetune_api.memory import OVERHEAD, ModelShape, estimate_memory
from finetune_api.methods import MethodSpec, Quantization

SHAPE = ModelShape(
    linear=((100, 10), (20, 100)), other_parameters=500, vocabulary=50, layers=4, hidden=10, queries=8, keys=2,
    feed_forward=30,
)  # fmt: skip
SMALL = Layout(pass_tokens=100, inference_tokens=0)


def lora(rank: int = 4, **changes: object) -> MethodSpec:
    return MethodSpec.model_validate({"lora": {"rank": rank}, **changes})


def test_parameters_are_counted_by_kind() -> None:
    assert SHAPE.parameters == 1000 + 2000 + 500
    assert SHAPE.trained_parameters(lora(4)) == 4 * (110 + 120)
    assert SHAPE.trained_parameters(MethodSpec.model_validate({"lora": {"rank": 4, "dora": True}})) == 920 + 120
    assert SHAPE.trained_parameters(MethodSpec(type="full")) == SHAPE.parameters
    assert SHAPE.trained_parameters(MethodSpec.model_validate({"type": "prefix", "prefix": {"length": 3}})) == 3 * 4 * 4
    houlsby = MethodSpec.model_validate({"type": "bottleneck", "bottleneck": {"width": 5, "placement": "houlsby"}})
    assert SHAPE.trained_parameters(houlsby) == 8 * (2 * 50 + 15)


@pytest.mark.parametrize(("quantization", "want"), [("none", 2 * 3500), ("int8", 3000 + 1000), ("nf4", 1548 + 1000)])
def test_quantisation_shrinks_the_linear_layers_only(quantization: Quantization, want: int) -> None:
    assert estimate_memory(SHAPE, lora(quantization=quantization), SMALL).base == want
    expanded = Layout(expanded=True, pass_tokens=100, inference_tokens=0)
    assert estimate_memory(SHAPE, lora(quantization=quantization), expanded).base == 7000


def test_the_base_of_a_full_run_is_what_is_trained() -> None:
    estimate = estimate_memory(SHAPE, MethodSpec(type="full"), SMALL)
    assert (estimate.base, estimate.trained) == (0, 18 * 3500)


def test_layers_that_are_computed_again_keep_their_input_and_one_of_them_works() -> None:
    kept, given = 2 * (40 + 16 + 4 + 90), 2 * 10
    for again, want in [(0, 4 * kept), (1, 4 * kept + given), (4, kept + 4 * given), (9, kept + 4 * given)]:
        layout = Layout(recomputed=again, pass_tokens=100, inference_tokens=0)
        assert estimate_memory(SHAPE, lora(), layout).activations == 100 * want
    reading = Layout(pass_tokens=100, inference_tokens=7)
    assert estimate_memory(SHAPE, lora(), reading).activations == 100 * 4 * kept + 7 * kept


def test_frozen_layers_keep_no_input_and_dora_keeps_outputs_too() -> None:
    frozen = MethodSpec(type="prefix")
    dora = MethodSpec.model_validate({"lora": {"dora": True}})
    assert SHAPE.kept_per_token(lora()) - SHAPE.kept_per_token(frozen) == 2 * (2 * 10 + 30)
    assert SHAPE.kept_per_token(dora) - SHAPE.kept_per_token(lora()) == 2 * (100 + 20) // 4


def test_the_total_is_the_sum_and_grows_with_tokens_and_rank() -> None:
    small = estimate_memory(SHAPE, lora(4), SMALL, taught_share=0.5)
    large = estimate_memory(SHAPE, lora(8), Layout(pass_tokens=200, inference_tokens=0), taught_share=0.5)
    assert small.total == small.base + small.trained + small.activations + small.logits + OVERHEAD
    assert large.trained == 2 * small.trained == 2 * 16 * 4 * 230
    assert large.activations == 2 * small.activations
    assert small.logits == 50 * 50 * 10 + (2 * 50 + 2 * 100) * 20
