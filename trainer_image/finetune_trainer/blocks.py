"""Fused norms, rotary embeddings and gated activations on GPUs, for the families they were compared with."""

from transformers import PreTrainedModel

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "granite", "olmo2", "smollm3")
"""Model types; tests/trainer/test_blocks.py compares each with transformers' own operations."""


def use_fused_blocks(base: PreTrainedModel) -> None:
    """Replace the small operations of a model on a GPU by Liger's kernels; other models keep their own."""
    if base.device.type == "cuda" and base.config.model_type in FAMILIES:
        fuse_blocks(base)


def fuse_blocks(base: PreTrainedModel) -> None:
    """Replace norms, rotary embeddings and gated activations."""
    from liger_kernel.transformers import _apply_liger_kernel_to_instance  # takes seconds, and compiles

    _apply_liger_kernel_to_instance(
        base, rope=True, rms_norm=True, swiglu=True, geglu=True, cross_entropy=False, fused_linear_cross_entropy=False
    )
