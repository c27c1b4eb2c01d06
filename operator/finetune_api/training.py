"""What decides the result of a run beside its method: model, data, training, evaluation, by the article's defaults."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from finetune_api.methods import by_method
from finetune_api.pods import SecretReference
from finetune_api.schema import ARTICLE, LORA_PRACTICE, PRODUCT, Model, ReadableUri, Source, cel_rules, written

ROWS_LEFT = "test and validation together may take at most 0.8 of the rows"
LAST_EPOCH = "maxEpochs must be at least epochs"
DECIDING_METRIC = "primaryMetric must be one of metrics"


Fraction = Annotated[float, Field(ge=0.01, le=0.5)]
RowFormat = Literal["messages", "sharegpt", "alpaca", "prompt-completion", "text"]
MetricName = Literal["exactMatch", "tokenF1", "perplexity"]


class ModelSpec(Model):
    """The base model: a folder with config.json, safetensors weights and a tokenizer. No code in it is ever run."""

    uri: ReadableUri
    """Where the model is: hf://OWNER/NAME, s3://, gs://, az://, pvc://CLAIM/PATH or file://PATH."""
    revision: Annotated[str, Field(min_length=1, max_length=128), PRODUCT] = "main"
    """Branch, tag or commit of a hub model. Ignored for other locations."""
    secret_ref: SecretReference | None = None
    """Secret with the variables that give access to the model, for instance HF_TOKEN."""


class SplitSpec(Model):
    """How the rows are divided. A group never spans two splits."""

    model_config = ConfigDict(json_schema_extra=cel_rules(("self.test + self.validation <= 0.8", ROWS_LEFT)))

    test: Annotated[Fraction, ARTICLE] = 0.15
    """Share of the rows held out for the final test, read once, after training."""
    validation: Annotated[Fraction, PRODUCT] = 0.1
    """Share of the rows used for early stopping."""
    group_by: Annotated[str | None, Field(min_length=1, max_length=256), PRODUCT] = None
    """Column whose equal values belong together (a patient, a document). Default: equal prompts belong together."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), PRODUCT] = 42
    """Seed of the split. The same rows and seed give the same split."""

    @model_validator(mode="after")
    def _leave_rows_to_train_on(self) -> Self:
        if self.test + self.validation > 0.8:
            raise ValueError(ROWS_LEFT)
        return self


class DatasetSpec(Model):
    """The examples to learn from."""

    uri: ReadableUri
    """A JSONL, Parquet or CSV file, or a folder of them: s3://, gs://, az://, hf://OWNER/NAME, pvc:// or file://."""
    format: Annotated[RowFormat | None, PRODUCT] = None
    """Layout of a row. Default: detected from the columns and shown."""
    split: SplitSpec = SplitSpec()
    """How the rows are divided into train, validation and test."""
    secret_ref: SecretReference | None = None
    """Secret with the variables that give access to the data."""


RATE = (
    "Peak learning rate of AdamW, after warm-up and before the cosine decay. "
    f"Default: {by_method(lambda defaults: written(defaults.learning_rate))}."
)
RATE_SOURCES = Source(by_method(lambda defaults: defaults.rate_source.text.removeprefix("default: ")))


class EarlyStoppingSpec(Model):
    """Stop when the validation loss no longer falls; the best weights are kept in any case."""

    enabled: Annotated[bool, ARTICLE] = True
    """Whether to stop early."""
    patience: Annotated[int, Field(ge=1, le=100), ARTICLE] = 2
    """Validations in a row without improvement before training stops."""
    min_delta: Annotated[float, Field(ge=0, le=10), PRODUCT] = 0.0
    """Smallest fall of the validation loss (nats per token) that counts as improvement."""


class TrainingSpec(Model):
    """Hyperparameters of the optimiser and the loop."""

    model_config = ConfigDict(
        json_schema_extra=cel_rules(("!has(self.maxEpochs) || self.maxEpochs >= self.epochs", LAST_EPOCH))
    )

    learning_rate: Annotated[float | None, Field(gt=0, le=1, description=RATE), RATE_SOURCES] = None
    epochs: Annotated[int, Field(ge=1, le=1000), ARTICLE] = 3
    """Passes over the training rows that are planned; the learning rate decays over them."""
    max_epochs: Annotated[int | None, Field(ge=1, le=1000), ARTICLE] = None
    """While the validation loss still falls after `epochs`, go on to this many. Default: 5, or `epochs` if higher."""
    batch_size: Annotated[int, Field(ge=1, le=4096), ARTICLE] = 8
    """Rows per optimiser step, however many forward passes they take."""
    micro_batch_tokens: Annotated[int | None, Field(ge=128, le=2**20), PRODUCT] = None
    """Most tokens in one forward pass. A step with more is accumulated over several, with the same result. Default:
    what the memory of the accelerator allows, 8192 on a CPU."""
    weight_decay: Annotated[float, Field(ge=0, le=1), ARTICLE] = 0.01
    """AdamW's decoupled weight decay."""
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5), LORA_PRACTICE] = 0.03
    """Share of the planned steps over which the learning rate rises from zero."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1000), LORA_PRACTICE] = 1.0
    """Gradients are clipped to this Euclidean norm."""
    max_length: Annotated[int, Field(ge=16, le=2**20), PRODUCT] = 2048
    """Longest row in tokens. Longer rows are left out and counted, never cut."""
    validations_per_epoch: Annotated[int, Field(ge=1, le=100), PRODUCT] = 2
    """How often the validation loss is measured; each time a checkpoint is written."""
    early_stopping: EarlyStoppingSpec = EarlyStoppingSpec()
    """When to stop before the last epoch."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), PRODUCT] = 42
    """Seed of what is trained, of row order and of dropout."""

    @model_validator(mode="after")
    def _end_after_the_start(self) -> Self:
        if self.max_epochs is not None and self.max_epochs < self.epochs:
            raise ValueError(LAST_EPOCH)
        return self

    @property
    def peak_rate(self) -> float:
        """The learning rate, once that of the method has been filled in."""
        assert self.learning_rate is not None
        return self.learning_rate

    @property
    def last_epoch(self) -> int:
        """Epochs after which training ends in any case."""
        return max(5, self.epochs) if self.max_epochs is None else self.max_epochs


class EvaluationSpec(Model):
    """How base and adapter are compared on the held-out test rows."""

    model_config = ConfigDict(json_schema_extra=cel_rules(("self.primaryMetric in self.metrics", DECIDING_METRIC)))

    metrics: Annotated[list[MetricName], Field(min_length=1, max_length=3), PRODUCT] = [
        "exactMatch",
        "tokenF1",
        "perplexity",
    ]
    """exactMatch and tokenF1 of generated answers; perplexity of the reference answers."""
    primary_metric: Annotated[MetricName, PRODUCT] = "tokenF1"
    """The metric that decides the verdict. Rows without a prompt are always judged by perplexity."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096), PRODUCT] = 128
    """Longest generated answer in tokens."""

    @model_validator(mode="after")
    def _measure_what_decides(self) -> Self:
        if self.primary_metric not in self.metrics:
            raise ValueError(DECIDING_METRIC)
        return self
