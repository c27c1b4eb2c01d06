"""Base and adapter on the same held-out rows, from one loaded model."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from finetune_api.report import Sample
from finetune_api.run import EvaluationOutcome, Progress
from finetune_api.training import EvaluationSpec, MetricName
from finetune_trainer.architecture import key_value_heads
from finetune_trainer.batches import pack_all
from finetune_trainer.errors import Stopped
from finetune_trainer.group import Group
from finetune_trainer.loss import make_batch, token_losses
from finetune_trainer.place import Place
from finetune_trainer.scores import exact_match, token_f1
from finetune_trainer.statistics import Paired, compare, verdict
from finetune_trainer.tokens import Example, Tokenizer, stop_ids
from finetune_trainer.tuned import Tuned

SCORES = {"exactMatch": exact_match, "tokenF1": token_f1}
ROWS_ON_CPU, MOST_ROWS = 16, 256
SHARE_FOR_CACHE = 0.4
"""Share of a card's free memory that keys and values may take; growing them copies them."""
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
    tuned: Tuned,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    spec: EvaluationSpec,
    budget: int,
    report: Report,
    stop: threading.Event,
    group: Group | None = None,
) -> Comparison:
    """Answer every row with base and adapter, each process its share of them, and compare. Raises Stopped."""
    group = group if group and not tuned.sharded else Group(Place())
    generating = any(name in SCORES for name in spec.metrics) and all(example.prompt_length for example in examples)
    mine = group.place.share(examples)
    done = 0

    def tick(rows: int) -> None:
        nonlocal done
        done += rows * group.place.size
        if stop.is_set():
            raise Stopped("Stopped while evaluating; run again to evaluate what was trained.")
        total = 2 * len(examples) * (1 + generating)
        report(Progress(stage="evaluate", step=min(done, total), total_steps=total))

    answers = {}
    for name in ("base", "adapter"):
        with tuned.inference(adapted=name == "adapter"):
            losses = _losses(tuned, mine, budget, tick)
            texts = _generate_all(tuned, tokenizer, mine, spec.max_new_tokens, tick) if generating and mine else []
            answers[name] = Answers(group.collect(texts), group.collect(losses))
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


def _losses(tuned: Tuned, examples: Sequence[Example], budget: int, tick: Callable[[int], None]) -> list[float]:
    """Summed negative log-likelihood of each example's taught tokens, nats."""
    losses = [0.0] * len(examples)
    for content, packed in pack_all(examples, budget):
        owners = torch.tensor(packed.owners)
        sums = torch.zeros(len(content)).index_add(
            0, owners, token_losses(tuned, make_batch(packed, tuned.device)).cpu()
        )
        for index, value in zip(content, sums.tolist(), strict=True):
            losses[index] = value
        tick(len(content))
    return losses


def _generate_all(
    tuned: Tuned, tokenizer: Tokenizer, examples: Sequence[Example], longest: int, tick: Callable[[int], None]
) -> list[str]:
    """Greedy answers, rows of similar length together."""
    order = sorted(range(len(examples)), key=lambda index: examples[index].prompt_length)
    answers = [""] * len(examples)
    at_once = rows_at_once(tuned, max(example.prompt_length for example in examples) + longest)
    for start in range(0, len(order), at_once):
        batch = order[start : start + at_once]
        texts = generate(tuned, tokenizer, [list(examples[index].prompt_ids) for index in batch], longest)
        for index, text in zip(batch, texts, strict=True):
            answers[index] = text
        tick(len(batch))
    return answers


def rows_at_once(tuned: Tuned, tokens: int) -> int:
    """How many rows of up to so many tokens are answered together."""
    if tuned.device.type != "cuda":
        return ROWS_ON_CPU
    config = tuned.base.config
    heads, dim = key_value_heads(config)
    row = tokens * config.num_hidden_layers * 2 * heads * dim * tuned.dtype.itemsize
    free, _ = torch.cuda.mem_get_info(tuned.device)
    return max(1, min(MOST_ROWS, int(SHARE_FOR_CACHE * free / row)))


def generate(tuned: Tuned, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], longest: int) -> list[str]:
    """Greedy answers of up to `longest` tokens to tokenised prompts, padded on the left."""
    width = max(map(len, prompts))
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    device = tuned.device
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    with tuned.speaking() as speaker:
        output = speaker.generate(
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
