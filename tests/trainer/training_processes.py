"""Run by test_group.py as one of several processes: trains a tiny model in float32 and prints what came of it."""

import json
import sys
from pathlib import Path

import torch

from finetune_api.layout import Layout
from finetune_api.training import EarlyStoppingSpec, EvaluationSpec, TrainingSpec
from finetune_trainer.base import pick_device
from finetune_trainer.evaluate import evaluate
from finetune_trainer.group import joined
from finetune_trainer.loop import Data, Loop
from finetune_trainer.place import Place
from finetune_trainer.session import Standing
from finetune_trainer.sharding import shard
from finetune_trainer.tokens import load_tokenizer
from support.rows import echo_rows
from support.training import encode_all, load_adapted, never

SPEC = TrainingSpec(
    learning_rate=5e-3, epochs=2, max_epochs=2, batch_size=5, early_stopping=EarlyStoppingSpec(enabled=False)
)


def main(folder: Path, quantization: str, divided: bool, budget: int) -> None:
    """Train, evaluate, print."""
    place = Place.of()
    with joined(place, pick_device()) as group:
        tuned = load_adapted(folder, quantization, exact=quantization == "none")
        if divided:
            shard(tuned, place.size)
        examples = encode_all(folder, echo_rows(26))
        layout = Layout(pass_tokens=budget, inference_tokens=budget)
        data = Data(examples[:19], examples[19:])
        loop = Loop(tuned, data, SPEC, layout, Standing(), lambda _: None, lambda _: None, group)
        state = loop.run(never())
        rows, spec = examples[19:], EvaluationSpec(max_new_tokens=4)
        comparison = evaluate(tuned, load_tokenizer(folder), rows, spec, budget, lambda _: None, never(), group)
        frozen = [own(p) for p in tuned.base.model.layers.parameters() if not p.requires_grad]
    print(
        json.dumps(
            {
                "train": [loss for _, loss in state.train_loss],
                "validation": [loss for _, loss in state.validation_loss],
                "metrics": [[metric.base, metric.adapter] for metric in comparison.outcome.metrics],
                "bytes": sum(part.numel() * part.element_size() for part in frozen),
            }
        )
    )


def own(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The part of a parameter that is in this process."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "divided", int(sys.argv[4]))
