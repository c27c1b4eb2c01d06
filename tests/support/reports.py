"""Reports as a finished run would write them."""

import math
from typing import Any

from finetune_api.report import (
    DataReport,
    LayoutReport,
    LeftOut,
    LengthSummary,
    ModelReport,
    Point,
    Report,
    Sample,
    SplitReport,
    TrainingReport,
)
from finetune_api.run import EvaluationOutcome, ExitCode, MetricResult, RunReport, Setting, StoredAdapter

RUN_ID = "20261123-3f9a1c2b"
DIGEST = "sha256:3f9a1c2b5d7e8f90112233445566778899aabbccddeeff00123456789abcdef0"
STEPS = 96
BEST_STEP = 84


def make_report(**changes: Any) -> Report:
    """A report on a run that passed; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "outcome": make_outcome(),
        "name": "clinic-triage",
        "namespace": "clinic",
        "created": "2026-11-23T14:02:51Z",
        "model": make_model(),
        "data": make_data(),
        "training": make_training(),
        "settings": make_settings(),
        "samples": make_samples(),
        "warnings": ["The test split holds 36 rows in 12 groups; a difference below about 20 points cannot be shown."],
        "seconds": {"prepare": 3.4, "train": 158.9, "evaluate": 207.9, "publish": 0.8},
        "versions": {"finetune-operator": "0.1.0", "torch": "2.11.0", "transformers": "5.17.0", "peft": "0.21.2"},
    }
    return Report(**{**fields, **changes})


def make_outcome(**changes: Any) -> RunReport:
    """The last word on a run that passed."""
    fields: dict[str, Any] = {
        "run_id": RUN_ID,
        "digest": DIGEST,
        "attempt": 2,
        "exit_code": ExitCode.DONE,
        "stage": "publish",
        "message": "The adapter is better than the base model on the held-out rows.",
        "adapter": StoredAdapter(
            uri=f"s3://adapters/clinic/clinic/clinic-triage/runs/{RUN_ID}/adapter",
            digest="sha256:9b1c0d2e" + "4f" * 28,
            size_bytes=23_068_672,
        ),
        "evaluation": make_evaluation(),
    }
    return RunReport(**{**fields, **changes})


def make_evaluation(**changes: Any) -> EvaluationOutcome:
    """A comparison that passed on exact match."""
    fields: dict[str, Any] = {
        "verdict": "Passed",
        "primary_metric": "exactMatch",
        "metrics": [
            make_metric(),
            make_metric(name="tokenF1", base=0.1137, adapter=0.9352, difference=0.8215, ci=(0.7421, 0.8893)),
            make_metric(
                name="perplexity",
                higher_is_better=False,
                base=27.4184,
                adapter=1.0531,
                difference=-26.3653,
                ci=(-33.9012, -20.1177),
            ),
        ],
    }
    return EvaluationOutcome(**{**fields, **changes})


def make_metric(**changes: Any) -> MetricResult:
    """Exact match on 36 rows: none for the base, 31 for the adapter."""
    fields: dict[str, Any] = {
        "name": "exactMatch",
        "higher_is_better": True,
        "base": 0.0,
        "adapter": 31 / 36,
        "difference": 31 / 36,
        "ci": (0.7222, 0.9722),
        "n": 36,
        "groups": 12,
    }
    return MetricResult(**{**fields, **changes})


def make_model(**changes: Any) -> ModelReport:
    """SmolLM2-135M-Instruct under a rank 16 adapter."""
    fields: dict[str, Any] = {
        "uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct",
        "revision": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
        "digest": "sha256:5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
        "architecture": "LlamaForCausalLM",
        "parameters": 134_515_008,
        "trainable_parameters": 4_884_480,
        "quantization": "nf4",
        "size_bytes": 269_060_552,
    }
    return ModelReport(**{**fields, **changes})


def make_data(**changes: Any) -> DataReport:
    """240 conversations in 80 cases, a few of them not usable."""
    fields: dict[str, Any] = {
        "uri": "s3://clinic/triage/clinic-triage.jsonl",
        "fingerprint": "sha256:c0ffee11223344556677889900aabbccddeeff00112233445566778899aabbcc",
        "format": "messages",
        "detected": True,
        "columns": ["case", "messages"],
        "rows": 240,
        "duplicates": 4,
        "left_out": [
            LeftOut(reason="longer than maxLength (2048 tokens)", rows=7, examples=[17, 58, 103, 104, 190]),
            LeftOut(reason="the last message is not from the assistant", rows=1, examples=[221]),
        ],
        "splits": [
            make_split(
                name="train",
                rows=169,
                groups=58,
                tokens=14_382,
                supervised_tokens=2_366,
                lengths=_lengths(84, 126, 212),
            ),
            make_split(
                name="validation",
                rows=23,
                groups=8,
                tokens=1_956,
                supervised_tokens=322,
                lengths=_lengths(85, 119, 133),
            ),
            make_split(name="test", rows=36, groups=12, tokens=3_064, supervised_tokens=504),
        ],
    }
    return DataReport(**{**fields, **changes})


def _lengths(median: int, p95: int, longest: int) -> LengthSummary:
    return LengthSummary(median=median, p95=p95, longest=longest)


def make_split(**changes: Any) -> SplitReport:
    """The test split."""
    fields: dict[str, Any] = {
        "name": "test",
        "rows": 36,
        "groups": 12,
        "tokens": 3_064,
        "supervised_tokens": 504,
        "lengths": _lengths(83, 121, 148),
    }
    return SplitReport(**{**fields, **changes})


def make_training(**changes: Any) -> TrainingReport:
    """A second attempt that went on from step 32 and stopped early."""
    fields: dict[str, Any] = {
        "steps": STEPS,
        "planned_steps": 110,
        "epochs": 4.36,
        "best_step": BEST_STEP,
        "stopped_early": True,
        "resumed_from": 32,
        "train_loss": [Point(step=s, value=_train_loss(s)) for s in range(1, STEPS + 1)],
        "validation_loss": [Point(step=s, value=_validation_loss(s)) for s in range(12, STEPS + 1, 12)],
        "learning_rate": [Point(step=s, value=_learning_rate(s)) for s in range(1, STEPS + 1)],
        "tokens": 41_844,
        "tokens_per_second": 412.7,
        "seconds": 151.2,
        "peak_memory_bytes": 2_147_483_648,
        "device": "CPU, AMD EPYC 9654, 2 threads",
    }
    return TrainingReport(**{**fields, **changes})


def make_layout(**changes: Any) -> LayoutReport:
    """Everything fitted as it was."""
    fields: dict[str, Any] = {
        "expanded": False,
        "recomputed": 0,
        "pass_tokens": 8192,
        "predicted_memory_bytes": 1_503_238_553,
        "predicted_tokens_per_second": 430.0,
    }
    return LayoutReport(**{**fields, **changes})


def _train_loss(step: int) -> float:
    return 3.1 * math.exp(-step / 17) + 0.06 + 0.11 * math.sin(step * 2.7) * math.exp(-step / 60)


def _validation_loss(step: int) -> float:
    return 2.8 * math.exp(-step / 19) + 0.105 + 0.00003 * (step - BEST_STEP) ** 2


def _learning_rate(step: int) -> float:
    return 2e-4 * step / 4 if step < 4 else 1e-4 * (1 + math.cos(math.pi * min(1, (step - 4) / 106)))


def make_settings() -> list[Setting]:
    """Every effective setting with its origin."""
    article, practice, product = (
        f"default: {origin}" for origin in ("best-practice article", "common LoRA practice", "this product")
    )
    rows = [
        ("model.uri", "hf://HuggingFaceTB/SmolLM2-135M-Instruct", "manifest"),
        ("model.revision", "main", product),
        ("dataset.uri", "s3://clinic/triage/clinic-triage.jsonl", "manifest"),
        ("dataset.format", "detected", product),
        ("dataset.split.test", "0.15", article),
        ("dataset.split.validation", "0.1", product),
        ("dataset.split.groupBy", "case", "manifest"),
        ("dataset.split.seed", "42", product),
        ("method.type", "lora", article),
        ("method.quantization", "nf4", article),
        ("method.lora.rank", "16", article),
        ("method.lora.alpha", "32", practice),
        ("method.lora.dropout", "0.05", article),
        ("method.lora.targetModules", "all-linear", practice),
        ("training.learningRate", "2e-4", "manifest"),
        ("training.epochs", "5", "manifest"),
        ("training.maxEpochs", "5", article),
        ("training.batchSize", "8", article),
        ("training.microBatchTokens", "8192", product),
        ("training.weightDecay", "0.01", article),
        ("training.earlyStopping.enabled", "true", article),
        ("training.earlyStopping.patience", "2", article),
        ("training.maxLength", "2048", product),
        ("training.seed", "42", product),
        ("evaluation.metrics", "exactMatch, tokenF1, perplexity", product),
        ("evaluation.primaryMetric", "exactMatch", "manifest"),
        ("evaluation.maxNewTokens", "128", product),
    ]
    return [Setting(path=path, value=value, source=source) for path, value, source in rows]


def make_sample(**changes: Any) -> Sample:
    """A test row that the adapter answers exactly."""
    fields: dict[str, Any] = {
        "row": 12,
        "prompt": "Since this morning I get a heavy pressure in the middle of my chest whenever I climb the stairs, "
        "and my left arm goes numb. I am 58 and this is new.",
        "reference": '{"department": "cardiology", "urgency": "today"}',
        "base": "I'm sorry to hear that you are experiencing this. It is important to seek medical attention. "
        "Here are some possible causes of chest pressure:\n\n1. Angina\n2. Muscle strain\n3. Acid reflux",
        "adapter": '{"department": "cardiology", "urgency": "today"}',
    }
    return Sample(**{**fields, **changes})


def make_samples() -> list[Sample]:
    """Three rows: two answered exactly, one not."""
    return [
        make_sample(),
        make_sample(
            row=47,
            prompt="How much does tooth whitening cost at your dental practice, and would my two front fillings be a "
            "problem? Thinking about it for next year.",
            reference='{"department": "dental", "urgency": "routine"}',
            base="The cost of tooth whitening varies from 300 to 1000 dollars.",
            adapter='{"department": "dental", "urgency": "routine"}',
        ),
        make_sample(
            row=131,
            prompt="my little one has had a rash behind the knees for weeks, cream from the pharmacy does nothing",
            reference='{"department": "dermatology", "urgency": "soon"}',
            base="",
            adapter='{"department": "paediatrics", "urgency": "soon"}',
        ),
    ]
