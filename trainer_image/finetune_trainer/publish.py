"""From a trained model to a complete run in the store: files first, manifest.json last."""

import json
from pathlib import Path

from finetune_api.report import Manifest, Report
from finetune_api.run import RunConfig, StoredAdapter, result_of
from finetune_trainer.card import render_card
from finetune_trainer.manifest import sha256_file, write_manifest
from finetune_trainer.merge import MERGED, merge
from finetune_trainer.page import render_page
from finetune_trainer.prepare import Prepared
from finetune_trainer.store import Store
from finetune_trainer.tokens import Tokenizer
from finetune_trainer.tuned import Tuned

GOLDEN_PROMPTS = 3
SPEC = {"model", "dataset", "method", "training", "evaluation"}


def write_results(
    tree: Path, source: Path, tuned: Tuned, tokenizer: Tokenizer, config: RunConfig, prepared: Prepared
) -> None:
    """Write what servers need into folders below `tree`, as they will lie in the run; the base is in `source`."""
    result = tree / result_of(config.method.type)
    write_result(result, tuned, tokenizer, config, prepared)
    if config.merged:
        merge(source, config.method.storage, result, tree / MERGED)


def write_result(folder: Path, tuned: Tuned, tokenizer: Tokenizer, config: RunConfig, prepared: Prepared) -> None:
    """Write what was trained: weights, tokenizer, chat template, golden prompt ids."""
    folder.mkdir()
    tuned.save(folder, config.model.uri.removeprefix("hf://"))
    tokenizer.save_pretrained(folder)
    (folder / "golden_prompts.json").write_text(json.dumps(golden_prompts(prepared), ensure_ascii=False, indent=1))


def golden_prompts(prepared: Prepared) -> list[dict[str, object]]:
    """A few held-out prompts with their ids: a server that makes other ids of them is misconfigured."""
    return [
        {
            "messages": [{"role": message.role, "content": message.content} for message in example.row.prompt],
            "ids": list(example.prompt_ids),
        }
        for example in prepared.splits["test"][:GOLDEN_PROMPTS]
        if example.prompt_length
    ]


def stored_result(store: Store, config: RunConfig, tree: Path, name: str) -> StoredAdapter:
    """What the status says of results below `tree` whose weights are in the file `name`."""
    place = result_of(config.method.type)
    weights = tree / place / name
    return StoredAdapter(
        uri=store.uri_of(place),
        digest=f"sha256:{sha256_file(weights)}",
        size_bytes=weights.stat().st_size,
        merged_uri=store.uri_of(MERGED) if config.merged else None,
    )


def publish(store: Store, config: RunConfig, report: Report, tree: Path) -> None:
    """Upload the results with a card and the report, then the manifest. Raises StorageError, leaving no manifest."""
    result = tree / result_of(config.method.type)
    (result / "README.md").write_text(render_card(report, _files_below(result)))
    digests = {path: sha256_file(tree / path) for path in _files_below(tree)}
    for path in digests:
        store.write_file(path, tree / path)
    store.write("report.html", render_page(report).encode())
    store.write("report.json", report.model_dump_json(by_alias=True, indent=1).encode())
    write_manifest(store, _manifest(config, report), digests)


def _files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _manifest(config: RunConfig, report: Report) -> Manifest:
    outcome = report.outcome
    return Manifest(
        run_id=outcome.run_id,
        name=config.name,
        namespace=config.namespace,
        attempt=outcome.attempt,
        digest=outcome.digest,
        created=report.created,
        spec=config.model_dump(mode="json", by_alias=True, include=SPEC),
        model_digest=report.model.digest,
        dataset_fingerprint=report.data.fingerprint,
        verdict=outcome.evaluation.verdict if outcome.evaluation else "Inconclusive",
        versions=report.versions,
        files=[],
    )
