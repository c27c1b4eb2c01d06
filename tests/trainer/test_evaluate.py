"""Base and adapter on the same rows."""

import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.run import Progress
from finetune_api.training import EvaluationSpec
from finetune_trainer.errors import Stopped
from finetune_trainer.evaluate import Comparison, evaluate, generate
from finetune_trainer.loop import Data
from finetune_trainer.rows import Row
from finetune_trainer.tokens import load_tokenizer
from finetune_trainer.tuned import Tuned
from support.rows import echo_rows
from support.training import encode_all, load_adapted, make_loop, never


@pytest.fixture(scope="module")
def trained(tiny_llama: Path) -> Tuned:
    """A model that has learnt to echo, for the most part."""
    model = load_adapted(tiny_llama, "nf4")
    examples = encode_all(tiny_llama, echo_rows(80))
    make_loop(model, Data(examples[:70], examples[70:]), epochs=6, max_epochs=6).run(never())
    return model


def judge(model: Tuned, folder: Path, rows: list[Row], tell: Any = lambda _: None, **spec: Any) -> Comparison:
    evaluation = EvaluationSpec.model_validate({"maxNewTokens": 6, **spec})
    examples = encode_all(folder, rows)
    return evaluate(model, load_tokenizer(folder), examples, evaluation, 4096, tell, threading.Event())


def test_answers_in_a_padded_batch_are_those_given_alone(trained: Tuned, tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(tiny_llama)
    prompts = [list(example.prompt_ids) for example in encode_all(tiny_llama, echo_rows(9, seed=3))]
    assert len({len(prompt) for prompt in prompts}) > 3
    exact = load_adapted(tiny_llama, exact=True)
    exact.restore(trained.snapshot())
    with exact.inference(adapted=True):
        together = generate(exact, tokenizer, prompts, 6)
        alone = [generate(exact, tokenizer, [prompt], 6)[0] for prompt in prompts]
    assert together == alone
    assert any(together)


def test_generation_ends_at_the_token_that_ends_a_turn(trained: Tuned, tiny_llama: Path) -> None:
    rows = echo_rows(12, seed=3)
    with trained.inference(adapted=True):
        answers = generate(
            trained, load_tokenizer(tiny_llama), [list(e.prompt_ids) for e in encode_all(tiny_llama, rows)], 40
        )
    assert set(answers) <= {"today", "week", "routine"}


def test_the_base_is_the_model_with_its_adapter_switched_off(trained: Tuned, tiny_llama: Path) -> None:
    rows = echo_rows(12, seed=3)
    bare = judge(load_adapted(tiny_llama, "nf4"), tiny_llama, rows).outcome
    outcome = judge(trained, tiny_llama, rows).outcome
    for ours, fresh in zip(outcome.metrics, bare.metrics, strict=True):
        assert ours.base == pytest.approx(fresh.base, rel=1e-3)
        assert fresh.difference == 0
        assert fresh.ci == (0, 0)
    by_name = {metric.name: metric for metric in outcome.metrics}
    assert by_name["perplexity"].adapter < by_name["perplexity"].base
    assert outcome.verdict == "Passed"
    assert bare.verdict == "Inconclusive"


def test_perplexity_is_that_of_plain_transformers(trained: Tuned, tiny_llama: Path) -> None:
    rows = echo_rows(5, seed=4)
    got = judge(trained, tiny_llama, rows, metrics=["perplexity"], primaryMetric="perplexity").outcome.metrics[0]
    total, taught = 0.0, 0
    with trained.inference(adapted=True), trained.speaking() as speaker:
        for example in encode_all(tiny_llama, rows):
            ids = torch.tensor([example.ids], device=trained.device)
            labels = ids.masked_fill(~torch.tensor([example.supervised], device=trained.device), -100)
            total += speaker(input_ids=ids, labels=labels).loss.item() * example.taught
            taught += example.taught
    assert got.adapter == pytest.approx(math.exp(total / taught), rel=0.02)


def test_plain_text_is_judged_by_perplexity_and_nothing_is_generated(trained: Tuned, tiny_llama: Path) -> None:
    rows = [Row(number, f"g{number}", text=f"a fever since monday {number}") for number in range(1, 6)]
    comparison = judge(trained, tiny_llama, rows)
    assert [metric.name for metric in comparison.outcome.metrics] == ["perplexity"]
    assert comparison.outcome.primary_metric == "perplexity"
    assert comparison.samples == []


def test_progress_counts_every_row_of_both_models_and_samples_are_spread(trained: Tuned, tiny_llama: Path) -> None:
    seen: list[Progress] = []
    comparison = judge(trained, tiny_llama, echo_rows(20), seen.append)
    assert seen[-1].step == seen[-1].total_steps == 20 * 4
    assert [sample.row for sample in comparison.samples] == [1, 3, 5, 7, 9, 11, 13, 15]


def test_a_stop_ends_the_evaluation_at_the_next_batch(trained: Tuned, tiny_llama: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        evaluate(
            trained, load_tokenizer(tiny_llama), encode_all(tiny_llama, echo_rows(4)), EvaluationSpec(), 4096,
            lambda _: None, stop,
        )  # fmt: skip
