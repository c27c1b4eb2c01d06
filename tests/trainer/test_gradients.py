"""A step's gradients do not depend on how many passes the memory asks for."""

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.loop import Data
from finetune_trainer.tuned import Tuned
from support.rows import echo_rows
from support.training import encode_all, load_adapted, make_loop, never


def too_large_from(tokens: int, tuned: Tuned, sizes: list[int]) -> None:
    """Let passes of so many tokens fail as they do for want of memory."""

    def attempt(_model: Any, _inputs: object, settings: dict[str, torch.Tensor]) -> None:
        if not torch.is_grad_enabled():
            return
        sizes.append(settings["input_ids"].numel())
        if sizes[-1] >= tokens:
            torch.empty(2**60)  # a real failure: no machine has an exbibyte

    tuned.base.base_model.register_forward_pre_hook(attempt, with_kwargs=True)


@pytest.fixture
def data(tiny_llama: Path) -> Data:
    examples = encode_all(tiny_llama, echo_rows(26))
    return Data(examples[:19], examples[19:])


def test_a_pass_that_does_not_fit_is_made_again_in_halves_and_the_run_ends_the_same(tiny_llama, data: Data) -> None:
    settings: dict[str, object] = {"batch_size": 10, "micro_batch_tokens": 1024}
    want = make_loop(load_adapted(tiny_llama, exact=True), data, **settings).run(never())
    tuned, sizes = load_adapted(tiny_llama, exact=True), []
    loop = make_loop(tuned, data, **settings)
    most = max(sum(len(row.ids) for row in loop.gradients.rows_of(step)) for step in range(4))
    too_large_from(most // 2, tuned, sizes)
    got = loop.run(never())
    assert loop.gradients.budget < most // 2 < max(sizes)
    assert [step for step, _ in got.train_loss] == [step for step, _ in want.train_loss]
    torch.testing.assert_close(
        [loss for _, loss in got.train_loss], [loss for _, loss in want.train_loss], rtol=1e-4, atol=0
    )


def test_what_never_fits_is_not_tried_for_ever(tiny_llama: Path, data: Data) -> None:
    tuned, sizes = load_adapted(tiny_llama), []
    loop = make_loop(tuned, data)
    too_large_from(1, tuned, sizes)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        loop.gradients.of(0, never())
    assert len(sizes) < 10
    assert all(parameter.grad is None for parameter in tuned.parameters.values())
