"""The model card, read as a hub reads it and followed as a person would."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from finetune_api.methods import METHOD_DEFAULTS, Method, MethodSpec, Quantization
from finetune_api.run import Setting
from finetune_trainer.base import load_base, pick_device
from finetune_trainer.card import code, plain, render_card
from finetune_trainer.method import attach, trained_dtype
from finetune_trainer.tokens import load_tokenizer
from finetune_trainer.tuned import Tuned
from support.reports import make_data, make_evaluation, make_model, make_outcome, make_report


def snippet(card: str) -> str:
    match = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert match
    return match[1]


def test_a_hub_reads_the_front_matter() -> None:
    card = ModelCard(render_card(make_report(data=make_data(uri="hf://clinic/triage"))))
    assert card.data.to_dict() == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": "adapter",
        "datasets": ["clinic/triage"],
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["base_model:adapter:HuggingFaceTB/SmolLM2-135M-Instruct", "lora", "transformers"],
    }
    assert card.text.lstrip().startswith("# clinic-triage")


def test_a_base_that_is_on_no_hub_is_not_claimed_to_be() -> None:
    card = render_card(make_report(model=make_model(uri="pvc://models/llama", revision="main")))
    front = yaml.safe_load(card.split("---\n")[1])
    assert front == {"library_name": "peft", "pipeline_tag": "text-generation", "tags": ["lora", "transformers"]}
    assert "`pvc://models/llama`; put the path of your copy in its place" in card
    assert "revision=" not in card
    assert "`main`, Llama" not in card


METHODS = [
    MethodSpec(type=method, quantization=quantization)
    for method in METHOD_DEFAULTS
    for quantization in get_args(Quantization)
    if method != "full" or quantization == "none"
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.type}-{method.quantization}")
def test_the_loading_instructions_work_and_give_what_was_trained(
    method: MethodSpec, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned, ids = perturbed(tiny_llama, method), list(range(3, 30))
    tuned.save(tmp_path, str(tiny_llama))
    load_tokenizer(tiny_llama).save_pretrained(tmp_path)
    want = speak(tuned, ids)
    with tuned.inference(adapted=False):
        base = speak(tuned, ids)
    scope = follow(method, tiny_llama, tmp_path)
    assert capsys.readouterr().out.endswith("\n")
    got = speak(scope.get("tuned", scope["model"]), ids)
    assert (got - want).abs().mean() < 0.1 * (base - want).abs().mean()
    assert getattr(scope.get("base"), "is_quantized", False) == (method.quantization != "none" and "tuned" not in scope)


def perturbed(folder: Path, method: MethodSpec) -> Tuned:
    """A model with something trained, as far as its answers go."""
    base = load_base(folder, method.storage, pick_device(), dtype=trained_dtype(method))
    tuned = attach(base, method, 1, folder, list(range(5, 60)))
    with torch.no_grad():
        for parameter in tuned.parameters.values():
            parameter.add_((0.02 if method.type == "full" else 0.2) * torch.randn_like(parameter))
    return tuned


def follow(method: MethodSpec, base: Path, folder: Path) -> dict[str, Any]:
    """What the card's program leaves when it is run."""
    model = make_model(uri=f"file://{base}", revision="main", method=method.type, quantization=method.storage)
    program = snippet(render_card(make_report(model=model), ["tokenizer_config.json"]))
    program = program.replace("PATH/TO/BASE", str(base)).replace("PATH/TO/THIS/FOLDER", str(folder))
    scope: dict[str, Any] = {}
    exec(program.replace("max_new_tokens=128", "max_new_tokens=4"), scope)
    return scope


