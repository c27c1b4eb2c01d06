"""A base that does not fit one device: each process keeps a part of every layer's frozen weights (FSDP2).

A layer is put together when it is needed, forwards and backwards, and given up again. Only frozen weights are divided,
as they are stored: packed 4-bit values stay bytes. What is trained is whole in every process, so that gradients,
optimiser and checkpoints are those of any other run.
"""

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from finetune_trainer.frozen import plain_weight
from finetune_trainer.tuned import Tuned


def shard(tuned: Tuned, processes: int) -> None:
    """Divide the frozen weights of every layer over all processes of the run."""
    mesh = init_device_mesh(tuned.device.type, (processes,))
    for layer in tuned.base.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            divided = {id(plain_weight(module)) for module in layer.modules() if isinstance(module, nn.Linear)}
            whole = {parameter for parameter in layer.parameters() if id(parameter) not in divided}
            whole |= {parameter for parameter in layer.parameters() if parameter.requires_grad}
            fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    tuned.sharded = True
    if tuned.device.type == "cuda":
        torch.cuda.empty_cache()
