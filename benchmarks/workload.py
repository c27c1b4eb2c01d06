"""The work that speed is measured on: a model of Mistral-7B's shape with random weights, and 2,500 rows.

Rows have the lengths of a set of medical questions and answers: lognormal, median 270 tokens, at most 1,024; 30 % of
each is the prompt. Every word is one token.
"""

import gc
import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 32000
SPECIAL = ("<unk>", "<pad>", "</s>", "<s>")
SHAPES = {
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2},
    "7b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
           "num_key_value_heads": 8},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8},
}  # fmt: skip
"""Shapes of Mistral 7B and of Llama 3.2 3B and 1B, all with Mistral's vocabulary; and one to try a benchmark with."""


def write_model(folder: Path, shape: str = "7b") -> Path:
    """Write a model with random weights in bfloat16, unless it is there."""
    if (folder / "config.json").exists():
        return folder
    config = LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=8192, rope_theta=1e6, bos_token_id=3,
        eos_token_id=2, pad_token_id=1, dtype="bfloat16", **SHAPES[shape],
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    make_tokenizer().save_pretrained(folder)
    model.save_pretrained(folder)
    del model
    gc.collect()
    torch.cuda.empty_cache()
    return folder


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words w4 to w31999, each one token."""
    words = [*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), VOCABULARY))]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=SPECIAL[0]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = ("unk_token", "pad_token", "eos_token", "bos_token")
    return PreTrainedTokenizerFast(tokenizer_object=core, **dict(zip(names, SPECIAL, strict=True)))


def make_rows(count: int = 2500) -> list[tuple[int, list[int]]]:
    """Token ids of rows, and how many of them are the prompt."""
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        total = max(32, min(1024, int(draw.lognormvariate(5.6, 0.7))))
        rows.append((max(8, int(total * 0.3)), [draw.randrange(len(SPECIAL), VOCABULARY) for _ in range(total)]))
    return rows


def write_rows(file: Path, count: int = 2500) -> Path:
    """The rows as prompts and completions; the end of a row's answer is the tokenizer's own."""
    with file.open("w") as lines:
        for prompt, ids in make_rows(count):
            words = [f"w{number}" for number in ids]
            row = {"prompt": " ".join(words[:prompt]), "completion": " ".join(words[prompt:-1])}
            lines.write(f"{json.dumps(row)}\n")
    return file
