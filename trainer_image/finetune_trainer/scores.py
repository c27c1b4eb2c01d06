"""How good one answer is: pure functions of answer and reference."""

import re
import unicodedata
from collections import Counter


def exact_match(answer: str, reference: str) -> float:
    """1 when both are the same text after Unicode normalisation (NFC) and white space folding, else 0."""
    return float(_fold(answer) == _fold(reference))


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, case folded (SQuAD's F1, Rajpurkar et al. 2016, section 6.1).

    Unlike SQuAD's script it drops no articles, so that it means the same in every language.
    """
    got, want = Counter(_words(answer)), Counter(_words(reference))
    if not got or not want:
        return float(got == want)
    shared = sum((got & want).values())
    return 2 * shared / (got.total() + want.total())


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFC", text).casefold())
