"""How time and memory grow with rows, length, rank and model, by the function that `finetune plan` uses; no GPU needed.

Usage: python benchmarks/costs.py [--card H100]

Starting point: a model of 7 billion parameters in NF4, LoRA of rank 16, 1,875 rows of 331 tokens, 8 rows a step, 3
epochs.
"""

import argparse
from dataclasses import dataclass, replace

from workload import SHAPES, VOCABULARY

from finetune_api.cards import CARDS, GIB, Card
from finetune_api.memory import ModelShape
from finetune_api.methods import LoraSpec, MethodSpec
from finetune_api.speed import Lengths, foresee

EPOCHS = 3


@dataclass(frozen=True)
class Case:
    """One job."""

    shape: str = "7b"
    rows: int = 1875
    tokens: int = 331
    """Of an average row."""
    longest: int = 1024
    rank: int = 16
    batch: int = 8


START = Case()
CASES = {
    "start": START,
    "twice the rows": replace(START, rows=2 * START.rows),
    "rows of twice the length": replace(START, tokens=2 * START.tokens, longest=2 * START.longest),
    "24 rows a step": replace(START, batch=24),
    "rank 8": replace(START, rank=8),
    "rank 64": replace(START, rank=64),
    "3 billion parameters": replace(START, shape="3b"),
    "1 billion parameters": replace(START, shape="1b"),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--card", default="H100", choices=[card.name for card in CARDS])
    card = next(card for card in CARDS if card.name == parser.parse_args().card)
    print("| job | tokens/s | minutes of training | peak GiB |", "|---|---|---|---|", sep="\n")
    for name, case in CASES.items():
        print(as_row(name, case, card))


def as_row(name: str, case: Case, card: Card) -> str:
    """A row of the table."""
    step = case.batch * case.tokens
    lengths = Lengths(step, 2 * step, case.longest, 0.7)
    found = foresee(shape_of(case.shape), MethodSpec(lora=LoraSpec(rank=case.rank)), card, lengths, None)
    assert found is not None
    minutes = EPOCHS * case.rows * case.tokens / found.tokens_per_second / 60
    return f"| {name} | {found.tokens_per_second:,.0f} | {minutes:.1f} | {found.memory.total / GIB:.1f} |"


def shape_of(name: str) -> ModelShape:
    """The shape of a model of workload.py."""
    given = SHAPES[name]
    hidden, inner, layers = (given[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    keys = hidden // given["num_attention_heads"] * given["num_key_value_heads"]
    layer = [
        (hidden, hidden),
        (keys, hidden),
        (keys, hidden),
        (hidden, hidden),
        *2 * [(inner, hidden)],
        (hidden, inner),
    ]
    tables = 2 * VOCABULARY * hidden
    return ModelShape(tuple(layer * layers), tables, VOCABULARY, layers, hidden, hidden, keys, inner)


if __name__ == "__main__":
    main()
