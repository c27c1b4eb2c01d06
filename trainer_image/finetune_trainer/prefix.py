"""Prefix tuning: keys and values that are trained, before every row, in every layer.

PEFT owns them and their files. Training hands them to the attention over packed rows, one by one for each row, instead
of padding rows and filling a cache as PEFT would; generation leaves them to PEFT.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from finetune_api.methods import PrefixSpec
from finetune_trainer.architecture import key_value_heads
from finetune_trainer.lora import MISFITS, WEIGHTS, misfit
from finetune_trainer.tuned import Tuned, trainable


def attach_prefix(base: PreTrainedModel, spec: PrefixSpec, seed: int, opening: Iterable[int]) -> Tuned:
    """Put a prefix before the rows of a base. It starts from what the base makes of the tokens of `opening`, or at
    zero."""
    torch.manual_seed(seed)
    heads, dim = key_value_heads(base.config)
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=spec.length,
        num_layers=base.config.num_hidden_layers,
        num_attention_heads=heads,
        token_dim=heads * dim,
        init_weights="zero",
    )
    model: Any = get_peft_model(base, config)
    model.prompt_encoder["default"].float().to(base.device)
    if spec.init == "rows":
        start = _cached(base, opening, spec.length)
        model.prompt_encoder["default"].load_prompt_embeddings(start)
    return _tuned(base, model)


def load_prefix(base: PreTrainedModel, folder: Path) -> Tuned:
    """A published prefix on a loaded base. Raises ModelNotLoadable."""
    try:
        return _tuned(base, PeftModel.from_pretrained(base, str(folder)))
    except MISFITS as error:
        raise misfit(folder, error) from error


def _tuned(base: PreTrainedModel, model: Any) -> Tuned:
    heads, dim = key_value_heads(base.config)
    on = True

    def prefix() -> list[tuple[Tensor, Tensor]]:
        values = model.prompt_encoder["default"].embedding.weight.to(base.dtype)
        layers = values.view(len(values), -1, 2, heads, dim).unbind(1)
        return [(layer[:, 0].transpose(0, 1), layer[:, 1].transpose(0, 1)) for layer in layers] if on else []

    @contextmanager
    def bare() -> Iterator[None]:
        nonlocal on
        on = False
        try:
            with model.disable_adapter():
                yield
        finally:
            on = True

    return Tuned(
        base=base,
        parameters=trainable(model),
        bare=bare,
        save=lambda folder, name: _save(model, folder, name),
        weights=WEIGHTS,
        speaker=model,
        prefix=prefix,
    )


@torch.no_grad()
def _cached(base: PreTrainedModel, opening: Iterable[int], length: int) -> Tensor:
    """Keys and values of the first `length` tokens, [length, layers * 2 * heads * dim]."""
    repeated = list(islice(cycle(opening), length))
    cache = DynamicCache(config=base.config)
    base(torch.tensor([repeated], device=base.device), past_key_values=cache, use_cache=True)
    layers = [torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers]  # type: ignore[union-attr,index]
    return torch.stack(layers).permute(3, 0, 1, 2, 4).reshape(length, -1).float()


def _save(model: PeftModel, folder: Path, base: str) -> None:
    """Write the prefix in PEFT layout, naming `base` as its base model; see lora for the embeddings."""
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
