"""Rows to token ids: the chat template, and which tokens the model is taught.

A prompt is tokenised exactly as a server would tokenise it before generating, and the answer follows it, up to and
including the token that ends a turn. Padding never comes into it: rows are masked by position, never by token id,
so an EOS that is also the padding token is still taught.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.errors import DataRejected, InvalidConfig
from finetune_trainer.rows import Message, Row

Tokenizer = Any
"""A transformers tokenizer."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""One of these is there in nearly every model that has a tokenizer."""


@dataclass(frozen=True)
class Example:
    """One tokenised row."""

    row: Row
    ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    """True where the token is taught; as long as ids. The first token has nothing to be predicted from: False."""
    prompt_length: int
    """Tokens before the final answer; 0 for plain text."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What a server would send to the model."""
        return self.ids[: self.prompt_length]

    @property
    def taught(self) -> int:
        """Number of supervised tokens."""
        return sum(self.supervised)


def load_tokenizer(folder: Any) -> Tokenizer:
    """The model folder's own tokenizer. Raises ModelNotLoadable."""
    from transformers import AutoTokenizer

    from finetune_trainer.errors import ModelNotLoadable

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raise bare Exception
        raise ModelNotLoadable(_why_no_tokenizer(Path(folder), error)) from error
    if tokenizer.eos_token_id is None:
        raise ModelNotLoadable(f"The tokenizer in {folder} has no end-of-sequence token, so answers could never end.")
    return tokenizer


def _why_no_tokenizer(folder: Path, error: Exception) -> str:
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        return f"{folder} holds no tokenizer (such as {TOKENIZER_FILES[0]}). Add the files of the model's tokenizer."
    reason = str(error).partition("\n")[0]
    return f"The tokenizer in {folder} cannot be loaded: {reason}. Download its files again."


def encode(row: Row, tokenizer: Tokenizer) -> Example:
    """Tokenise one row. Raises DataRejected when nothing in it would be taught."""
    if row.text is not None:
        example = _encode_text(row, tokenizer)
    elif tokenizer.chat_template:
        example = _encode_chat(row, tokenizer)
    else:
        example = _encode_plain(row, tokenizer)
    if not example.taught:
        raise DataRejected(f"Row {row.number}: no token of the answer is left to learn from after tokenising.")
    return example


def prompt_ids(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """The ids a server would start generating from."""
    if tokenizer.chat_template:
        return _tokenize(_render(messages, tokenizer, prompt=True), tokenizer)
    return _opening(tokenizer) + _tokenize(_plain_prompt(messages), tokenizer)


def _encode_chat(row: Row, tokenizer: Tokenizer) -> Example:
    """Every assistant turn is taught, up to the token that ends it."""
    ids: list[int] = []
    supervised: list[bool] = []
    text = ""
    prompt_length = 0
    for index, message in enumerate(row.messages):
        if message.role != "assistant":
            continue
        prompt = _render(row.messages[:index], tokenizer, prompt=True)
        whole = _render(row.messages[: index + 1], tokenizer)
        if not (prompt.startswith(text) and whole.startswith(prompt)):
            raise InvalidConfig(
                f"The model's chat template renders turn {index + 1} of row {row.number} differently before and after "
                "the answer, so the answer cannot be told from the prompt. Use prompt-completion rows instead."
            )
        ids = _extend(ids, text, prompt, tokenizer)
        supervised += [False] * (len(ids) - len(supervised))
        prompt_length = len(ids)
        ids = _extend(ids, prompt, whole, tokenizer)
        supervised += _until_stop(ids[prompt_length:], tokenizer)
        text = whole
    if not _ends_taught(ids, supervised, tokenizer):
        ids.append(tokenizer.eos_token_id)
        supervised.append(True)
    return _example(row, ids, supervised, prompt_length)


def _encode_plain(row: Row, tokenizer: Tokenizer) -> Example:
    """A model without a chat template: prompt, line break, answer, EOS."""
    if any(message.role == "assistant" for message in row.prompt):
        raise InvalidConfig(
            f"Row {row.number} is a conversation of several turns, but the model has no chat template to render it. "
            "Use a chat model, or rows of one prompt and one completion."
        )
    prompt = prompt_ids(row.prompt, tokenizer)
    answer = [*_tokenize(row.answer, tokenizer), tokenizer.eos_token_id]
    return _example(row, prompt + answer, [False] * len(prompt) + [True] * len(answer), len(prompt))


def _encode_text(row: Row, tokenizer: Tokenizer) -> Example:
    opening = _opening(tokenizer)
    text = row.answer
    if opening and tokenizer.bos_token and text.startswith(tokenizer.bos_token):
        opening = []
    ids = [*opening, *_tokenize(text, tokenizer), tokenizer.eos_token_id]
    return _example(row, ids, [True] * len(ids), 0)


def _example(row: Row, ids: list[int], supervised: list[bool], prompt_length: int) -> Example:
    return Example(row, tuple(ids), (False, *supervised[1:]), prompt_length)


def _render(messages: Sequence[Message], tokenizer: Tokenizer, prompt: bool = False) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
    except Exception as error:  # templates raise whatever they like
        raise InvalidConfig(f"The model's chat template refuses the conversation: {error}") from error
    return text


def _tokenize(text: str, tokenizer: Tokenizer) -> list[int]:
    """Without special tokens: a rendered template already carries its own (else BOS would stand twice)."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _extend(ids: list[int], text: str, longer: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of `longer` that begin with `ids`: a merge across the seam must not change the prompt a server would send."""
    whole = _tokenize(longer, tokenizer)
    return whole if whole[: len(ids)] == ids else ids + _tokenize(longer[len(text) :], tokenizer)


def _until_stop(answer: list[int], tokenizer: Tokenizer) -> list[bool]:
    """True up to and including the last token that ends a turn; all True when there is none."""
    stops = [index for index, token in enumerate(answer) if token in stop_ids(tokenizer)]
    last = stops[-1] if stops else len(answer) - 1
    return [index <= last for index in range(len(answer))]


def _ends_taught(ids: list[int], supervised: list[bool], tokenizer: Tokenizer) -> bool:
    taught = [token for token, learn in zip(ids, supervised, strict=True) if learn]
    return bool(taught) and taught[-1] in stop_ids(tokenizer)


def stop_ids(tokenizer: Tokenizer) -> set[int]:
    """Tokens that end a turn."""
    return {tokenizer.eos_token_id}


def _opening(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer itself puts before a text: BOS or nothing."""
    return [token for token in tokenizer("")["input_ids"] if token != tokenizer.eos_token_id]


def _plain_prompt(messages: Sequence[Message]) -> str:
    return "".join(f"{message.content}\n" for message in messages)
