"""What the steps of a run will be like, from the lengths of its rows."""

from collections.abc import Sequence

from finetune_api.speed import Lengths
from finetune_api.training import TrainingSpec
from finetune_trainer.batches import Order, steps_per_epoch
from finetune_trainer.tokens import Example


def measure(training: TrainingSpec, rows: Sequence[Example]) -> Lengths:
    """The lengths of all steps that there may be."""
    lengths = [len(row.ids) for row in rows]
    steps = training.last_epoch * steps_per_epoch(len(rows), training.batch_size)
    order = Order(lengths, training.batch_size, training.seed)
    tokens = [sum(lengths[row] for row in order.rows_of(step)) for step in range(steps)]
    return Lengths(
        typical_step=sum(tokens) // len(tokens),
        largest_step=max(tokens),
        longest_row=max(lengths),
        taught_share=sum(row.taught for row in rows) / sum(lengths),
    )
