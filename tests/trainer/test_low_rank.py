"""LoRA's fused forward and backward passes against PEFT's own, and their kernels against plain torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from finetune_api.methods import Quantization
from finetune_trainer.low_rank import row_lengths
from finetune_trainer.tuned import Tuned
from support.rows import echo_rows
from support.training import encode_all, load_adapted, losses_of


def with_peft_itself(tuned: Tuned) -> Tuned:
    """The same model with PEFT's forward passes; dropout stays by keys, so that masks are the same."""
    for module in tuned.base.modules():
        if isinstance(module, LoraLayer):
            module.__dict__.pop("forward", None)
    return tuned


def losses_and_gradients(tuned: Tuned, folder: Path) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(0)
    for name, parameter in tuned.parameters.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
        elif "magnitude" in name:
            parameter.data *= torch.empty_like(parameter).uniform_(0.8, 1.2)
    losses = losses_of(tuned, encode_all(folder, echo_rows(6)), draw=(3, 4))
    losses.mean().backward()
    return losses.detach(), [parameter.grad for parameter in tuned.parameters.values()]


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_losses_and_gradients_are_those_of_peft(family: str, dropout: float, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(family)
    got = losses_and_gradients(load_adapted(folder, exact=True, dropout=dropout), folder)
    want = losses_and_gradients(with_peft_itself(load_adapted(folder, exact=True, dropout=dropout)), folder)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen"])
def test_dora_gives_the_losses_and_gradients_of_peft(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(family)
    settings: dict[str, object] = {"dora": True, "dropout": 0.0}  # PEFT drops nothing out in evaluation mode
    got = losses_and_gradients(load_adapted(folder, exact=True, **settings), folder)
    want = losses_and_gradients(with_peft_itself(load_adapted(folder, exact=True, **settings)), folder)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_on_a_quantised_base_they_are_those_of_peft_but_for_rounding(
    quantization: Quantization, dora: bool, tiny_llama: Path
) -> None:
    settings: dict[str, object] = {"dora": dora, "dropout": 0.0 if dora else 0.1}
    got = losses_and_gradients(load_adapted(tiny_llama, quantization, **settings), tiny_llama)
    want = losses_and_gradients(with_peft_itself(load_adapted(tiny_llama, quantization, **settings)), tiny_llama)
    torch.testing.assert_close(got[0], want[0], rtol=0.01, atol=0.01)
    for mine, theirs in zip(got[1], want[1], strict=True):
        assert (mine - theirs).norm() < 0.1 * theirs.norm()


def test_dropout_takes_part_in_dora(tiny_llama: Path) -> None:
    losses = [
        losses_and_gradients(load_adapted(tiny_llama, dora=True, dropout=rate), tiny_llama)[0] for rate in (0, 0.5)
    ]
    assert (losses[0] - losses[1]).abs().max() > 0.01


def test_lengths_of_rows_are_those_of_the_matrix_itself() -> None:
    torch.manual_seed(0)
    weight, down, up = torch.randn(30, 20), torch.randn(4, 20), torch.randn(30, 4)
    want = (weight + 0.7 * up @ down).norm(dim=1)
    torch.testing.assert_close(row_lengths(weight, down, up, 0.7), want)


def test_a_layer_called_without_its_siblings_computes_its_own_output(tiny_llama: Path) -> None:
    tuned = load_adapted(tiny_llama, exact=True)
    block, x = tuned.base.model.layers[0].self_attn, torch.randn(1, 5, 64, device=tuned.device)
    alone = block.k_proj(x)
    together = [projection(x) for projection in (block.q_proj, block.k_proj, block.v_proj)]
    torch.testing.assert_close(alone, together[1])
    changed = block.k_proj(x + 1)
    assert not torch.equal(changed, alone)


def test_the_triton_kernels_compute_what_plain_torch_does() -> None:
    code = Path(__file__).with_name("interpreted_kernels.py")
    ended = subprocess.run(
        [sys.executable, str(code)], capture_output=True, text=True, env={"TRITON_INTERPRET": "1", "PATH": ""}
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "12 comparisons\n"
