"""Repositories on a model hub. Only this module knows the hub's client."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import huggingface_hub
from huggingface_hub import errors as hub

from finetune_trainer.errors import DataRejected, ModelNotLoadable, RunError, StorageError

Kind = Literal["model", "dataset"]


def download_repository(
    uri: str, kind: Kind, revision: str | None, wanted: Sequence[str], unwanted: Sequence[str]
) -> Path:
    """Folder of a repository's snapshot in the hub's own cache; its name is the commit.

    Raises ModelNotLoadable or DataRejected, by kind, or StorageError.
    """
    with _explaining(uri, kind, revision):
        return Path(
            huggingface_hub.snapshot_download(
                _name(uri, kind),
                repo_type=kind,
                revision=revision,
                allow_patterns=list(wanted),
                ignore_patterns=list(unwanted),
            )
        )


def commit_of(uri: str, kind: Kind, revision: str) -> str:
    """The commit that a branch or tag names now; always asks the hub. Raises like the download."""
    with _explaining(uri, kind, revision):
        return str(huggingface_hub.HfApi().repo_info(_name(uri, kind), repo_type=kind, revision=revision).sha)


def _name(uri: str, kind: Kind) -> str:
    name = uri.removeprefix("hf://").rstrip("/")
    if name.count("/") > 1:
        raise _rejection(kind)(f"{uri} is no hub repository; write hf://OWNER/NAME.")
    return name


def _rejection(kind: Kind) -> type[RunError]:
    return ModelNotLoadable if kind == "model" else DataRejected


@contextmanager
def _explaining(uri: str, kind: Kind, revision: str | None) -> Iterator[None]:
    """Turn what the hub's client raises into a sentence."""
    rejected = _rejection(kind)
    try:
        yield
    except RunError:
        raise
    except hub.HFValidationError as error:
        raise rejected(f"{uri} is no hub repository; write hf://OWNER/NAME.") from error
    except hub.GatedRepoError as error:
        raise rejected(f"{uri} is gated: accept its terms on the hub and set HF_TOKEN.") from error
    except hub.RepositoryNotFoundError as error:
        raise rejected(f"{uri} does not exist on the hub, or is private: check the name or set HF_TOKEN.") from error
    except hub.RevisionNotFoundError as error:
        raise rejected(f"{uri} has no revision {revision}.") from error
    except hub.LocalEntryNotFoundError as error:
        raise StorageError(f"{uri} is not in this machine's hub cache, and the hub cannot be reached.") from error
    except Exception as error:  # the hub's client lets through what several libraries below it raise
        raise StorageError(f"{uri} could not be read: {str(error).partition(chr(10))[0]}") from error
