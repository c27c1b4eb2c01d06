"""Which progress is worth a line of the log, and what the line says."""

from typing import Any

import pytest

from finetune_api.run import Progress
from finetune_trainer import narration
from finetune_trainer.narration import Narrator, sentence


def train(step: int, **values: Any) -> Progress:
    return Progress(stage="train", step=step, total_steps=100, **values)


def told(*progress: Progress) -> list[str]:
    lines: list[str] = []
    narrator = Narrator(lines.append)
    for entry in progress:
        narrator.tell(entry)
    return lines


def test_steps_are_not_worth_a_line_each() -> None:
    assert told(*(train(step, train_loss=1.0) for step in range(1, 90))) == ["train: step 1 of 100, loss 1.000"]


def test_a_new_stage_a_message_and_a_validation_are() -> None:
    lines = told(
        Progress(stage="prepare", message="reading the data"),
        Progress(stage="train", message="loading the model"),
        train(1),
        train(2),
        train(2, validation_loss=2.5),
        train(3, validation_loss=2.5),
        train(4, validation_loss=2.5, message="asked to stop; saving first"),
    )
    assert lines == [
        "prepare: reading the data",
        "train: loading the model",
        "train: step 2 of 100, validation loss 2.500",
        "train: asked to stop; saving first",
    ]


def test_a_long_stage_gives_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narration, "LINE_SECONDS", 0.0)
    rows = [Progress(stage="evaluate", step=step, total_steps=40) for step in (10, 20)]
    assert told(*rows) == ["evaluate: row 10 of 40", "evaluate: row 20 of 40"]


def test_a_line_says_all_that_is_known() -> None:
    progress = train(
        31, epoch=1.26, train_loss=1.2144, validation_loss=1.3419, tokens_per_second=15100.4, eta_seconds=3751.2
    )
    assert sentence(progress) == (
        "train: step 31 of 100, epoch 1.3, loss 1.214, validation loss 1.342, 15,100 tokens/s, 1:02:31 left"
    )
