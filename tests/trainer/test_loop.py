"""The loop against plain torch, and against itself interrupted (traps 1, 7, 9, 19)."""

import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from finetune_trainer.batches import pack
from finetune_trainer.checkpoint import Checkpoint
from finetune_trainer.errors import Diverged, Stopped
from finetune_trainer.loop import Data
from finetune_trainer.loss import token_losses
from finetune_trainer.model import inference, snapshot, trainable
from support.rows import echo_rows
from support.training import encode_all, load_adapted, make_loop, never


@pytest.fixture(scope="module")
def data(tiny_llama: Path) -> Data:
    examples = encode_all(tiny_llama, echo_rows(26))
    return Data(examples[:19], examples[19:])


def gradients(model, packs) -> dict[str, torch.Tensor]:
    """Gradients of one optimiser step over these packs, through the loop's own accumulation."""
    loop = make_loop(model, Data([], []))
    loop._accumulate(packs)
    return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen"])
def test_packed_rows_give_the_losses_of_single_rows_computed_by_plain_transformers(family, request) -> None:
    folder = request.getfixturevalue(family)
    model = load_adapted(folder).float()
    examples = encode_all(folder, echo_rows(7))
    with inference(model, adapter=True):
        got = token_losses(model, pack(examples))
        want = []
        for example in examples:
            ids = torch.tensor([example.ids])
            losses = F.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
            want.append(losses[torch.tensor(example.supervised[1:])])
    torch.testing.assert_close(got, torch.cat(want), rtol=1e-5, atol=1e-5)


def test_accumulated_gradients_equal_those_of_one_big_batch(tiny_llama: Path) -> None:
    examples = encode_all(tiny_llama, echo_rows(7))
    whole = gradients(load_adapted(tiny_llama, dropout=0.0).float(), [pack(examples)])
    parts = gradients(
        load_adapted(tiny_llama, dropout=0.0).float(), [pack(examples[:1]), pack(examples[1:3]), pack(examples[3:])]
    )
    for name, want in whole.items():
        torch.testing.assert_close(parts[name], want, rtol=1e-4, atol=1e-7)
    assert any(gradient.abs().max() > 0 for gradient in whole.values())


def test_every_adapter_weight_moves_at_the_default_rate_of_2e_5(tiny_llama: Path, data: Data) -> None:
    model = load_adapted(tiny_llama, "nf4")
    assert {parameter.dtype for parameter in trainable(model).values()} == {torch.float32}
    before = snapshot(model)
    loop = make_loop(model, data, learning_rate=2e-5, weight_decay=0.0, warmup_ratio=0.0, epochs=1, max_epochs=1)
    loop.run(never())
    after = {name: parameter.detach() for name, parameter in trainable(model).items()}
    assert loop.state.step == 5
    for name, weight in before.items():
        assert (weight != after[name]).float().mean() > 0.99, name


def test_training_lowers_the_loss_and_leaves_the_best_weights(tiny_llama: Path, data: Data) -> None:
    model = load_adapted(tiny_llama, "nf4")
    loop = make_loop(model, data, epochs=6, max_epochs=6)
    state = loop.run(never())
    losses = dict(state.validation_loss)
    assert state.best_loss == min(losses.values()) < losses[0] - 0.5
    loop.model.train()
    assert loop.validation_loss(never()) == pytest.approx(state.best_loss, abs=1e-6)


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_a_resumed_run_repeats_the_unbroken_one_bit_by_bit(quantization: str, tiny_llama: Path, data: Data) -> None:
    saved: list[Checkpoint] = []
    unbroken = make_loop(load_adapted(tiny_llama, quantization), data, saved.append)
    want = unbroken.run(never())
    middle = next(checkpoint for checkpoint in saved if checkpoint.state.step == 5)
    resumed = make_loop(load_adapted(tiny_llama, quantization), data)
    resumed.resume(middle)
    assert resumed.run(never()) == want
    for name, weight in unbroken.best.items():
        assert torch.equal(weight, resumed.best[name])


def test_a_signal_saves_and_the_next_attempt_ends_where_the_unbroken_run_does(tiny_llama: Path, data: Data) -> None:
    want = make_loop(load_adapted(tiny_llama), data).run(never())
    stop, saved = threading.Event(), []
    loop = make_loop(load_adapted(tiny_llama), data, saved.append)
    loop.report = lambda progress: stop.set() if progress.step == 4 else None
    with pytest.raises(Stopped, match="after step 4"):
        loop.run(stop)
    assert saved[-1].state.step == 4
    second = make_loop(load_adapted(tiny_llama), data)
    second.resume(saved[-1])
    assert second.run(never()) == want


def test_patience_survives_a_restart(tiny_llama: Path, data: Data) -> None:
    training = {
        "learning_rate": 0.9,
        "early_stopping": {"patience": 2},
        "epochs": 9,
        "max_epochs": 9,
        "max_grad_norm": 1000.0,
    }
    saved: list[Checkpoint] = []
    want = make_loop(load_adapted(tiny_llama), data, saved.append, **training).run(never())
    waiting = next(checkpoint for checkpoint in saved if checkpoint.state.validations_without_gain == 1)
    resumed = make_loop(load_adapted(tiny_llama), data, **training)
    resumed.resume(waiting)
    assert resumed.run(never()) == want
    assert want.step < 9 * 5


def test_a_loss_that_is_no_number_ends_the_run_in_one_sentence(tiny_llama: Path, data: Data) -> None:
    model = load_adapted(tiny_llama)
    with torch.no_grad():
        next(iter(trainable(model).values())).fill_(float("inf"))
    with pytest.raises(Diverged, match=r"became (nan|inf) at step 1 .* Lower training.learningRate"):
        make_loop(model, data).run(never())
