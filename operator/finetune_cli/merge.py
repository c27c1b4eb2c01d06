"""`merge`: a published adapter and its base as one model."""

from pathlib import Path

from finetune_cli.published import base_of, published, run_of
from finetune_trainer.environment import cache_folder
from finetune_trainer.errors import InvalidConfig


def merge_published(location: str, target: Path, model: str | None) -> None:
    """Write the merged model into a new or empty folder. Raises RunError."""
    from finetune_trainer.fetch import fetch_model
    from finetune_trainer.merge import merge, refuse_unmergeable

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidConfig(f"{target} is there already, and not empty. Name a new folder.")
    run = run_of(location)
    with published(run) as (folder, _):
        refuse_unmergeable(folder)
        spec, quantization = base_of(run, folder, model)
        merge(fetch_model(spec, cache_folder()), quantization, folder, target)
    print(target)
