"""Base models and datasets, brought to this machine. Nothing that could run as code is ever downloaded."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from finetune_api.training import ModelSpec
from finetune_trainer.errors import DataRejected, ModelNotLoadable, NotFound, StorageError
from finetune_trainer.hub import download_repository
from finetune_trainer.manifest import sha256_file
from finetune_trainer.store import Store, StoredFile, open_store

WEIGHTS = "*.safetensors"
MODEL_FILES = (WEIGHTS, "*.json", "*.jinja", "*.txt", "*.model")
"""Weights, configuration, chat template and tokenizer, at the top of the model's folder."""
SECOND_COPIES = "consolidated*.safetensors"
"""Some repositories hold their weights twice, the second time in their maker's own layout."""
DATA_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
NOT_DATA = ("dataset_info.json", "dataset_infos.json")


@dataclass(frozen=True)
class FetchedData:
    """The files of a dataset on this machine, in order of their names."""

    files: list[Path]
    fingerprint: str
    """sha256 over names and contents: the same data elsewhere has the same fingerprint."""


def fetch_model(spec: ModelSpec, cache: Path, weights: bool = True) -> Path:
    """Folder of the base model: where it is if that is local, else a copy below `cache` (hub models: in the hub's own
    cache). Without `weights`, only what configuration and tokenizer need. Raises ModelNotLoadable or StorageError.
    """
    if spec.uri.startswith("hf://"):
        unwanted = [SECOND_COPIES, "*/*"] + [WEIGHTS] * (not weights)
        folder = download_repository(spec.uri, "model", spec.revision, MODEL_FILES, unwanted)
        _require_model(spec.uri, [path.name for path in folder.glob("*")], weights)
    else:
        folder = _fetch_stored_model(spec.uri, cache, weights)
    _refuse_code(spec.uri, folder / "config.json")
    return folder


def fetch_dataset(uri: str, cache: Path) -> FetchedData:
    """The data files at a URI, which names one file or a folder of them. Raises DataRejected or StorageError."""
    if uri.startswith("hf://"):
        patterns = [f"*{suffix}" for suffix in DATA_SUFFIXES]
        folder = download_repository(uri, "dataset", None, patterns, [])
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        names = [name for name in names if is_data(name)]
    else:
        folder, names = _fetch_stored_data(uri, cache)
    if not names:
        raise _no_data(uri)
    return FetchedData([folder / name for name in names], fingerprint(folder, names))


def resolve_revision(spec: ModelSpec, cache: Path) -> ModelSpec:
    """The model at exactly the commit that its revision names now; one that is not on a hub stays as it is.

    Without a connection, what the hub's own cache remembers counts. Raises ModelNotLoadable or StorageError.
    """
    if not spec.uri.startswith("hf://"):
        return spec
    return spec.model_copy(update={"revision": fetch_model(spec, cache, weights=False).name})


def find_data(uri: str) -> tuple[Store, list[StoredFile]]:
    """The store at a URI, which is no hub's, and the data files in it; a store that is itself one file lists it as "".

    Nothing is read. Raises DataRejected or StorageError.
    """
    try:
        store = open_store(uri)
        single = store.stat("") if store.uri.lower().endswith(DATA_SUFFIXES) else None
        files = [single] if single else [file for file in store.list() if is_data(file.path)]
    except NotFound as error:
        raise DataRejected(str(error)) from error
    if not files:
        raise _no_data(uri)
    return store, files


def is_data(name: str) -> bool:
    """Whether a file below a dataset's folder holds rows: by its suffix, unless it or a folder above it is hidden."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    return path.suffix.lower() in DATA_SUFFIXES and path.name not in NOT_DATA and not hidden


def fingerprint(folder: Path, names: Sequence[str]) -> str:
    """sha256 over the files' relative names and contents."""
    lines = "".join(f"{sha256_file(folder / name)}  {name}\n" for name in sorted(names))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def _fetch_stored_model(uri: str, cache: Path, weights: bool) -> Path:
    try:
        store = open_store(uri)
        top = [file for file in store.list() if "/" not in file.path]
    except NotFound as error:
        raise ModelNotLoadable(str(error)) from error
    if not top:
        raise ModelNotLoadable(f"{uri} does not exist or is empty.")
    _require_model(uri, [file.path for file in top], weights=True)
    if store.folder is not None:
        return store.folder
    loadable = [file for file in top if _is_loadable(file.path)]
    wanted = [file for file in loadable if weights or not fnmatch(file.path, WEIGHTS)]
    return _download(store, wanted, _version_folder(store, loadable, cache))


def _is_loadable(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in MODEL_FILES) and not fnmatch(name, SECOND_COPIES)


def _require_model(uri: str, names: Sequence[str], weights: bool) -> None:
    if "config.json" not in names:
        raise ModelNotLoadable(f"{uri} is no model: it holds no config.json.")
    if weights and not any(_is_loadable(name) and fnmatch(name, WEIGHTS) for name in names):
        raise ModelNotLoadable(
            f"{uri} holds no safetensors weights, and other formats are not loaded because they can run code. "
            "Convert it once: load it with transformers' AutoModelForCausalLM.from_pretrained, "
            "then save it with save_pretrained."
        )


def _refuse_code(uri: str, path: Path) -> None:
    """Refuse a model whose architecture transformers does not know itself, but only from code beside the weights."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotLoadable(f"{uri}: config.json is damaged ({error}).") from error
    if "auto_map" in config and not _is_known(config.get("model_type")):
        raise ModelNotLoadable(f"{uri} needs code from its repository to load; that is never run.")


def _is_known(architecture: str | None) -> bool:
    from transformers import CONFIG_MAPPING  # here because it takes seconds to import, and is rarely needed

    return architecture in CONFIG_MAPPING


def _fetch_stored_data(uri: str, cache: Path) -> tuple[Path, list[str]]:
    """A local folder and the data files below it."""
    store, files = find_data(uri)
    if store.folder is None:
        folder = _download(store, files, _version_folder(store, files, cache))
    else:
        folder = store.folder if files[0].path else store.folder.parent
    return folder, [_local_name(store, file) for file in files]


def _no_data(uri: str) -> DataRejected:
    return DataRejected(f"{uri} does not exist or holds no data file ({', '.join(DATA_SUFFIXES)}).")


def _version_folder(store: Store, files: Sequence[StoredFile], cache: Path) -> Path:
    """Where a copy of these files belongs; another place as soon as one of them changes."""
    version = json.dumps([(file.path, file.size, file.etag) for file in files])
    return cache.joinpath(*(hashlib.sha256(text.encode()).hexdigest()[:16] for text in (store.uri, version)))


def _download(store: Store, files: Sequence[StoredFile], folder: Path) -> Path:
    for file in files:
        local = folder / _local_name(store, file)
        if local.exists() and local.stat().st_size == file.size:
            continue
        store.read_file(file.path, local)
        if local.stat().st_size != file.size:
            raise StorageError(f"{store.uri_of(file.path)} was changed while it was read; start again.")
    return folder


def _local_name(store: Store, file: StoredFile) -> str:
    """A file's path below its copy's folder; a store that is itself one file has the path ""."""
    return file.path or store.uri.rpartition("/")[2]
