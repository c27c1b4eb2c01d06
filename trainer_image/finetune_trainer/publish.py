"""From a trained model to a complete run in the store: files first, manifest.json last."""

import json
from pathlib import Path

from peft import PeftModel

from finetune_api.report import Manifest, Report
from finetune_api.run import RunConfig, StoredAdapter
from finetune_trainer.card import render_card
from finetune_trainer.manifest import sha256_file, write_manifest
from finetune_trainer.model import save_adapter
from finetune_trainer.page import render_page
from finetune_trainer.prepare import Prepared
from finetune_trainer.store import Store
from finetune_trainer.tokens import Tokenizer

GOLDEN_PROMPTS = 3
WEIGHTS = "adapter_model.safetensors"
SPEC = {"model", "dataset", "method", "training", "evaluation"}


def write_adapter(folder: Path, model: PeftModel, tokenizer: Tokenizer, config: RunConfig, prepared: Prepared) -> None:
    """Write what a server needs into a local folder: adapter, tokenizer, chat template, golden prompt ids."""
    save_adapter(model, folder, config.model.uri.removeprefix("hf://"))
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


def stored_adapter(store: Store, folder: Path) -> StoredAdapter:
    """What the status says of an adapter."""
    weights = folder / WEIGHTS
    return StoredAdapter(
        uri=store.uri_of("adapter"), digest=f"sha256:{sha256_file(weights)}", size_bytes=weights.stat().st_size
    )


def publish(store: Store, config: RunConfig, report: Report, folder: Path) -> None:
    """Upload the adapter with its card and the report, then the manifest. Raises StorageError, leaving no manifest."""
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    (folder / "README.md").write_text(render_card(report, names))
    digests = {f"adapter/{name}": sha256_file(folder / name) for name in ["README.md", *names]}
    for path in digests:
        store.write_file(path, folder / path.removeprefix("adapter/"))
    store.write("report.html", render_page(report).encode())
    store.write("report.json", report.model_dump_json(by_alias=True, indent=1).encode())
    write_manifest(store, _manifest(config, report), digests)


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
