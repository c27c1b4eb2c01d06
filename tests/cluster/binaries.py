"""Binaries of the tests' Kubernetes: found where envtest or the project keeps them, else built once from Go modules."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).parent / "modules"
CACHE = Path(__file__).parents[2] / ".cache" / "bin"
KUBERNETES_VERSION = "v1.36.3"


@dataclass(frozen=True)
class Source:
    """Where a binary is built from. `on_path`: one that is installed is as good."""

    folder: str
    package: str
    flags: str = "-s -w"
    on_path: bool = False


def _kubernetes(name: str) -> Source:
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"
    return Source("kubernetes", f"k8s.io/kubernetes/cmd/{name}", flags)


KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet", "kube-proxy")
SOURCES = {name: _kubernetes(name) for name in KUBERNETES} | {
    "etcd": Source("etcd", "go.etcd.io/etcd/server/v3", on_path=True),
    "kwok": Source("kwok", "sigs.k8s.io/kwok/cmd/kwok", on_path=True),
    "coredns": Source("coredns", "github.com/coredns/coredns"),
    "versitygw": Source("versitygw", "github.com/versity/versitygw/cmd/versitygw", on_path=True),
}


def find_binary(name: str) -> Path:
    """A binary of `SOURCES`: from KUBEBUILDER_ASSETS, the cache or PATH, else built (up to some minutes)."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / name).exists():
        return Path(assets) / name
    installed = shutil.which(name) if SOURCES[name].on_path else None
    if installed and not (CACHE / name).exists():
        return Path(installed)
    return find_static_binary(name)


def find_static_binary(name: str) -> Path:
    """A binary that we built ourselves: it runs in an image that holds nothing else."""
    if not (CACHE / name).exists():
        build_binary(name, CACHE / name)
    return CACHE / name


def build_binary(name: str, target: Path) -> None:
    """Build with Go and put in place at once. Only one build runs on a machine at a time."""
    source = SOURCES[name]
    with _lock(target.parent):
        if target.exists():
            return
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            built = Path(folder) / name
            command = [find_go(), "build", "-trimpath", "-ldflags", source.flags, "-o", str(built), source.package]
            subprocess.run(
                command,
                cwd=MODULES / source.folder,
                env=os.environ | {"CGO_ENABLED": "0"},
                check=True,
            )
            built.replace(target)


def build_go_file(source: Path) -> Path:
    """A static program of one file without dependencies, built anew where the file is newer."""
    target = CACHE / source.stem
    with _lock(CACHE):
        if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
            built = target.with_suffix(".new")
            command = [find_go(), "build", "-trimpath", "-ldflags", "-s -w", "-o", str(built), str(source)]
            subprocess.run(command, env=os.environ | {"CGO_ENABLED": "0"}, check=True)
            built.replace(target)
    return target


def find_go() -> str:
    """The Go that the project installs beside its Python, else the one on PATH."""
    go = shutil.which("go", path=str(Path(sys.executable).parent)) or shutil.which("go")
    if go is None:
        raise RuntimeError(
            "The tests' Kubernetes and S3 server are built with Go, which is not installed: `make setup` installs it."
        )
    return go


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
