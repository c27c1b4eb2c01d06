"""What the images are built from is what the lock says."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, frozenset[str]]:
    """Hashes by name==version with its marker."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = re.findall(r"^(\S+==\S+(?: ; .+?)?) \\\n((?: +--hash=\S+(?: \\)?\n)+)", text, re.MULTILINE)
    return {pin.partition(" ")[0]: frozenset(re.findall(r"--hash=(\S+)", hashes)) for pin, hashes in entries}


def names(name: str) -> set[str]:
    return {pin.partition("==")[0] for pin in pins(name)}


@pytest.mark.parametrize("image", ["operator", "trainer"])
def test_an_image_holds_what_its_extra_asks_for_in_the_locked_versions(image: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"][image]]
    assert {re.split(r"[<>=~!;\[ ]", requirement)[0] for requirement in asked} <= names(image)
    assert pins(image).items() <= pins("lock").items(), "Run make lock."


def test_torch_stays_out_of_the_operator_and_kubernetes_out_of_the_trainer() -> None:
    assert not names("operator") & {"torch", "transformers", "peft", "bitsandbytes", "numpy", "obstore"}
    assert not names("trainer") & {"kopf", "kubernetes"}
