"""What kind of model a folder holds, told from its configuration and the headers of its weights: no weight is read."""

import math
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from finetune_api.memory import ModelShape
from finetune_trainer.errors import ModelNotLoadable


def check_loadable(folder: Path) -> None:
    """Refuse damaged files and what is no causal language model before reading gigabytes. Raises ModelNotLoadable."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ModelNotLoadable(f"{folder / 'config.json'} is not a model configuration: {reason}") from error
    named = (getattr(config, "architectures", None) or ["a model without a named architecture"])[0]
    generates = "CausalLM" in named or "LMHead" in named
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or not generates:
        raise ModelNotLoadable(f"{folder} holds {named}, which is not a causal language model. Name a text generator.")
    read_shape(folder)


def read_shape(folder: Path) -> ModelShape:
    """Shapes from the headers of the safetensors files. Raises ModelNotLoadable."""
    linear: list[tuple[int, int]] = []
    other, vocabulary = 0, 0
    for name, shape in _tensors(folder):
        is_table = any(part in name for part in ("embed", "lm_head", "wte", "wpe"))
        if is_table:
            vocabulary = max(vocabulary, shape[0])
        if len(shape) == 2 and not is_table:
            linear.append((shape[0], shape[1]))
        else:
            other += math.prod(shape)
    return ModelShape(tuple(linear), other, vocabulary)


def _tensors(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of every tensor, from the headers alone."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "np") as weights:
                yield from [(name, weights.get_slice(name).get_shape()) for name in weights.keys()]  # noqa: SIM118
        except SafetensorError as error:
            raise ModelNotLoadable(f"{file} is damaged ({error}). Download it again.") from error
