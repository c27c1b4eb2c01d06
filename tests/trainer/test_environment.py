"""Where a process may write, and what it takes from the user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_trainer.environment import CACHES, cache_folder, keep_caches_in


def test_downloads_are_kept_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("FINETUNE_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "finetune"
    monkeypatch.setenv("FINETUNE_CACHE", "")
    assert cache_folder() == tmp_path / "xdg" / "finetune"
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"


def test_libraries_cache_below_ours_unless_the_user_chose_another_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CACHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", "/models")
    keep_caches_in(tmp_path)
    assert {os.environ[name] for name in CACHES} == {
        "/models", f"{tmp_path}/torch", f"{tmp_path}/triton", f"{tmp_path}/cuda"
    }  # fmt: skip


def test_transformers_comes_without_torch_and_torch_can_still_be_had() -> None:
    code = (
        "import sys\n"
        "from finetune_trainer.environment import import_transformers_without_torch\n"
        "import_transformers_without_torch()\n"
        "print('transformers' in sys.modules, 'torch' in sys.modules)\n"
        "import torch\n"
        "print(torch.zeros(2).sum().item())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "0.0"]
