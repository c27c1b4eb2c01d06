"""Losses of the trainer beside those of the plain path: transformers' and PEFT's own operations on padded rows.

Usage: python benchmarks/losses.py MODEL ROWS [--steps 20] [--at-once 4] [--quantization nf4] [--learning-rate 2e-4]
       [--exact]

Both start from the same weights and see the same rows in the same steps, with the same entries dropped out (dropout
0.05). The plain path pads, computes attention with a mask, keeps all logits, and uses no fused operation; steps longer
than `--at-once` rows are accumulated. With `--exact`, both compute in
float32, so that only the order of additions differs. Prints both losses of every step.
"""

import argparse
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor

from finetune_api.layout import Layout
from finetune_api.methods import LoraSpec
from finetune_api.training import DatasetSpec, TrainingSpec
from finetune_trainer.base import load_base, pick_device
from finetune_trainer.blocks import use_fused_blocks
from finetune_trainer.files import read_records
from finetune_trainer.formats import rows_of
from finetune_trainer.keyed_dropout import row_key, token_keys
from finetune_trainer.loop import Data, Loop
from finetune_trainer.lora import attach_lora
from finetune_trainer.schedule import learning_rate
from finetune_trainer.session import Standing
from finetune_trainer.tokens import Example, encode, load_tokenizer
from finetune_trainer.tuned import Tuned


def main() -> None:
    """Both paths, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--quantization", default="nf4")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--exact", action="store_true")
    options = parser.parse_args()
    tokenizer = load_tokenizer(options.model)
    rows = rows_of(read_records([options.rows], str(options.rows)), DatasetSpec(uri=f"file://{options.rows}")).rows
    data = Data([encode(row, tokenizer) for row in rows[24:]], [encode(row, tokenizer) for row in rows[:24]])
    training = TrainingSpec(learning_rate=options.learning_rate, epochs=3, max_epochs=3)

    fused = make_loop(load(options, fused=True), data, training)
    for _ in range(options.steps):
        fused._step(threading.Event())
    fused._read()
    ours = [loss for _, loss in fused.state.train_loss]
    del fused
    theirs = plain_losses(load(options, fused=False), data, training, options.steps, options.at_once)
    for step, (mine, plain) in enumerate(zip(ours, theirs, strict=True), start=1):
        print(f"step {step:3}   trainer {mine:.5f}   plain {plain:.5f}   difference {mine / plain - 1:+.2%}")
    apart = [abs(mine - plain) for mine, plain in zip(ours, theirs, strict=True)]
    print(f"difference in nats: {sum(apart) / len(apart):.5f} on average, {max(apart):.5f} at most")


def load(options: argparse.Namespace, fused: bool) -> Tuned:
    """The same base and adapter, with the trainer's operations or without."""
    base = load_base(options.model, options.quantization, pick_device(), expanded=fused or options.exact)
    if options.exact:
        base.float()
    if fused:
        use_fused_blocks(base)
    tuned = attach_lora(base, LoraSpec(dropout=0.05), seed=1)
    for module in tuned.base.modules():
        if isinstance(module, LoraLayer) and not fused:
            module.__dict__.pop("forward", None)
    return tuned


def make_loop(tuned: Tuned, data: Data, training: TrainingSpec) -> Loop:
    """The trainer's loop."""
    return Loop(tuned, data, training, Layout(expanded=True), Standing(), lambda _: None, lambda _: None)


def plain_losses(tuned: Tuned, data: Data, training: TrainingSpec, steps: int, at_once: int) -> list[float]:
    """Losses of a loop that does nothing cleverly."""
    order, losses = make_loop(tuned, data, training), []
    optimizer = torch.optim.AdamW(tuned.parameters.values(), weight_decay=training.weight_decay)
    for step in range(steps):
        rows = order.gradients.rows_of(step)
        taught, total = sum(row.taught for row in rows), 0.0
        optimizer.zero_grad()
        for start in range(0, len(rows), at_once):
            loss = padded_losses(tuned, rows[start : start + at_once], (training.seed, step)).sum() / taught
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(tuned.parameters.values(), training.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training.peak_rate, order.schedule)
        optimizer.step()
        losses.append(total)
    return losses


def padded_losses(tuned: Tuned, rows: Sequence[Example], draw: tuple[int, int]) -> Tensor:
    """Losses of the taught tokens, all rows padded on the right."""
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    keys = torch.ones(len(rows), width, dtype=torch.int32)
    for place, row in enumerate(rows):
        length = len(row.ids)
        ids[place, :length], mask[place, :length] = torch.tensor(row.ids), 1
        keys[place, :length] = token_keys([row_key(*draw, row.row.number)], [length])
        wanted = torch.tensor([token if learn else -100 for token, learn in zip(row.ids, row.supervised, strict=True)])
        labels[place, : length - 1] = wanted[1:]
    tuned.draw.tokens = keys.flatten().to(tuned.device)
    with tuned.speaking() as model:
        logits = model(input_ids=ids.to(tuned.device), attention_mask=mask.to(tuned.device), use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten().to(tuned.device), reduction="none")


if __name__ == "__main__":
    main()
