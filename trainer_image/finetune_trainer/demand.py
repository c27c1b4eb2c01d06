"""What a run will ask of an accelerator, told before one is asked for and before any weight is there."""

from pathlib import Path

from finetune_api.cards import GIB
from finetune_api.memory import ModelShape
from finetune_api.pods import ResourcesSpec
from finetune_api.report import DataReport
from finetune_api.run import RunConfig
from finetune_api.speed import Lengths, least_memory
from finetune_trainer.architecture import foretell_shape
from finetune_trainer.errors import InvalidConfig


def measure_demand(config: RunConfig, folder: Path, data: DataReport, resources: ResourcesSpec) -> int | None:
    """Bytes that each card must have at least; None where there is none, or for an architecture not known in advance.

    `folder` holds the model's configuration. Raises InvalidConfig if the manifest allows less.
    """
    shape = foretell_shape(folder)
    if resources.gpus == 0 or shape is None:
        return None
    needed = least_memory(shape, config.method, lengths_of(data), resources.nodes * resources.gpus)
    if config.gpu_memory is not None and config.gpu_memory < needed:
        raise InvalidConfig(_too_little(resources, needed, shape))
    return needed


def lengths_of(data: DataReport) -> Lengths:
    """Lengths of a run that takes its rows one by one, which is what needs least memory."""
    longest = max(split.lengths.longest for split in data.splits)
    rows = data.splits[0]
    return Lengths(longest, longest, longest, rows.supervised_tokens / rows.tokens)


def _too_little(resources: ResourcesSpec, needed: int, shape: ModelShape) -> str:
    return (
        f"spec.resources.gpuMemory allows {resources.gpu_memory} of a card, but a model of "
        f"{shape.parameters / 1e9:.1f} billion parameters needs {needed / GIB:.1f} GiB even row by row. Allow more, "
        "quantise the model (method.quantization), or lower training.maxLength; then have the job run again."
    )
