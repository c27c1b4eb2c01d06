"""Fixtures that several test modules share."""

from pathlib import Path

import pytest

from support.s3_server import s3_server as s3_server
from support.tiny_models import write_tiny_model


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama whose tokenizer and chat template both know BOS."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama", "llama")


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Qwen2 with a ChatML template."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-qwen", "qwen2")
