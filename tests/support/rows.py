"""Rows for tests."""

import random

from finetune_trainer.rows import Message, Row


def chat_row(number: int, prompt: str, answer: str, group: str | None = None) -> Row:
    """One question and one answer."""
    return Row(number, group or f"g{number}", (Message("user", prompt), Message("assistant", answer)))


def echo_rows(count: int, seed: int = 0) -> list[Row]:
    """Ragged rows of a learnable task: name the urgency word that stands in the message."""
    rng = random.Random(seed)
    words = ["the", "patient", "has", "a", "fever", "and", "a", "cough", "since", "monday", "please", "book"]
    rows = []
    for number in range(1, count + 1):
        answer = rng.choice(["today", "week", "routine"])
        filler = " ".join(rng.choices(words, k=rng.randint(1, 14)))
        rows.append(chat_row(number, f"{filler} {answer} {number}", answer))
    return rows
