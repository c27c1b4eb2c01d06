"""Random models of real shapes, small enough to train in seconds, with real tokenizers and chat templates."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
WORDS = (
    "the patient has a fever and a cough since monday please book routine dental cardiology today week 0 1 2 3 4 5 6 7"
)


def make_tokenizer(chat: str | None, bos: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer whose padding token is its EOS token (trap 2)."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<s>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [WORDS] * 20, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = chat
    return tokenizer


def make_model(family: str, vocabulary: int, **changes: Any) -> LlamaForCausalLM | Qwen2ForCausalLM:
    """Two layers, grouped key-value heads; Qwen2 has attention biases and tied embeddings."""
    shape: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 2, **changes,
    }  # fmt: skip
    torch.manual_seed(0)
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape))
    return Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=True, **shape))


def write_tiny_model(folder: Path, family: str = "llama", chat: str | None = "default", **changes: Any) -> Path:
    """Write a model folder as a hub would hold it."""
    templates = {"llama": LLAMA_CHAT, "qwen2": CHATML}
    tokenizer = make_tokenizer(templates[family] if chat == "default" else chat, bos=family == "llama")
    model = make_model(family, len(tokenizer), **changes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
