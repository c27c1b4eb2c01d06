"""How a run uses the memory that is there: the layout is chosen before anything is loaded."""

import torch

from finetune_api.cards import GIB, Card, card_called
from finetune_api.layout import MANY_TOKENS, Layout
from finetune_api.memory import ModelShape
from finetune_api.run import RunConfig
from finetune_api.speed import Forecast, Lengths, forecast, foresee, least_memory
from finetune_trainer import machine
from finetune_trainer.errors import OutOfMemory


def lay_out(
    config: RunConfig, shape: ModelShape, lengths: Lengths, device: torch.device, processes: int = 1
) -> Forecast:
    """The fastest layout for the memory of a device. Raises OutOfMemory if a card is too small for any."""
    on_card = device.type == "cuda"
    card = card_of(device, config.gpu_memory) if on_card else machine.cpu()
    tokens = config.training.micro_batch_tokens or (None if on_card else MANY_TOKENS)
    found = foresee(shape, config.method, card, lengths, tokens, processes)
    if found is None and on_card:
        raise OutOfMemory(_too_small(card, least_memory(shape, config.method, lengths, processes)))
    smallest = Layout(False, shape.layers, 1, lengths.longest_row, lengths.longest_row)
    return found or forecast(shape, config.method, smallest, card, lengths)


def card_of(device: torch.device, limit: int | None) -> Card:
    """A GPU with the memory that a run may use of it, bytes: what is free, and no more than `limit`."""
    free, _ = torch.cuda.mem_get_info(device)
    there = free + torch.cuda.memory_reserved(device)
    return card_called(torch.cuda.get_device_name(device), min(there, limit or there))


def hold_to(limit: int | None, device: torch.device) -> None:
    """Let this process allocate no more of a GPU than `limit` bytes."""
    if limit is not None and device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)


def _too_small(card: Card, needed: int) -> str:
    return (
        f"{card.name} has {card.memory / GIB:.1f} GiB for this run, which needs {needed / GIB:.1f} GiB even in its "
        "smallest layout. Quantise the model (method.quantization), lower training.maxLength, or use a card with more "
        "memory, or more of them."
    )
