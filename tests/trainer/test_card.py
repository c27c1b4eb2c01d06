"""The model card, read as a hub reads it and followed as a person would."""

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from finetune_api.run import Setting
from finetune_api.training import Quantization
from finetune_trainer.card import code, plain, render_card
from finetune_trainer.model import save_adapter
from support.reports import make_data, make_evaluation, make_model, make_outcome, make_report
from support.training import load_adapted


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


@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
def test_the_loading_instructions_work(
    quantization: Quantization, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_adapter(load_adapted(tiny_llama, quantization), tmp_path, str(tiny_llama))
    card = render_card(make_report(model=make_model(uri=f"file://{tiny_llama}", quantization=quantization)))
    program = snippet(card).replace("PATH/TO/BASE", str(tiny_llama)).replace("PATH/TO/THIS/FOLDER", str(tmp_path))
    scope: dict[str, object] = {}
    exec(program.replace("max_new_tokens=128", "max_new_tokens=4"), scope)
    assert getattr(scope["base"], "is_quantized", False) == (quantization != "none")
    assert capsys.readouterr().out.endswith("\n")


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
