"""A base model and what is trained in it, whatever the method.

The model is in evaluation mode all the time: what is dropped out while training is decided by keys, and a base's own
dropout would make losses depend on how rows are packed.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from finetune_trainer.attention import PACKED, own_attention
from finetune_trainer.keyed_dropout import Draw

Prefix = Callable[[], list[tuple[Tensor, Tensor]]]
"""Keys and values before every row, of each layer: [kv heads, length, dim]."""


@dataclass
class Tuned:
    """A base model with what is trained built into it, or put before its rows."""

    base: PreTrainedModel
    """What forward passes call."""
    parameters: dict[str, nn.Parameter]
    """What is trained, by name, in a fixed order; float32."""
    bare: Callable[[], AbstractContextManager[object]]
    """Makes it the bare base again for a while."""
    save: Callable[[Path, str], None]
    """Writes what was trained into a folder, naming a base model."""
    weights: str
    """The main file that `save` writes."""
    speaker: Any = None
    """What generates, if not the base itself."""
    prefix: Prefix | None = None
    draw: Draw = field(default_factory=Draw)
    plain_head: bool | None = None
    """Whether logits are hidden states times the head's weight; None until it was measured."""
    sharded: bool = False
    """Whether its layers are divided over processes, so that all must make the same passes."""
    mixes_rows: bool | None = None
    """Whether packed rows would see each other; None until it was measured."""

    def __post_init__(self) -> None:
        # For good, not for a pass: layers that are computed again are so while gradients flow back.
        self.base.set_attn_implementation(PACKED)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.base.parameters()).device

    @property
    def trains_head(self) -> bool:
        """Whether the output head is trained, too."""
        return bool(self.base.get_output_embeddings().weight.requires_grad)

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in bfloat16 while what is trained stays float32: in bfloat16 it would freeze at low rates.

        Without a cache of cast weights: it would be stale in a recorded pass after the next step.
        """
        if self.dtype == torch.bfloat16:
            return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)
        return nullcontext()

    @property
    def dtype(self) -> torch.dtype:
        """What matrices are multiplied in: as the frozen base is stored, or the fastest that is exact enough."""
        frozen = (p.dtype for p in self.base.parameters() if p.is_floating_point() and not p.requires_grad)
        return next(frozen, compute_dtype(self.device))

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of what is trained, on the CPU."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put a snapshot back, in place, so that optimisers keep their references."""
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[name])

    @contextmanager
    def speaking(self) -> Iterator[Any]:
        """What generates, attending to its own past."""
        with own_attention(self.base), self.autocast():
            yield self.speaker or self.base

    @contextmanager
    def inference(self, adapted: bool) -> Iterator[None]:
        """No gradients, no dropout; as trained or as the bare base."""
        self.draw.tokens = None
        with torch.no_grad(), nullcontext() if adapted else self.bare():
            yield


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name, in a fixed order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
