"""What counts as the same answer."""

import pytest

from finetune_trainer.scores import exact_match, token_f1


@pytest.mark.parametrize(
    ("answer", "reference", "want"),
    [(" a  b\n", "a b", 1), ("caf\u00e9", "cafe\u0301", 1), ("A b", "a b", 0), ("a b.", "a b", 0), ("", "a", 0)],
)
def test_exact_match(answer: str, reference: str, want: float) -> None:
    assert exact_match(answer, reference) == want


@pytest.mark.parametrize(
    ("answer", "reference", "want"),
    [
        ("a b", "a b", 1),
        ("A, B!", "a b", 1),
        ("a", "a b", 2 / 3),
        ("a a", "a", 2 / 3),
        ("x", "a b", 0),
        ("", "a", 0),
        ("", "", 1),
    ],
)
def test_token_f1(answer: str, reference: str, want: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(want)
