"""How much memory a run needs, from the shape of the model and the settings: pure arithmetic.

Compared with what torch reserves on two kinds of cards (docs/performance.md); the driver's own share comes on top.
"""

from dataclasses import dataclass

from finetune_api.cards import GIB
from finetune_api.layout import Layout
from finetune_api.methods import BottleneckSpec, LoraSpec, MethodSpec, PrefixSpec, Quantization

BYTES_PER_WEIGHT: dict[Quantization, float] = {
    "nf4": 0.5 + 0.127 / 8,  # 4 bit and 0.127 bit of doubly quantised constants (arXiv 2305.14314, section 3)
    "int8": 1.0,
    "none": 2.0,
}
BYTES = 2  # of a number in bfloat16
BYTES_PER_TRAINED = 16  # float32 weight, gradient and AdamW's two moments
BYTES_PER_FULL = 18  # the same, and a copy in bfloat16 to multiply with
LOGITS_AT_ONCE = 2**25
BYTES_PER_LOGIT = 10  # in bfloat16, in float32, and its gradient
OVERHEAD = round(0.6 * GIB)
"""What libraries and the allocator keep for themselves."""


@dataclass(frozen=True)
class ModelShape:
    """What decides memory and time, read from a model's configuration and the headers of its weight files."""

    linear: tuple[tuple[int, int], ...]
    """Output and input width of every linear layer but the output head."""
    other_parameters: int
    """Parameters that are never quantised: embeddings, output head, norms, biases."""
    vocabulary: int
    layers: int
    hidden: int
    """Width of the states between layers."""
    queries: int
    """Width of the queries of all heads together."""
    keys: int
    """Width of the keys of all heads together; values are as wide."""
    feed_forward: int
    """Inner width of the feed-forward block."""

    @property
    def linear_parameters(self) -> int:
        """Parameters of the linear layers but the output head."""
        return sum(rows * columns for rows, columns in self.linear)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.other_parameters + self.linear_parameters

    def kept_per_token(self, method: MethodSpec) -> int:
        """Bytes that the backward pass of one layer needs of a token.

        Inputs of both norms, queries and attended values, keys and values, and gate and up of the feed-forward block;
        for what is trained in the linear layers, their inputs, which are what norms give and the product of gate and
        up; for DoRA also their outputs.
        """
        kept = 2 * self.hidden + 2 * self.queries + 2 * self.keys + 2 * self.feed_forward
        if method.type in ("full", "lora"):
            kept += 2 * self.hidden + self.feed_forward
        return BYTES * kept + (self.outputs_per_token if is_dora(method) else 0)

    @property
    def outputs_per_token(self) -> int:
        """Bytes that the linear layers of one layer make of a token."""
        return BYTES * sum(rows for rows, _ in self.linear) // self.layers

    @property
    def input_per_token(self) -> int:
        """Bytes of a token between two layers."""
        return BYTES * self.hidden

    def trained_parameters(self, method: MethodSpec) -> int:
        """Parameters that a method trains; of LoRA, if it is on every linear layer."""
        match method.part:
            case LoraSpec(rank=rank, dora=dora):
                return sum(rank * (rows + columns) + dora * rows for rows, columns in self.linear)
            case PrefixSpec(length=length):
                return length * self.layers * 2 * self.keys
            case BottleneckSpec(width=width, placement=placement):
                each = 2 * width * self.hidden + width + self.hidden
                return each * self.layers * (2 if placement == "houlsby" else 1)
            case None:
                return self.parameters


def is_dora(method: MethodSpec) -> bool:
    """Whether lengths of rows are trained, too."""
    return isinstance(method.part, LoraSpec) and method.part.dora


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by purpose."""

    base: int
    trained: int
    """What is trained, with gradients and optimiser state."""
    activations: int
    """What the backward pass needs of the forward pass, at its most."""
    logits: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.base + self.trained + self.activations + self.logits + OVERHEAD


def estimate_memory(shape: ModelShape, method: MethodSpec, layout: Layout, taught_share: float = 1.0) -> MemoryEstimate:
    """Memory of training in a layout, when `taught_share` of the tokens is supervised."""
    trained = shape.trained_parameters(method)
    if method.type == "full":
        return MemoryEstimate(
            0, trained * BYTES_PER_FULL, _activations(shape, method, layout), _logits(shape, layout, taught_share)
        )
    stored = "none" if layout.expanded else method.storage
    linear = round(shape.linear_parameters * BYTES_PER_WEIGHT[stored])
    if layout.divided > 1:  # a part of every layer, and two layers that are put together
        linear = linear // layout.divided + 2 * linear // shape.layers
    return MemoryEstimate(
        base=linear + shape.other_parameters * BYTES,
        trained=trained * BYTES_PER_TRAINED,
        activations=_activations(shape, method, layout),
        logits=_logits(shape, layout, taught_share),
    )


def _activations(shape: ModelShape, method: MethodSpec, layout: Layout) -> int:
    """Whole layers, the inputs of those that are computed again, and one of these while it is; and a layer of what is
    read without learning from it, for recorded passes keep their memory meanwhile."""
    again = min(layout.recomputed, shape.layers)
    whole = shape.layers - again + (1 if again else 0)
    kept = shape.kept_per_token(method)
    return layout.pass_tokens * (whole * kept + again * shape.input_per_token) + layout.inference_tokens * kept


def _logits(shape: ModelShape, layout: Layout, taught_share: float) -> int:
    """A part of the logits at a time, and states and their gradients before the output head."""
    taught = round(layout.pass_tokens * taught_share)
    logits = min(taught * shape.vocabulary, max(LOGITS_AT_ONCE, 64 * shape.vocabulary))
    return logits * BYTES_PER_LOGIT + (2 * taught + 2 * layout.pass_tokens) * shape.input_per_token
