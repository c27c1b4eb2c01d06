"""Loading, quantising, attaching, merging (traps 9 to 12, 16, 23, 27)."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from finetune_api.layout import Layout
from finetune_api.memory import estimate_memory
from finetune_api.methods import LoraSpec, MethodSpec
from finetune_trainer.architecture import read_shape
from finetune_trainer.base import load_base, parameter_count, pick_device
from finetune_trainer.errors import InvalidConfig, ModelNotLoadable
from finetune_trainer.loop import Data
from finetune_trainer.lora import attach_lora, merge_lora
from finetune_trainer.tuned import Tuned, trainable
from support.rows import echo_rows
from support.tiny_models import write_tiny_model
from support.training import encode_all, load_adapted, losses_of, make_loop, never


@pytest.fixture(scope="module")
def trained(tiny_llama: Path) -> Tuned:
    examples = encode_all(tiny_llama, echo_rows(24))
    tuned = load_adapted(tiny_llama, "nf4")
    make_loop(tuned, Data(examples[:16], examples[16:]), epochs=3, max_epochs=3).run(never())
    return tuned


def logits(model: nn.Module | Tuned, ids: list[int]) -> torch.Tensor:
    speaking = model.speaking() if isinstance(model, Tuned) else nullcontext(model)
    with torch.no_grad(), speaking as speaker:
        return speaker(input_ids=torch.tensor([ids], device=speaker.device)).logits[0].float()


def test_nf4_is_nf4_and_norms_and_head_keep_their_dtype(tiny_llama: Path) -> None:
    model = load_base(tiny_llama, "nf4", pick_device())
    layer = model.model.layers[0]
    assert layer.mlp.up_proj.weight.quant_state.quant_type == "nf4"
    assert layer.input_layernorm.weight.dtype == model.lm_head.weight.dtype == model.dtype
    assert not trainable(model)


def test_an_evaluation_before_training_leaves_the_gradients_alone(tiny_llama: Path) -> None:
    example = encode_all(tiny_llama, echo_rows(8))
    norms = []
    for evaluate_first in (False, True):
        tuned = load_adapted(tiny_llama, "nf4", dropout=0.0)
        if evaluate_first:
            with tuned.inference(adapted=False):
                losses_of(tuned, example)
        losses_of(tuned, example).mean().backward()
        norms.append([parameter.grad.norm().item() for parameter in tuned.parameters.values()])
    assert norms[0] == norms[1]
    assert max(norms[0]) > 0


def test_a_fresh_adapter_changes_nothing_and_can_be_switched_off(tiny_llama: Path) -> None:
    tuned, ids = load_adapted(tiny_llama), list(range(3, 30))
    want = logits(load_base(tiny_llama, "none", pick_device()), ids)
    torch.testing.assert_close(logits(tuned, ids), want, rtol=0, atol=0)
    with torch.no_grad():
        for parameter in tuned.parameters.values():
            parameter.fill_(0.1)
    assert (logits(tuned, ids) - want).abs().max() > 0.1
    with tuned.inference(adapted=False):
        torch.testing.assert_close(logits(tuned, ids), want, rtol=0, atol=0)


def test_all_linear_reaches_every_linear_layer_but_the_head(tiny_llama: Path) -> None:
    adapted = {
        name.rsplit(".lora_A", 1)[0].rsplit(".", 1)[-1]
        for name in load_adapted(tiny_llama).parameters
        if "lora_A" in name
    }
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_an_unknown_target_module_is_answered_with_the_names_there_are(tiny_llama: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"no layer of this model is called query.*down_proj, gate_proj"):
        load_adapted(tiny_llama, targetModules=["query"])


def test_the_output_head_cannot_carry_an_adapter(tiny_llama: Path) -> None:
    with pytest.raises(InvalidConfig, match="lm_head is the output head"):
        load_adapted(tiny_llama, targetModules=["q_proj", "lm_head"])


def test_the_saved_adapter_gives_the_same_logits_in_plain_peft(trained, tiny_llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    trained.save(tmp_path, "somebody/base")
    plain = PeftModel.from_pretrained(load_base(tiny_llama, "nf4", pick_device()), tmp_path)
    ids = list(range(3, 40))
    with trained.autocast():
        torch.testing.assert_close(logits(plain, ids), logits(trained, ids), rtol=0.02, atol=0.02)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "somebody/base"
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_merging_a_quantised_adapter_keeps_its_logits(trained, tiny_llama: Path, tmp_path: Path) -> None:
    trained.save(tmp_path, "somebody/base")
    ids = list(range(3, 40))
    want = logits(trained, ids)
    merged = merge_lora(load_base(tiny_llama, "nf4", pick_device()), tmp_path)
    assert not any("4bit" in type(module).__name__ for module in merged.modules())
    plain = logits(load_base(tiny_llama, "none", pick_device()), ids)
    assert (logits(merged, ids) - want).abs().mean() < 0.05 * (plain - want).abs().mean()


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_weights_kept_dequantised_give_the_same_numbers(quantization, tiny_llama: Path) -> None:
    spec, examples = LoraSpec(dropout=0.1), encode_all(tiny_llama, echo_rows(6))
    losses, gradients = [], []
    for expanded in (False, True):
        tuned = attach_lora(load_base(tiny_llama, quantization, pick_device(), expanded=expanded), spec, seed=3)
        taught = losses_of(tuned, examples, draw=(1, 2))
        taught.mean().backward()
        losses.append(taught)
        gradients.append([parameter.grad for parameter in tuned.parameters.values()])
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_the_base_is_counted_as_published(tiny_llama: Path) -> None:
    want = sum(parameter.numel() for parameter in load_base(tiny_llama, "none", pick_device()).parameters())
    for quantization in ("none", "nf4", "int8"):
        assert parameter_count(load_adapted(tiny_llama, quantization)) == want


def copy_with_config(folder: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_a_model_that_is_no_text_generator_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    folder = copy_with_config(tiny_llama, tmp_path / "m", architectures=["LlamaForSequenceClassification"])
    with pytest.raises(ModelNotLoadable, match="LlamaForSequenceClassification, which is not a causal language model"):
        load_base(folder, "none", pick_device())


def test_damaged_weights_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_llama, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelNotLoadable, match=r"model\.safetensors is damaged .+Download it again"):
        load_base(tmp_path / "m", "none", pick_device())


def test_sliding_window_rows_longer_than_the_window_match_plain_transformers(tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    write_tiny_model(tmp_path)
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=5,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(tmp_path)
    tuned = load_adapted(tmp_path, exact=True)
    examples = encode_all(tmp_path, echo_rows(4))
    assert min(len(example.ids) for example in examples) > 5
    with tuned.inference(adapted=True):
        got = losses_of(tuned, examples)
        single = torch.cat([losses_of(tuned, [example]) for example in examples])
        ids = torch.tensor([examples[0].ids], device=tuned.device)
        plain = torch.nn.functional.cross_entropy(
            logits(tuned, list(examples[0].ids))[:-1], ids[0, 1:], reduction="none"
        )
    torch.testing.assert_close(got, single, rtol=1e-5, atol=1e-5)
    taught = plain[torch.tensor(examples[0].supervised[1:])]
    torch.testing.assert_close(got[: len(taught)], taught, rtol=1e-5, atol=1e-5)


def test_experts_stay_as_they_are_and_the_layers_beside_them_are_quantised_and_adapted(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    write_tiny_model(tmp_path)
    config = MixtralConfig(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    tuned = load_adapted(tmp_path, "nf4")
    assert {name.split(".")[-4] for name in tuned.parameters} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    shape = read_shape(tmp_path)
    stored = sum(p.numel() * p.element_size() for p in tuned.base.parameters() if not p.requires_grad)
    assert parameter_count(tuned) == shape.parameters
    assert estimate_memory(shape, MethodSpec(), Layout()).base == pytest.approx(stored, rel=0.01)


def test_the_update_is_scaled_by_alpha_over_rank(tiny_llama: Path) -> None:
    tuned = load_adapted(tiny_llama, rank=4, alpha=12)
    assert tuned.base.model.layers[0].mlp.up_proj.scaling == {"default": 3.0}
