"""What kind of model a folder holds, told from its configuration and the headers of its weights: no weight is read."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from finetune_api.memory import ModelShape
from finetune_trainer.errors import ModelNotLoadable

PLAIN = frozenset({
    "gemma", "gemma2", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3",
})  # fmt: skip
"""Architectures whose layers are attention and one gated feed-forward block, nothing else of weight."""


def check_loadable(folder: Path) -> None:
    """Refuse damaged files and what is no causal language model before reading gigabytes. Raises ModelNotLoadable."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = _read_config(folder)
    named = (getattr(config, "architectures", None) or ["a model without a named architecture"])[0]
    generates = "CausalLM" in named or "LMHead" in named
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or not generates:
        raise ModelNotLoadable(f"{folder} holds {named}, which is not a causal language model. Name a text generator.")
    read_shape(folder)


def read_shape(folder: Path) -> ModelShape:
    """Shapes from the configuration and the headers of the safetensors files. Raises ModelNotLoadable."""
    linear: list[tuple[int, int]] = []
    other, vocabulary = 0, 0
    for name, shape in _tensors(folder):
        is_table = any(part in name for part in ("embed", "lm_head", "wte", "wpe"))
        if is_table:
            vocabulary = max(vocabulary, shape[0])
        if len(shape) == 2 and not is_table and ".experts." not in name:  # experts are loaded as one block, unquantised
            linear.append((shape[0], shape[1]))
        else:
            other += math.prod(shape)
    return ModelShape(tuple(linear), other, vocabulary, **_widths(_read_config(folder)))


def foretell_shape(folder: Path) -> ModelShape | None:
    """Shapes by the configuration alone, norms and biases left out; None for an architecture that is not plain."""
    config = _read_config(folder)
    if config.model_type not in PLAIN:
        return None
    widths = _widths(config)
    hidden, queries, keys, inner = (widths[name] for name in ("hidden", "queries", "keys", "feed_forward"))
    attention = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)]
    feed_forward = [(inner, hidden), (inner, hidden), (hidden, inner)]
    tables = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    return ModelShape(tuple([*attention, *feed_forward] * widths["layers"]), tables, config.vocab_size, **widths)


def _widths(config: Any) -> dict[str, int]:
    """What is not in the headers; names as transformers gives them to every model."""
    hidden, (key_heads, dim) = config.hidden_size, key_value_heads(config)
    return {
        "layers": config.num_hidden_layers,
        "hidden": hidden,
        "queries": config.num_attention_heads * dim,
        "keys": key_heads * dim,
        "feed_forward": getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden,
    }


def key_value_heads(config: Any) -> tuple[int, int]:
    """Number and width of the heads of keys and values."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return getattr(config, "num_key_value_heads", None) or heads, width


def _read_config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ModelNotLoadable(f"{folder / 'config.json'} is not a model configuration: {reason}") from error


def _tensors(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of every tensor, from the headers alone."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "np") as weights:
                yield from [(name, weights.get_slice(name).get_shape()) for name in weights.keys()]  # noqa: SIM118
        except SafetensorError as error:
            raise ModelNotLoadable(f"{file} is damaged ({error}). Download it again.") from error
