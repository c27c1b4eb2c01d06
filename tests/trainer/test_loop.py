"""The loop against plain torch, and against itself interrupted (traps 1, 7, 9, 19)."""

import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from finetune_api.run import Progress
from finetune_trainer.checkpoint import Checkpoint
from finetune_trainer.errors import Diverged, Stopped
from finetune_trainer.loop import Data
from finetune_trainer.loss import sees_neighbours
from support.rows import echo_rows
from support.tiny_models import write_tiny_model
from support.training import encode_all, load_adapted, losses_of, make_loop, never


@pytest.fixture(scope="module")
def data(tiny_llama: Path) -> Data:
    examples = encode_all(tiny_llama, echo_rows(26))
    return Data(examples[:19], examples[19:])


def gradients(tuned, examples, budget: int) -> dict[str, torch.Tensor]:
    """Gradients of one optimiser step over these rows, in passes of so many tokens."""
    loop = make_loop(tuned, Data(examples, examples), batch_size=len(examples), micro_batch_tokens=budget)
    loop.gradients.of(0, never())
    return {name: parameter.grad.clone() for name, parameter in tuned.parameters.items()}


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen"])
def test_packed_rows_give_the_losses_of_single_rows_computed_by_plain_transformers(family, request) -> None:
    folder = request.getfixturevalue(family)
    tuned = load_adapted(folder, exact=True)
    examples = encode_all(folder, echo_rows(7))
    with tuned.inference(adapted=True):
        got = losses_of(tuned, examples)
        want = []
        for example in examples:
            ids = torch.tensor([example.ids], device=tuned.device)
            with tuned.speaking() as speaker:
                losses = F.cross_entropy(speaker(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
            want.append(losses[torch.tensor(example.supervised[1:])])
    torch.testing.assert_close(got, torch.cat(want), rtol=1e-5, atol=1e-5)


def test_accumulated_gradients_equal_those_of_one_big_batch(tiny_llama: Path) -> None:
    examples = encode_all(tiny_llama, echo_rows(7))
    whole = gradients(load_adapted(tiny_llama, exact=True), examples, budget=8192)
    parts = gradients(load_adapted(tiny_llama, exact=True), examples, budget=128)
    # Dropout included: it does not depend on how rows are packed.
    for name, want in whole.items():
        torch.testing.assert_close(parts[name], want, rtol=1e-4, atol=1e-7)
    assert any(gradient.abs().max() > 0 for gradient in whole.values())


def test_every_adapter_weight_moves_at_the_default_rate_of_2e_5(tiny_llama: Path, data: Data) -> None:
    tuned = load_adapted(tiny_llama, "nf4")
    assert {parameter.dtype for parameter in tuned.parameters.values()} == {torch.float32}
    before = tuned.snapshot()
    loop = make_loop(tuned, data, learning_rate=2e-5, weight_decay=0.0, warmup_ratio=0.0, epochs=1, max_epochs=1)
    loop.run(never())
    after = {name: parameter.detach() for name, parameter in tuned.parameters.items()}
    assert loop.state.step == 5
    for name, weight in before.items():
        assert (weight != after[name]).float().mean() > 0.99, name


def test_training_lowers_the_loss_and_leaves_the_best_weights(tiny_llama: Path, data: Data) -> None:
    loop = make_loop(load_adapted(tiny_llama, "nf4"), data, epochs=6, max_epochs=6)
    state = loop.run(never())
    losses = dict(state.validation_loss)
    assert state.best_loss == min(losses.values()) < losses[0] - 0.5
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


def test_a_signal_within_a_long_step_drops_the_step_and_loses_nothing_else(tiny_llama: Path, data: Data) -> None:
    small = {"micro_batch_tokens": 128, "batch_size": 16}  # several passes a step
    want = make_loop(load_adapted(tiny_llama), data, **small).run(never())
    stop, saved = threading.Event(), []
    loop = make_loop(load_adapted(tiny_llama), data, saved.append, **small)

    def stop_in_the_next_pass(*_: object) -> None:
        if loop.state.step == 2:
            stop.set()

    loop.tuned.base.base_model.register_forward_pre_hook(stop_in_the_next_pass)
    with pytest.raises(Stopped, match="after step 2"):
        loop.run(stop)
    assert saved[-1].state.step == 2
    second = make_loop(load_adapted(tiny_llama), data, **small)
    second.resume(saved[-1])
    assert second.run(never()) == want


def test_patience_survives_a_restart(tiny_llama: Path, data: Data) -> None:
    stopping = {"epochs": 9, "max_epochs": 9, "early_stopping": {"patience": 3, "min_delta": 10}}
    saved: list[Checkpoint] = []
    want = make_loop(load_adapted(tiny_llama), data, saved.append, **stopping).run(never())
    assert want.step == 7  # the third validation after the one of the base: two an epoch of five steps
    waiting = next(checkpoint for checkpoint in saved if checkpoint.state.validations_without_gain == 2)
    resumed = make_loop(load_adapted(tiny_llama), data, **stopping)
    resumed.resume(waiting)
    assert resumed.run(never()) == want


def test_a_model_that_yields_no_numbers_is_blamed_before_training(tiny_llama: Path, data: Data) -> None:
    model = load_adapted(tiny_llama)
    with torch.no_grad():
        next(iter(model.parameters.values())).fill_(float("inf"))
    with pytest.raises(Diverged, match=r"is (nan|inf) before the first optimiser step"):
        make_loop(model, data).run(never())


def test_attention_models_keep_packed_rows_apart(tiny_llama: Path) -> None:
    for quantization in ("none", "nf4", "int8"):
        assert not sees_neighbours(load_adapted(tiny_llama, quantization))


def test_a_model_that_mixes_tokens_outside_attention_is_noticed_and_trained_row_by_row(tmp_path: Path) -> None:
    from transformers import Lfm2Config, Lfm2ForCausalLM

    write_tiny_model(tmp_path)
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"], initializer_range=0.2,
    )  # fmt: skip
    Lfm2ForCausalLM(config).save_pretrained(tmp_path)
    model = load_adapted(tmp_path)
    assert sees_neighbours(model)
    examples = encode_all(tmp_path, echo_rows(8))
    loop = make_loop(model, Data(examples[:6], examples[6:]))
    assert [len(packed.boundaries) for packed in loop.validation_packs] == [2, 2]
    loop.run(never())


def test_a_loss_that_blows_up_while_training_says_so_with_the_step(tiny_llama: Path, data: Data) -> None:
    loop = make_loop(load_adapted(tiny_llama), data)

    def poison(progress: Progress) -> None:
        if progress.step == 3:
            next(iter(loop.parameters.values())).data.fill_(float("nan"))

    loop.report = poison
    with pytest.raises(Diverged, match=r"became nan at step 4 of 10. Lower training.learningRate \(now 0.005\)"):
        loop.run(never())
