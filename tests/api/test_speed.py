"""Which layout is chosen for a card, and what it is foreseen to take."""

from dataclasses import replace

import pytest

from finetune_api.cards import CARDS, GIB, card_called
from finetune_api.layout import Layout
from finetune_api.memory import ModelShape, estimate_memory
from finetune_api.methods import MethodSpec
from finetune_api.speed import Lengths, foresee, least_memory, step_seconds, usable

LAYER = ((4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336))
SEVEN = ModelShape(LAYER * 32, 2 * 32000 * 4096 + 65 * 4096, 32000, 32, 4096, 4096, 1024, 14336)
LENGTHS = Lengths(typical_step=8000, largest_step=8400, longest_row=1024, taught_share=0.7)
H100 = next(card for card in CARDS if card.name == "H100")
NF4, PLAIN = MethodSpec(), MethodSpec(quantization="none")


def card(gib: float):
    return replace(H100, memory=int(gib * GIB))


def test_with_room_nothing_is_computed_twice_and_weights_are_kept_as_they_are_multiplied() -> None:
    found = foresee(SEVEN, NF4, H100, LENGTHS)
    assert found is not None
    assert found.layout == Layout(expanded=True, recomputed=0, pass_tokens=8400, inference_tokens=16384)


@pytest.mark.parametrize("gib", [80, 60, 48, 40, 32, 24, 20, 16, 14, 12, 10, 8, 7])
def test_whatever_is_chosen_fits_and_less_memory_never_makes_it_faster(gib: float) -> None:
    found, larger = foresee(SEVEN, NF4, card(gib), LENGTHS), foresee(SEVEN, NF4, card(gib + 2), LENGTHS)
    assert found is not None
    assert larger is not None
    assert estimate_memory(SEVEN, NF4, found.layout, 0.7).total <= usable(card(gib))
    assert larger.step_seconds <= found.step_seconds
    assert found.layout.pass_tokens >= LENGTHS.longest_row


def test_a_card_with_less_than_the_least_memory_takes_nothing_and_one_with_it_takes_the_run() -> None:
    for method in (NF4, PLAIN, MethodSpec(type="full"), MethodSpec(type="prefix")):
        least = least_memory(SEVEN, method, LENGTHS) / GIB
        assert foresee(SEVEN, method, card(least - 0.05), LENGTHS) is None
        assert foresee(SEVEN, method, card(least + 0.05), LENGTHS) is not None


def test_a_given_size_of_passes_is_no_choice() -> None:
    found = foresee(SEVEN, NF4, H100, LENGTHS, pass_tokens=2048)
    assert found is not None
    assert found.layout.pass_tokens == 2048


def test_time_grows_with_tokens_layers_computed_again_and_dequantising() -> None:
    def seconds(method: MethodSpec = NF4, lengths: Lengths = LENGTHS, **layout: object) -> float:
        return step_seconds(SEVEN, method, Layout(**{"expanded": True, "pass_tokens": 8400, **layout}), H100, lengths)

    assert seconds(lengths=replace(LENGTHS, typical_step=4000)) < 0.6 * seconds()
    assert 1.3 < seconds(recomputed=32) / seconds() < 1.5
    assert seconds(expanded=False) > seconds()
    assert seconds(expanded=False, method=PLAIN) == pytest.approx(seconds(), rel=0.01)
    assert seconds(pass_tokens=1024) > seconds()
    assert seconds(method=MethodSpec(type="full")) > 1.3 * seconds()


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("Something else", "A100 80GB"),
    ],
)
def test_a_driver_s_name_finds_the_card(name: str, want: str) -> None:
    known, found = next(card for card in CARDS if card.name == want), card_called(name, 5 * GIB)
    assert (found.name, found.memory) == (name, 5 * GIB)
    assert found.matrix_rate == known.matrix_rate
