"""How this machine reaches package indexes, for the time of an image's build: certificates, pip's settings."""

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Where Debian's programs, pip and uv look for it.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
PIP_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "timeout", "retries", "proxy")


def write_build_settings(folder: Path) -> Mapping[str, Path]:
    """Files to mount while an image is built: path inside → file here. Empty where nothing is set."""
    bundles = [Path(os.environ[name]) for name in CERTIFICATE_VARIABLES if os.environ.get(name)]
    mounts: dict[str, Path] = {}
    if bundles and bundles[0].is_file():
        mounts[CERTIFICATES] = bundles[0]
    settings = read_pip_settings(os.environ, [Path(file).expanduser() for file in PIP_FILES])
    if settings:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "pip.conf"
        file.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
        mounts["/etc/pip.conf"] = file
    return mounts


def read_pip_settings(environment: Mapping[str, str], files: list[Path]) -> dict[str, str]:
    """pip's settings of this machine that hold in a container, too; variables win over files."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(files)
    found = dict(parser["global"]) if parser.has_section("global") else {}
    found |= {name: value for name in PIP_SETTINGS if (value := environment.get(f"PIP_{_variable(name)}"))}
    return {name: value for name, value in found.items() if name in PIP_SETTINGS}


def _variable(setting: str) -> str:
    return setting.upper().replace("-", "_")
