"""Accelerators: what is known of them, and what a run would take on one."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """An accelerator; figures of its maker."""

    name: str
    memory: int
    """Bytes."""
    matrix_rate: float
    """Multiplications and additions of bfloat16 matrices a second, dense."""
    bandwidth: float
    """Bytes a second from and to its memory."""


def _card(name: str, gib: int, tflops: float, gbytes: float) -> Card:
    return Card(name, gib * GIB, tflops * 1e12, gbytes * 1e9)


CARDS = (
    _card("H200", 141, 989, 4800),
    _card("H100", 80, 989, 3350),
    _card("H100 PCIe", 80, 756, 2000),
    _card("B200", 180, 2250, 8000),
    _card("A100 80GB", 80, 312, 2039),
    _card("A100 40GB", 40, 312, 1555),
    _card("L40S", 48, 362, 864),
    _card("RTX 4090", 24, 165, 1008),
    _card("A10", 24, 125, 600),
    _card("L4", 24, 121, 300),
    _card("RTX 3090", 24, 71, 936),
)
"""Known cards that multiply bfloat16, best first among equals."""


def card_called(name: str, memory: int) -> Card:
    """The known card that a driver's name speaks of, with the memory that is there; an A100 if none is known."""
    words = name.replace("-", " ").upper().split()
    known = [
        card for card in CARDS if set(card.name.upper().replace("80GB", "").replace("40GB", "").split()) <= set(words)
    ]
    best = max(known, key=lambda card: len(card.name.split()), default=CARDS[4])
    return Card(name, memory, best.matrix_rate, best.bandwidth)
