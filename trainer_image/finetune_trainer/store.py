"""One client for everything that is stored: folders, volumes, S3, Google Cloud Storage and Azure.

Only this module knows obstore. It reads the usual environment by itself (AWS_*, GOOGLE_*, AZURE_*; SSL_CERT_FILE for a
private certificate authority) and addresses S3 buckets by path, never by host name.
"""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store

from finetune_trainer.errors import InvalidConfig, NotFound
from finetune_trainer.store_failures import explain

CONNECT_SECONDS = 5.0
"""How long a server may take to accept a connection."""
SILENCE_SECONDS = 30.0
"""How long a server may keep silent. No limit is set on a whole transfer: weights take as long as they take."""
PART_BYTES = 5 * 2**20
"""Size of one part of a large upload; the least that S3 accepts, so that a slow line sends one in time."""
PARTS_AT_ONCE = 2
NO_HARD_LINKS = re.compile(r"rename file: (Operation not (permitted|supported)|Function not implemented)")
"""How obstore's create-only write fails on volumes without hard links, such as SMB or FUSE mounts."""

_BUCKETS: dict[str, type[S3Store | GCSStore | AzureStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}


@dataclass(frozen=True)
class Retries:
    """How long a server that does not answer, or answers 5xx, is asked again."""

    times: int = 8
    seconds: float = 30.0
    """No new try after this long."""
    first_wait: float = 1.0
    """Seconds before the second try; later waits grow at random, up to `longest_wait`."""
    longest_wait: float = 8.0


RETRIES = Retries()


@dataclass(frozen=True)
class StoredFile:
    """One stored object."""

    path: str
    """Relative to the store it was asked from."""
    size: int
    """Bytes."""
    etag: str | None
    """Changes whenever the content does."""


Files = list[StoredFile]


@dataclass(frozen=True)
class Store:
    """A folder of objects. Paths are relative to it; every failure is a StorageError that names the URI."""

    uri: str
    client: ObjectStore
    prefix: str
    """Path of the folder within the client."""
    folder: Path | None
    """The same folder on this machine's disk, or None."""

    def uri_of(self, path: str) -> str:
        """Full URI of a path."""
        return f"{self.uri}/{path}" if path else self.uri

    def under(self, prefix: str) -> "Store":
        """The store of a folder below this one."""
        folder = None if self.folder is None else self.folder / prefix
        return replace(self, uri=self.uri_of(prefix), prefix=self._key(prefix), folder=folder)

    def write(self, path: str, content: bytes) -> None:
        """Store bytes under a path, replacing what was there. Readers see the old or the new content, never a part."""
        with self._explaining(path):
            obstore.put(self.client, self._key(path), content, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def write_file(self, path: str, local: Path) -> None:
        """Store a file of this machine, in parts where it is large; as atomic as `write`."""
        with self._explaining(path):
            obstore.put(self.client, self._key(path), local, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def create(self, path: str, content: bytes) -> bool:
        """Store bytes only if the path is still free; False if it is taken. Of many callers one gets True."""
        with self._explaining(path):
            try:
                obstore.put(self.client, self._key(path), content, mode="create")
            except AlreadyExistsError:
                return False
            except GenericError as error:
                if self.folder is None or not NO_HARD_LINKS.search(str(error)):
                    raise
                return _create_alone(self.folder / path, content)
        return True

    def read(self, path: str) -> bytes:
        """The content of an object. Raises NotFound."""
        with self._explaining(path):
            return bytes(obstore.get(self.client, self._key(path)).bytes())

    def stream(self, path: str) -> Iterator[bytes]:
        """The content of an object in pieces of a few MiB; a broken connection is taken up again. Raises NotFound."""
        with self._explaining(path):
            for piece in obstore.get(self.client, self._key(path)):
                yield bytes(piece)

    def read_file(self, path: str, local: Path) -> None:
        """Copy an object to a file of this machine, which appears only once it is whole. Raises NotFound."""
        partial = local.with_name(f".{local.name}.{uuid.uuid4().hex[:8]}")
        with _explaining(str(local)):
            local.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("wb") as file:
                    for piece in self.stream(path):
                        file.write(piece)
                partial.replace(local)
            finally:
                partial.unlink(missing_ok=True)

    def stat(self, path: str) -> StoredFile | None:
        """What is known about an object, or None if there is none."""
        with self._explaining(path):
            try:
                found = obstore.head(self.client, self._key(path))
            except FileNotFoundError:
                return None
        return StoredFile(path, found["size"], found["e_tag"])

    def exists(self, path: str) -> bool:
        """Whether there is an object of this path."""
        return self.stat(path) is not None

    def delete(self, prefix: str) -> None:
        """Delete an object, or everything below a folder. Nothing there is fine."""
        with self._explaining(prefix):
            if self.folder is not None:
                _remove(self.folder / prefix)
                return
            paths = [file.path for file in self.list(prefix)] + [prefix] * self.exists(prefix)
            if paths:
                obstore.delete(self.client, [self._key(path) for path in paths])

    def check_writable(self) -> None:
        """Raise StorageError unless objects can be created and deleted here. Creates the folder."""
        probe = self._key(f"writable-{uuid.uuid4().hex}")
        with self._explaining(""):
            obstore.put(self.client, probe, b"")
            obstore.delete(self.client, probe)

    def list(self, prefix: str = "") -> Files:
        """Every object below a folder, at any depth, by path. Half-written files are not objects."""
        key = self._key(prefix)
        with self._explaining(prefix):
            found = [file for page in obstore.list(self.client, key or None) for file in page]
        skipped = len(self.prefix) + 1 if self.prefix else 0
        below = [file for file in found if not key or file["path"].startswith(f"{key}/")]
        files = [StoredFile(file["path"][skipped:], file["size"], file["e_tag"]) for file in below]
        return sorted(files, key=lambda file: file.path)

    def _key(self, path: str) -> str:
        return "/".join(part for part in (self.prefix, path.strip("/")) if part)

    @contextmanager
    def _explaining(self, path: str) -> Iterator[None]:
        uri = self.uri_of(path)
        place = None if self.folder is None else self.folder / path
        with _explaining(uri if place is None or uri == f"file://{place}" else f"{uri} ({place})"):
            yield


def open_store(uri: str, retries: Retries = RETRIES) -> Store:
    """The store at a URI. Contacts no server and creates nothing; local folders come into being on the first write."""
    uri = uri.rstrip("/")
    scheme, _, rest = uri.partition("://")
    if scheme in ("file", "pvc"):
        folder = _claim_folder(uri, rest) if scheme == "pvc" else Path(os.path.abspath(rest))
        return Store(uri, LocalStore(), str(folder).strip("/"), folder)
    if scheme not in _BUCKETS:
        raise InvalidConfig(f"{scheme}:// is not a store; use s3://, gs://, az://, pvc:// or file://.")
    bucket, _, prefix = rest.partition("/")
    with _explaining(uri):
        return Store(uri, _open_bucket(scheme, bucket, retries), prefix, None)


def _claim_folder(uri: str, rest: str) -> Path:
    claim, _, path = rest.partition("/")
    root = Path(os.path.abspath(os.environ.get("FINETUNE_PVC_ROOT", "/mnt/pvc"))) / claim
    if ".." in Path(rest).parts:
        raise InvalidConfig(f'{uri} leaves its volume; write the path without "..".')
    if not root.is_dir():
        raise NotFound(f"{uri}: the volume of claim {claim} is not mounted at {root}.")
    return root / path


def _open_bucket(scheme: str, bucket: str, retries: Retries) -> ObjectStore:
    return _BUCKETS[scheme](
        bucket,
        client_options={
            "allow_http": True,
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=SILENCE_SECONDS),
            "timeout": timedelta(days=1),
        },
        retry_config={
            "max_retries": retries.times,
            "retry_timeout": timedelta(seconds=retries.seconds),
            "backoff": {
                "init_backoff": timedelta(seconds=retries.first_wait),
                "max_backoff": timedelta(seconds=retries.longest_wait),
            },
        },
    )


def _create_alone(path: Path, content: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _remove(path: Path) -> None:
    """Delete a file or a folder, with the half-written files that obstore left there and does not show."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _explaining(where: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise explain(where, error) from error
