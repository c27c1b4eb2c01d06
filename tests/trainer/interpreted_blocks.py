"""Run by test_blocks.py in a process of its own: Triton decides at its import whether kernels are interpreted.

What its interpreter lacks is put in: scalars as tensors, and the functions that CUDA's library has.
"""

from copy import deepcopy

import liger_kernel.ops.geglu
import liger_kernel.ops.rms_norm
import numpy as np
import torch
import triton
import triton.language as tl
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from triton.runtime import interpreter

from finetune_trainer.blocks import FAMILIES, fuse_blocks

SHAPE = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 2,
}  # fmt: skip


@triton.jit
def tanh(x):  # type: ignore[no-untyped-def]
    """The function of CUDA's library."""
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def rsqrt(x):  # type: ignore[no-untyped-def]
    """The function of CUDA's library."""
    return tl.rsqrt(x)


def complete_the_interpreter() -> None:
    """Put in what Liger's kernels need of it."""
    convert = interpreter._implicit_cvt

    def with_scalars(value: object) -> object:
        if isinstance(value, float):
            return tl.tensor(interpreter.TensorHandle(np.array([value], np.float32), tl.float32), tl.float32)
        return convert(value)

    interpreter._implicit_cvt = with_scalars
    liger_kernel.ops.rms_norm.rsqrt = rsqrt
    liger_kernel.ops.geglu.tanh = tanh


def logits_and_slopes(model: PreTrainedModel, ids: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits, and the gradient of every parameter."""
    logits = model(input_ids=ids).logits
    logits.pow(2).mean().backward()
    return logits.detach(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def main() -> None:
    """Compare a small random model of each family with itself after its blocks were fused."""
    complete_the_interpreter()
    for family in FAMILIES:
        torch.manual_seed(0)
        plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE)).float().eval()
        fused = deepcopy(plain)
        fuse_blocks(fused)
        assert any("forward" in vars(module) for module in fused.modules())
        ids = torch.randint(3, SHAPE["vocab_size"], (2, 24))
        torch.testing.assert_close(logits_and_slopes(fused, ids), logits_and_slopes(plain, ids), rtol=1e-3, atol=1e-5)
        print(family, flush=True)


if __name__ == "__main__":
    main()
