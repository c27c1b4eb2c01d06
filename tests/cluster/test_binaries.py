"""Binaries are found where they are before anything is built."""

from pathlib import Path

import pytest

from cluster import binaries


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Folders of envtest, of the project and of PATH, each with an etcd and a kubectl."""
    found = {name: tmp_path / name for name in ("assets", "cache", "path")}
    for folder in found.values():
        folder.mkdir()
        for name in ("etcd", "kubectl"):
            (folder / name).touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(found["assets"]))
    monkeypatch.setenv("PATH", str(found["path"]))
    monkeypatch.setattr(binaries, "CACHE", found["cache"])
    return found


def test_the_binaries_of_envtest_come_first(folders: dict[str, Path]) -> None:
    assert binaries.find_binary("etcd") == folders["assets"] / "etcd"


def test_what_envtest_lacks_comes_from_the_cache(folders: dict[str, Path]) -> None:
    (folders["assets"] / "etcd").unlink()
    assert binaries.find_binary("etcd") == folders["cache"] / "etcd"


def test_an_installed_etcd_saves_building_one(folders: dict[str, Path]) -> None:
    for name in ("assets", "cache"):
        (folders[name] / "etcd").unlink()
    assert binaries.find_binary("etcd") == folders["path"] / "etcd"


def test_the_kubectl_of_the_machine_is_not_taken(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(binaries, "build_binary", lambda name, _target: built.append(name))
    for name in ("assets", "cache"):
        (folders[name] / "kubectl").unlink()
    assert binaries.find_binary("kubectl") == folders["cache"] / "kubectl"
    assert built == ["kubectl"]


def test_what_another_process_built_in_the_meantime_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "etcd"
    target.write_text("built by another process")
    binaries.build_binary("etcd", target)
    assert target.read_text() == "built by another process"
