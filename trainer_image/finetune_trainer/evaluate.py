"""Base and adapter on the same held-out rows, from one loaded model."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel

from finetune_api.report import Sample
from finetune_api.run import EvaluationOutcome, Progress
from finetune_api.training import EvaluationSpec, MetricName
from finetune_trainer.batches import pack_all
from finetune_trainer.errors import Stopped
from finetune_trainer.loss import token_losses
from finetune_trainer.model import autocast, inference
from finetune_trainer.scores import exact_match, token_f1
from finetune_trainer.statistics import Paired, compare, verdict
from finetune_trainer.tokens import Example, Tokenizer, stop_ids

SCORES = {"exactMatch": exact_match, "tokenF1": token_f1}
ROWS_AT_ONCE = 16
SAMPLES = 8

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Answers:
    """What one model said and how sure it was, row by row."""

    texts: list[str]
    """Generated answers; empty when nothing was generated."""
    losses: list[float]
    """Sum of the negative log-likelihoods of the taught tokens, nats."""


@dataclass(frozen=True)
class Comparison:
    """The outcome, and the rows that show it."""

    outcome: EvaluationOutcome
    samples: list[Sample]


def evaluate(
    model: PeftModel,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    spec: EvaluationSpec,
    budget: int,
    report: Report,
    stop: threading.Event,
) -> Comparison:
    """Answer every row with base and adapter and compare. Raises Stopped."""
    generating = any(name in SCORES for name in spec.metrics) and all(example.prompt_length for example in examples)
    done = 0

    def tick(rows: int) -> None:
        nonlocal done
        done += rows
        if stop.is_set():
            raise Stopped("Stopped while evaluating; run again to evaluate the trained adapter.")
        report(Progress(stage="evaluate", step=done, total_steps=2 * len(examples) * (1 + generating)))

    answers = {}
    for name in ("base", "adapter"):
        with inference(model, adapter=name == "adapter"):
            losses = _losses(model, examples, budget, tick)
            texts = _generate_all(model, tokenizer, examples, spec.max_new_tokens, tick) if generating else []
            answers[name] = Answers(texts, losses)
    return _compare(examples, answers["base"], answers["adapter"], spec, generating)


def _compare(
    examples: Sequence[Example], base: Answers, adapter: Answers, spec: EvaluationSpec, generating: bool
) -> Comparison:
    """Pure: answers to outcome."""
    names: list[MetricName] = [name for name in spec.metrics if generating or name == "perplexity"] or ["perplexity"]
    metrics = [compare(_pair(name, examples, base, adapter)) for name in names]
    primary = spec.primary_metric if spec.primary_metric in names else "perplexity"
    deciding = next(metric for metric in metrics if metric.name == primary)
    outcome = EvaluationOutcome(verdict=verdict(deciding), primary_metric=primary, metrics=metrics)
    return Comparison(outcome, _samples(examples, base, adapter) if generating else [])


def _pair(name: MetricName, examples: Sequence[Example], base: Answers, adapter: Answers) -> Paired:
    groups = [example.row.group for example in examples]
    if name == "perplexity":
        taught = [float(example.taught) for example in examples]
        return Paired(name, False, base.losses, adapter.losses, taught, groups, exponential=True)
    score = SCORES[name]
    before, after = (
        [score(text, example.row.answer) for text, example in zip(answers.texts, examples, strict=True)]
        for answers in (base, adapter)
    )
    return Paired(name, True, before, after, [1.0] * len(examples), groups)


def _samples(examples: Sequence[Example], base: Answers, adapter: Answers) -> list[Sample]:
    """A few rows spread evenly over the split, chosen without looking at the answers."""
    every = max(1, len(examples) // SAMPLES)
    return [
        Sample(
            row=example.row.number,
            prompt="\n".join(message.content for message in example.row.prompt),
            reference=example.row.answer,
            base=before,
            adapter=after,
        )
        for example, before, after in list(zip(examples, base.texts, adapter.texts, strict=True))[::every][:SAMPLES]
    ]


def _losses(model: PeftModel, examples: Sequence[Example], budget: int, tick: Callable[[int], None]) -> list[float]:
    """Summed negative log-likelihood of each example's taught tokens, nats."""
    losses = [0.0] * len(examples)
    for content, packed in pack_all(examples, budget):
        owners = torch.tensor(packed.owners)
        sums = torch.zeros(len(content)).index_add(0, owners, token_losses(model, packed).cpu())
        for index, value in zip(content, sums.tolist(), strict=True):
            losses[index] = value
        tick(len(content))
    return losses


def _generate_all(
    model: PeftModel, tokenizer: Tokenizer, examples: Sequence[Example], longest: int, tick: Callable[[int], None]
) -> list[str]:
    """Greedy answers, rows of similar length together."""
    order = sorted(range(len(examples)), key=lambda index: examples[index].prompt_length)
    answers = [""] * len(examples)
    for start in range(0, len(order), ROWS_AT_ONCE):
        batch = order[start : start + ROWS_AT_ONCE]
        texts = generate(model, tokenizer, [list(examples[index].prompt_ids) for index in batch], longest)
        for index, text in zip(batch, texts, strict=True):
            answers[index] = text
        tick(len(batch))
    return answers


def generate(model: PeftModel, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], longest: int) -> list[str]:
    """Greedy answers of up to `longest` tokens to tokenised prompts, padded on the left."""
    width = max(map(len, prompts))
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    device = next(model.parameters()).device
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    with autocast(model):
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=longest,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad,
            eos_token_id=sorted(stop_ids(tokenizer)),
        )
    return [text.strip() for text in tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)]
