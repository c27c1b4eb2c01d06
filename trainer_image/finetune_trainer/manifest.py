"""manifest.json: the last file of a run. Who finds it finds every file it names, whole."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from finetune_api.report import Manifest, ManifestFile
from finetune_trainer.errors import NotFound
from finetune_trainer.store import Store, StoredFile

NAME = "manifest.json"
_NO_RESULTS = ("attempts/", "checkpoints/")
"""Folders of a run that serve the running and may change or vanish after it."""


def write_manifest(store: Store, details: Manifest, digests: Mapping[str, str] | None = None) -> Manifest:
    """List the run's files with their sha256 and store the list as manifest.json; call it last.

    `details` says everything but the files. `digests` holds the sha256 (hex) of files known already, by path; the
    others are read from the store.
    """
    known = digests or {}
    files = [
        ManifestFile(path=file.path, size=file.size, sha256=known.get(file.path) or _digest(store, file.path))
        for file in _results(store)
    ]
    manifest = details.model_copy(update={"files": files})
    store.write(NAME, manifest.model_dump_json(by_alias=True, indent=2).encode())
    return manifest


def verify(store: Store) -> list[str]:
    """What is wrong with a stored run, one sentence each; empty if every file is there with its content."""
    try:
        manifest = Manifest.model_validate_json(store.read(NAME))
    except NotFound:
        return [f"no {NAME}: the run is not complete"]
    except ValidationError:
        return [f"{NAME} is damaged"]
    found = {file.path: file for file in _results(store)}
    listed = {file.path for file in manifest.files}
    problems = [_problem(store, want, found.get(want.path)) for want in manifest.files]
    extra = [f"{path}: not in {NAME}" for path in sorted(found.keys() - listed)]
    return [problem for problem in problems if problem] + extra


def sha256_file(path: Path) -> str:
    """sha256 of a local file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _results(store: Store) -> Iterable[StoredFile]:
    return [file for file in store.list() if file.path != NAME and not file.path.startswith(_NO_RESULTS)]


def _problem(store: Store, want: ManifestFile, found: StoredFile | None) -> str | None:
    if found is None:
        return f"{want.path}: missing"
    if found.size != want.size:
        return f"{want.path}: {found.size} bytes instead of {want.size}"
    if _digest(store, want.path) != want.sha256:
        return f"{want.path}: its content has changed (sha256 differs)"
    return None


def _digest(store: Store, path: str) -> str:
    digest = hashlib.sha256()
    for piece in store.stream(path):
        digest.update(piece)
    return digest.hexdigest()
