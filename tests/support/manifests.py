"""Manifests as a person writes them, as plain data."""

from typing import Any


def make_manifest(metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """The smallest complete FineTuneJob; `metadata` and `spec` fields are added or replaced."""
    return {
        "apiVersion": "finetuning.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "clinic-triage", **(metadata or {})},
        "spec": {
            "model": {"uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct"},
            "dataset": {"uri": "s3://clinic/triage.jsonl"},
            "output": {"uri": "s3://adapters/clinic"},
            **spec,
        },
    }
