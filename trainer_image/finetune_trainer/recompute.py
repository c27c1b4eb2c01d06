"""Layers that keep only their input for the backward pass, and compute the rest again (Chen et al. 2016, arXiv
1604.06174)."""

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def recompute(base: PreTrainedModel, count: int) -> None:
    """Have the first `count` layers keep nothing but their input."""
    layers = [module for module in base.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers[:count]:
        layer.forward = partial(_forward, layer.forward)


def _forward(forward: Any, *inputs: Any, **settings: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **settings)
    # Nothing in a pass is random: dropout goes by keys.
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **settings)