def speak(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits, as whoever generates sees them."""
    speaking = model.speaking() if isinstance(model, Tuned) else nullcontext(model)
    with torch.no_grad(), speaking as speaker:
        logits: torch.Tensor = speaker(input_ids=torch.tensor([ids])).logits[0].float()
    return logits


def test_hubs_are_told_what_kind_of_thing_it_is() -> None:
    found = {}
    for method in METHOD_DEFAULTS:
        data = ModelCard(render_card(make_report(model=make_model(method=method)))).data
        found[method] = (data.base_model_relation, data.library_name, data.tags[1:-1])
    assert found == {
        "lora": ("adapter", "peft", ["lora"]),
        "full": ("finetune", "transformers", []),
        "prefix": ("adapter", "peft", ["prefix-tuning"]),
        "bottleneck": ("adapter", None, ["bottleneck-adapters"]),
    }


def test_a_whole_model_is_called_one_throughout() -> None:
    card = render_card(make_report(model=make_model(method="full", quantization="none")))
    assert "All weights of `hf://HuggingFaceTB/SmolLM2-135M-Instruct`, fine-tuned on" in card
    assert "**Passed.** The tuned model answers 31 of 36 held-out rows exactly; the base model 0 of 36." in card
    assert "| metric | base | tuned model |" in card
    assert "- Tuned model digest: `sha256:9b1c0d2e" in card
    assert "adapter" not in card.partition("## Settings")[0]


@pytest.mark.parametrize(
    ("method", "want"),
    [("lora", "`finetune merge RUN FOLDER`"), ("prefix", "cannot be merged"), ("bottleneck", "cannot be merged")],
)
def test_the_card_says_whether_it_can_be_merged(method: Method, want: str) -> None:
    assert want in " ".join(render_card(make_report(model=make_model(method=method))).split())


def test_the_tokenizer_comes_from_the_adapter_where_it_lies_there() -> None:
    report = make_report()
    assert "AutoTokenizer.from_pretrained(adapter)" in render_card(report, ["tokenizer_config.json"])
    assert 'AutoTokenizer.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")' in render_card(report)


def test_plain_text_models_are_not_shown_a_chat_template() -> None:
    program = snippet(render_card(make_report(data=make_data(format="text"))))
    assert "apply_chat_template" not in program
    compile(program, "card", "exec")


def test_the_card_says_what_was_measured_and_on_what() -> None:
    card = render_card(make_report())
    minus = "\N{MINUS SIGN}"
    for want in [
        "**Passed.** The adapter answers 31 of 36 held-out rows exactly; the base model 0 of 36.",
        "| Exact match (higher is better; decides) | 0.0 % | 86.1 % | +86.1 | [+72.2, +97.2] | 36 | 12 |",
        f"| Perplexity (lower is better) | 27.42 | 1.05 | {minus}26.37 | [{minus}33.90, {minus}20.12] | 36 | 12 |",
        "- Source: `s3://clinic/triage/clinic-triage.jsonl`",
        "- Fingerprint: `sha256:c0ffee",
        "- 240 rows, of which 4 dropped as exact duplicates and 8 left out",
        "| train | 169 | 58 | 14,382 | 2,366 |",
        "- Evaluated on 36 rows in 12 groups of the dataset above.",
        "| `training.learningRate` | `2e-4` | manifest |",
        "- Run: `20261123-3f9a1c2b` of `clinic/clinic-triage`, 23 November 2026, 14:02 UTC, attempt 2",
        "- Run digest: `sha256:3f9a1c2b",
        "torch 2.11.0",
        "- The test split holds 36 rows in 12 groups; a difference below about 20 points cannot be shown.",
    ]:
        assert want in card


@pytest.mark.parametrize("verdict", ["Inconclusive", "Failed"])
def test_a_card_never_hides_that_the_adapter_did_not_pass(verdict: str) -> None:
    card = render_card(make_report(outcome=make_outcome(evaluation=make_evaluation(verdict=verdict))))
    assert f"**{verdict}.**" in card
    assert "Passed" not in card


def test_a_card_without_an_evaluation_says_so() -> None:
    card = render_card(make_report(outcome=make_outcome(evaluation=None, adapter=None, message="Stopped.")))
    assert "**Not evaluated.** Stopped." in card
    assert "Evaluated on" not in card
    assert "None" not in card


def test_files_are_listed_in_order() -> None:
    card = render_card(make_report(), ["b.json", "a.safetensors"])
    assert card.endswith("## Files\n\n- `a.safetensors`\n- `b.json`\n")


def test_text_from_the_data_cannot_break_out_of_the_card() -> None:
    evil = "a|b`c\n<script>alert(1)</script> [x](y)"
    settings = [Setting(path="dataset.split.groupBy", value=evil, source="manifest")]
    card = render_card(make_report(settings=settings, warnings=[evil], name=evil, versions={evil: "1"}))
    (row,) = [line for line in card.splitlines() if line.startswith("| `dataset.split.groupBy`")]
    assert row == r"| `dataset.split.groupBy` | `` a\|b`c <script>alert(1)</script> [x](y) `` | manifest |"
    assert r"- a\|b\`c &lt;script>alert(1)&lt;/script> \[x\](y)" in card
    outside_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", card.replace(r"\`", ""), flags=re.DOTALL)
    assert "<script>" not in outside_code


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (plain("a_b *c*\n# d"), r"a\_b \*c\* # d"),
        (code("plain"), "`plain`"),
        (code("a`b"), "`` a`b ``"),
        (code("``"), "``` `` ```"),
        (code("a | b"), r"`a \| b`"),
    ],
)
def test_text_is_quoted_for_markdown(got: str, want: str) -> None:
    assert got == want
