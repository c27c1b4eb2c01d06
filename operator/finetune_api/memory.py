"""How much memory a run will need, from the shape of the model and the settings: a pure estimate.

Good to about a third; it leaves out what the allocator and the driver keep for themselves.
"""

from dataclasses import dataclass

from finetune_api.training import Quantization

BYTES_PER_WEIGHT: dict[Quantization, float] = {
    "nf4": 0.5 + 0.127 / 8,  # 4 bit and 0.127 bit of doubly quantised constants (arXiv 2305.14314, section 3)
    "int8": 1.0,
    "none": 2.0,
}
BYTES_PER_OTHER_WEIGHT = 2
BYTES_PER_TRAINED_WEIGHT = 16  # fp32 weight, gradient and AdamW's two moments
BYTES_PER_LOGIT = 12  # bf16 logit, its fp32 copy, log-softmax and gradient, not all alive at once


@dataclass(frozen=True)
class ModelShape:
    """What decides memory and time, read from the headers of the weight files."""

    linear: tuple[tuple[int, int], ...]
    """Output and input width of every linear layer but the output head."""
    other_parameters: int
    """Parameters that are never quantised: embeddings, output head, norms, biases."""
    vocabulary: int

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.other_parameters + sum(rows * columns for rows, columns in self.linear)

    def lora_parameters(self, rank: int) -> int:
        """Trained parameters of LoRA on every linear layer."""
        return sum(rank * (rows + columns) for rows, columns in self.linear)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by purpose."""

    base: int
    adapter: int
    """Adapter weights, gradients and optimiser state."""
    activations: int
    """What the backward pass keeps of one forward pass."""
    logits: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.base + self.adapter + self.activations + self.logits


def estimate_memory(
    shape: ModelShape, quantization: Quantization, rank: int, tokens: int, taught: int
) -> MemoryEstimate:
    """Memory of training with LoRA on forward passes of `tokens` tokens, `taught` of them supervised."""
    linear = sum(rows * columns for rows, columns in shape.linear)
    kept_per_token = sum(2 * rows + 6 * columns for rows, columns in shape.linear)  # outputs; inputs, dropped-out copy
    return MemoryEstimate(
        base=round(linear * BYTES_PER_WEIGHT[quantization] + shape.other_parameters * BYTES_PER_OTHER_WEIGHT),
        adapter=shape.lora_parameters(rank) * BYTES_PER_TRAINED_WEIGHT,
        activations=tokens * kept_per_token,
        logits=taught * shape.vocabulary * BYTES_PER_LOGIT,
    )
