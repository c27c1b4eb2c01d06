"""Every method through training, interruption, saving and loading again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from finetune_api.methods import MethodSpec
from finetune_trainer.base import load_base, pick_device
from finetune_trainer.checkpoint import Checkpoint
from finetune_trainer.errors import InvalidConfig, ModelNotLoadable
from finetune_trainer.evaluate import generate
from finetune_trainer.loop import Data
from finetune_trainer.lora import merge_lora
from finetune_trainer.method import attach, load, trained_dtype
from finetune_trainer.tokens import load_tokenizer
from finetune_trainer.tuned import Tuned
from support.rows import echo_rows
from support.training import encode_all, losses_of, make_loop, never

Make = Callable[[], Tuned]
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora"},
    "lora-int8": {"type": "lora", "quantization": "int8"},
    "rslora": {"type": "lora", "lora": {"rslora": True, "rank": 32}},
    "dora": {"type": "lora", "lora": {"dora": True}},
    "dora-unquantised": {"type": "lora", "quantization": "none", "lora": {"dora": True}},
    "gaussian": {"type": "lora", "lora": {"init": "gaussian"}},
    "orthogonal": {"type": "lora", "quantization": "none", "lora": {"init": "orthogonal"}},
    "pissa": {"type": "lora", "quantization": "none", "lora": {"init": "pissa"}},
    "olora": {"type": "lora", "quantization": "none", "lora": {"init": "olora", "rslora": True}},
    "full": {"type": "full"},
    "prefix": {"type": "prefix", "prefix": {"length": 12}},
    "prefix-from-zero": {"type": "prefix", "quantization": "int8", "prefix": {"length": 5, "init": "zero"}},
    "bottleneck": {"type": "bottleneck", "bottleneck": {"width": 16, "dropout": 0.1}},
    "bottleneck-houlsby": {"type": "bottleneck", "quantization": "none", "bottleneck": {"placement": "houlsby"}},
}
RATES = {"lora": 5e-3, "full": 1e-3, "prefix": 2e-2, "bottleneck": 5e-3}


def make(folder: Path, method: MethodSpec) -> Tuned:
    base = load_base(folder, method.storage, pick_device(), dtype=trained_dtype(method))
    opening = [token for example in encode_all(folder, echo_rows(3)) for token in example.ids]
    return attach(base, method, 1, folder, opening)


@pytest.fixture(params=METHODS, ids=METHODS)
def method(request: pytest.FixtureRequest) -> MethodSpec:
    return MethodSpec.model_validate(METHODS[request.param])


@pytest.fixture(scope="module")
def data(tiny_llama: Path) -> Data:
    examples = encode_all(tiny_llama, echo_rows(26))
    return Data(examples[:19], examples[19:])


def losses(tuned: Tuned, data: Data, adapted: bool = True) -> torch.Tensor:
    with tuned.inference(adapted=adapted):
        return losses_of(tuned, data.validation)


def test_training_lowers_the_loss_and_leaves_the_bare_base_as_it_was(method, tiny_llama: Path, data: Data) -> None:
    tuned = make(tiny_llama, method)
    before = losses(tuned, data, adapted=False)
    loop = make_loop(tuned, data, epochs=6, max_epochs=6, learning_rate=RATES[method.type])
    state = loop.run(never())
    assert state.best_loss < state.validation_loss[0][1] - 0.15
    assert losses(tuned, data).mean().item() == pytest.approx(state.best_loss, rel=1e-3)
    torch.testing.assert_close(losses(tuned, data, adapted=False), before, rtol=0.01, atol=0.02)


def test_a_resumed_run_repeats_the_unbroken_one_bit_by_bit(method, tiny_llama: Path, data: Data) -> None:
    saved: list[Checkpoint] = []
    rate = {"learning_rate": RATES[method.type]}
    want = make_loop(make(tiny_llama, method), data, saved.append, **rate).run(never())
    middle = next(checkpoint for checkpoint in saved if checkpoint.state.step == 5)
    resumed = make_loop(make(tiny_llama, method), data, **rate)
    resumed.resume(middle)
    assert resumed.run(never()) == want


def test_what_is_saved_gives_the_same_losses_and_answers_when_it_is_loaded(
    method, tiny_llama: Path, data: Data, tmp_path: Path
) -> None:
    tuned = make(tiny_llama, method)
    make_loop(tuned, data, epochs=6, max_epochs=6, learning_rate=RATES[method.type]).run(never())
    tuned.save(tmp_path, "somebody/base")
    assert (tmp_path / tuned.weights).stat().st_size > 0
    again = load(tiny_llama, method.storage, tmp_path, pick_device())
    torch.testing.assert_close(
        losses(again, data, adapted=False), losses(tuned, data, adapted=False), rtol=0.02, atol=0.03
    )
    torch.testing.assert_close(losses(again, data), losses(tuned, data), rtol=0.02, atol=0.03)
    tokenizer, prompts = load_tokenizer(tiny_llama), [list(example.prompt_ids) for example in data.validation]
    answers = []
    for model in (tuned, again):
        with model.inference(adapted=True):
            answers.append(generate(model, tokenizer, prompts, 5))
    assert sum(mine == theirs for mine, theirs in zip(*answers, strict=True)) >= len(prompts) - 1


def test_methods_start_out_as_the_base_or_close_to_it(method, tiny_llama: Path, data: Data) -> None:
    tuned = make(tiny_llama, method)
    start, base = losses(tuned, data), losses(tuned, data, adapted=False)
    if method.type == "prefix":  # a prefix always takes some of the attention
        assert not torch.equal(start, base)
    else:
        torch.testing.assert_close(start, base, rtol=0.01, atol=0.02)


@pytest.mark.parametrize("name", ["prefix", "prefix-from-zero"])
def test_packed_rows_behind_a_prefix_have_the_losses_that_peft_gives_each_alone(name, tiny_llama, data) -> None:
    base = load_base(tiny_llama, "none", pick_device()).float()
    spec = MethodSpec.model_validate(METHODS[name] | {"quantization": "none"})
    tuned = attach(base, spec, 1, tiny_llama, list(range(5, 30)))
    got = losses(tuned, data)
    want = []
    with tuned.inference(adapted=True), tuned.speaking() as peft_model:
        for example in data.validation:
            ids = torch.tensor([example.ids], device=tuned.device)
            logits = peft_model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1]
            rows = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
            want.append(rows[torch.tensor(example.supervised[1:])])
    torch.testing.assert_close(got, torch.cat(want), rtol=1e-4, atol=1e-4)


def test_a_prefix_reaches_every_packed_row_with_its_gradients(tiny_llama: Path, data: Data) -> None:
    spec = MethodSpec.model_validate(METHODS["prefix"] | {"quantization": "none"})
    together, apart = (
        attach(load_base(tiny_llama, "none", pick_device()).float(), spec, 1, tiny_llama, [5, 6, 7]) for _ in range(2)
    )
    losses_of(together, data.validation).sum().backward()
    for example in data.validation:
        losses_of(apart, [example]).sum().backward()
    for mine, theirs in zip(together.parameters.values(), apart.parameters.values(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)
        assert mine.grad.abs().max() > 0


def test_an_adapter_of_another_model_or_a_damaged_one_is_told_as_such(tiny_llama, tmp_path: Path) -> None:
    for name in ("lora", "prefix", "bottleneck"):
        folder = tmp_path / name
        folder.mkdir()
        tuned = make(tiny_llama, MethodSpec.model_validate(METHODS[name] | {"quantization": "none"}))
        tuned.save(folder, "somebody/base")
        weights = folder / tuned.weights
        weights.write_bytes(weights.read_bytes()[:200])
        with pytest.raises(ModelNotLoadable, match=f"The adapter in {folder} does not fit the base model"):
            load(tiny_llama, "none", folder, pick_device())


def test_a_merged_adapter_taken_out_of_the_base_gives_the_trained_losses(
    tiny_llama: Path, data, tmp_path: Path
) -> None:
    tuned = make(tiny_llama, MethodSpec.model_validate(METHODS["pissa"]))
    make_loop(tuned, data, epochs=3, max_epochs=3, learning_rate=5e-3).run(never())
    tuned.save(tmp_path, "somebody/base")
    merged = attach(
        merge_lora(load_base(tiny_llama, "none", pick_device()), tmp_path),
        MethodSpec(type="bottleneck"),
        1,
        tiny_llama,
        [],
    )
    torch.testing.assert_close(losses(merged, data), losses(tuned, data), rtol=0.02, atol=0.03)


def test_a_model_without_named_blocks_cannot_take_bottlenecks(tmp_path: Path) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    base = GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    )
    for layer in base.gpt_neox.layers:
        layer.inner = layer.mlp
        del layer.mlp
    with pytest.raises(InvalidConfig, match="has no blocks called mlp"):
        attach(base, MethodSpec(type="bottleneck"), 1, tmp_path, [])


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen"])
def test_a_whole_model_is_stored_once_and_in_what_servers_load(family, tmp_path: Path, request) -> None:
    folder = request.getfixturevalue(family)  # Qwen2 ties its output head to the embeddings
    make(folder, MethodSpec(type="full")).save(tmp_path, "somebody/base")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert set(stored.values()) == {torch.bfloat16}
    assert ("lm_head.weight" in stored) == (family == "tiny_llama")
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16
