"""Progress as lines of text: what is worth a line, and what it says."""

import time
from collections.abc import Callable
from datetime import timedelta

from finetune_api.run import Progress

LINE_SECONDS = 30.0
"""At most one line on steps in this time."""


class Narrator:
    """Says what is news at once, and now and then how far a stage is."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: Progress | None = None
        self._said_at = 0.0

    def tell(self, progress: Progress) -> None:
        """Say the line for this progress if it is due."""
        due = time.monotonic() - self._said_at >= LINE_SECONDS
        if is_news(self._last, progress) or due:
            self._say(sentence(progress))
            self._said_at = time.monotonic()
        self._last = progress


def is_news(before: Progress | None, now: Progress) -> bool:
    """A new stage or message, a validation."""
    if before is None or now.message not in (None, before.message):
        return True
    return now.stage != before.stage or now.validation_loss != before.validation_loss


def sentence(progress: Progress) -> str:
    """train: step 310 of 940, epoch 1.3, loss 1.214, validation loss 1.342, 15,100 tokens/s, 0:12:31 left."""
    if progress.message:
        return f"{progress.stage}: {progress.message}"
    thing = "step" if progress.stage == "train" else "row"
    facts = [
        f"{thing} {progress.step} of {progress.total_steps}",
        _fact("epoch {:.1f}", progress.epoch if progress.stage == "train" else None),
        _fact("loss {:.3f}", progress.train_loss),
        _fact("validation loss {:.3f}", progress.validation_loss),
        _fact("{:,.0f} tokens/s", progress.tokens_per_second),
        _fact("{} left", timedelta(seconds=round(progress.eta_seconds)) if progress.eta_seconds else None),
    ]
    return f"{progress.stage}: {', '.join(fact for fact in facts if fact)}"


def _fact(text: str, value: object) -> str:
    return "" if value is None else text.format(value)
