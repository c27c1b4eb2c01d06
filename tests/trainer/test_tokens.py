"""Chat templates, masks and special tokens (traps 2 to 6)."""

from pathlib import Path

import pytest

from finetune_trainer.errors import InvalidConfig
from finetune_trainer.rows import Message, Row
from finetune_trainer.tokens import encode, load_tokenizer, prompt_ids
from support.rows import chat_row
from support.tiny_models import CHATML, make_tokenizer


def taught_text(example, tokenizer) -> str:
    return tokenizer.decode([i for i, learn in zip(example.ids, example.supervised, strict=True) if learn])


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen"])
def test_the_answer_and_its_end_are_taught_and_nothing_else(family: str, request: pytest.FixtureRequest) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(family))
    example = encode(chat_row(1, "a fever since monday", "today"), tokenizer)
    assert taught_text(example, tokenizer).strip() == "today<|im_end|>"


def test_eos_is_taught_though_it_is_also_the_padding_token(tiny_qwen: Path) -> None:
    tokenizer = load_tokenizer(tiny_qwen)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    example = encode(chat_row(1, "a cough", "week"), tokenizer)
    last_taught = max(i for i, learn in enumerate(example.supervised) if learn)
    assert example.ids[last_taught] == tokenizer.eos_token_id


def test_bos_stands_once_when_template_and_tokenizer_both_add_it(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(tiny_llama)
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    example = encode(chat_row(1, "a fever", "today"), tokenizer)
    assert example.ids.count(tokenizer.bos_token_id) == 1


def test_a_text_row_that_already_starts_with_bos_keeps_one(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(tiny_llama)
    for text in ("a fever", "<s>a fever"):
        example = encode(Row(1, "g", text=text), tokenizer)
        assert example.ids.count(tokenizer.bos_token_id) == 1
        assert example.ids[-1] == tokenizer.eos_token_id


def test_the_prompt_is_tokenised_as_a_server_would(tiny_qwen: Path) -> None:
    tokenizer = load_tokenizer(tiny_qwen)
    row = chat_row(1, "please book", "routine")
    want = tokenizer.apply_chat_template(
        [{"role": "user", "content": "please book"}], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert list(encode(row, tokenizer).prompt_ids) == want == prompt_ids(row.prompt, tokenizer)


def test_a_merge_across_prompt_and_answer_does_not_change_the_prompt() -> None:
    tokenizer = make_tokenizer("{{ messages[0].content }}{% for m in messages[1:] %}{{ m.content }}{% endfor %}", False)
    assert len(tokenizer("today", add_special_tokens=False)["input_ids"]) == 1
    row = chat_row(1, "to", "day")
    example = encode(row, tokenizer)
    assert list(example.prompt_ids) == prompt_ids(row.prompt, tokenizer)
    assert tokenizer.decode(example.ids) == "today<|im_end|>"


def test_every_assistant_turn_is_taught() -> None:
    tokenizer = make_tokenizer(CHATML, False)
    turns = [("system", "be kind"), ("user", "a"), ("assistant", "today"), ("user", "b"), ("assistant", "week")]
    example = encode(Row(1, "g", tuple(Message(*turn) for turn in turns)), tokenizer)
    assert taught_text(example, tokenizer) == "today<|im_end|>week<|im_end|>"


def test_a_template_that_forgets_the_end_of_turn_gets_one() -> None:
    tokenizer = make_tokenizer("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", False)
    example = encode(chat_row(1, "a", "today"), tokenizer)
    assert example.ids[-1] == tokenizer.eos_token_id
    assert example.supervised[-1]


def test_a_template_that_rewrites_the_past_is_refused() -> None:
    tokenizer = make_tokenizer("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", False)
    with pytest.raises(InvalidConfig, match="turn 2 of row 7"):
        encode(chat_row(7, "a", "b"), tokenizer)


def test_a_model_without_a_chat_template_gets_prompt_answer_and_eos() -> None:
    tokenizer = make_tokenizer(None, True)
    example = encode(chat_row(1, "a fever", "today"), tokenizer)
    assert tokenizer.decode(example.ids) == "<s>a fever\ntoday<|im_end|>"
    assert taught_text(example, tokenizer) == "today<|im_end|>"


def test_a_conversation_without_a_chat_template_is_refused() -> None:
    row = Row(
        3, "g", tuple(Message(*turn) for turn in [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")])
    )
    with pytest.raises(InvalidConfig, match=r"Row 3 .* no chat template"):
        encode(row, make_tokenizer(None, True))
