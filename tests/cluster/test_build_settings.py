"""An image is built with this machine's package index and certificates."""

from pathlib import Path

import pytest

from cluster.build_settings import CERTIFICATES, read_pip_settings, write_build_settings


def test_a_variable_wins_over_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://file.example\ntimeout = 7\n")
    found = read_pip_settings({"PIP_INDEX_URL": "https://variable.example"}, [file])
    assert found == {"index-url": "https://variable.example", "timeout": "7"}


def test_paths_of_this_machine_stay_out(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\ncert = /here/only.pem\n[install]\nuser = true\n")
    assert read_pip_settings({"PIP_FIND_LINKS": "/here/wheels"}, [file]) == {}


def test_certificates_are_mounted_where_programs_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert write_build_settings(tmp_path / "settings")[CERTIFICATES] == bundle
