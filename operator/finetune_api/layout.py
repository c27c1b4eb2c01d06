"""How a run uses the memory of its device: the result is the same, the speed is not."""

from dataclasses import dataclass

FEWEST_TOKENS, MANY_TOKENS = 128, 8192
"""Of a pass: fewer save no memory worth having, and more hardly save time; many where nobody measures the memory."""


@dataclass(frozen=True)
class Layout:
    """What is kept in memory, and what is computed again."""

    expanded: bool = False
    """Whether quantised weights are kept dequantised."""
    recomputed: int = 0
    """Layers whose forward pass is computed again in the backward pass (Chen et al. 2016, arXiv 1604.06174)."""
    divided: int = 1
    """Processes that the layers of the base are divided over; 1 if each has all of them."""
    pass_tokens: int = MANY_TOKENS
    """Most tokens in one training pass."""
    inference_tokens: int = MANY_TOKENS
    """Most tokens in one forward pass that nothing is learned from."""
