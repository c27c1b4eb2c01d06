"""Manifests as text: YAML as Kubernetes reads it.

Kubernetes reads YAML 1.1 by Go's rules, PyYAML by its own. They differ where it hurts: to PyYAML `2e-5` is text, `1:30`
is 90, `2026-11-23` is a date and `n` is text; to Kubernetes they are a number, text, text and false.
"""

import json
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import yaml
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

_TAG = "tag:yaml.org,2002:"
_SCALARS = [
    ("bool", r"(?:y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)", "yYnNtTfFoO"),
    ("int", r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"(?:~|null|Null|NULL|)", ("~", "n", "N", "")),
    ("merge", r"<<", "<"),
]
"""Plain scalars that are not text: type, pattern, possible first characters. The first match decides."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a manifest."""

    path: str
    """Field in the manifest's terms, or line and column; empty for the manifest as a whole."""
    message: str
    suggestion: str | None = None
    """What to do about it, as a sentence of its own."""

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        return f"{place}{self.message}. {self.suggestion or ''}".rstrip()


class InvalidManifest(Exception):
    """A manifest that cannot be used; one line for each problem."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class _Loader(yaml.SafeLoader):
    """Kubernetes' scalars, keys that are text, no key twice."""

    bool_values: ClassVar[dict[str, bool]] = {**yaml.SafeLoader.bool_values, "y": True, "n": False}

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        _refuse_repeated_keys(node)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, KeyError) as error:
            problem = f"{node.value!r} is not {node.tag.replace(_TAG, '!!')}"
            raise ConstructorError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        node.value = node.value.replace("0o", "0")
        return int(super().construct_yaml_int(node))

    def refuse_tag(self, node: yaml.Node) -> NoReturn:
        raise ConstructorError(None, None, f"the tag {node.tag.replace(_TAG, '!!')} is not allowed", node.start_mark)


_Loader.yaml_constructors = {
    f"{_TAG}null": _Loader.construct_yaml_null,
    f"{_TAG}bool": _Loader.construct_yaml_bool,
    f"{_TAG}int": _Loader.construct_yaml_int,
    f"{_TAG}float": _Loader.construct_yaml_float,
    f"{_TAG}str": _Loader.construct_yaml_str,
    f"{_TAG}seq": _Loader.construct_sequence,
    f"{_TAG}map": _Loader.construct_mapping,
    None: _Loader.refuse_tag,
}


_Loader.yaml_implicit_resolvers = {}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that PyYAML or Kubernetes would read as something else."""


for _name, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))


def load_yaml(text: str) -> object:
    """The one document in a YAML text, None if there is none.

    Raises InvalidManifest, with line and column, for bad YAML, a key given twice and more than one document.
    """
    try:
        loader = _Loader(text)
        documents = [node for node in _nodes(loader) if node.tag != f"{_TAG}null"]
        _refuse_several(documents)
        return loader.construct_document(documents[0]) if documents else None
    except yaml.MarkedYAMLError as error:
        raise InvalidManifest([_syntax_problem(error)]) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"the character #x{error.character:04x} is not allowed in YAML"
        raise InvalidManifest([Problem(f"line {line}", message)]) from error


def dump_yaml(data: object) -> str:
    """Plain data as YAML that PyYAML and Kubernetes read alike; keys keep their order."""
    unshared = json.loads(json.dumps(data))  # what is the same object twice would be written as an anchor
    return str(yaml.dump(unshared, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True))


def _nodes(loader: _Loader) -> Iterator[yaml.Node]:
    while loader.check_node():
        node = loader.get_node()
        assert node is not None
        yield node


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConstructorError(None, None, "a key must be text", key.start_mark)
        if key.value in lines:
            problem = f"{key.value} is given twice, first in line {lines[key.value]}"
            raise ConstructorError(None, None, problem, key.start_mark)
        lines[key.value] = key.start_mark.line + 1


def _refuse_several(documents: list[yaml.Node]) -> None:
    if len(documents) > 1:
        *starts, last = (str(node.start_mark.line + 1) for node in documents)
        message = f"the file holds {len(documents)} YAML documents, starting in lines {', '.join(starts)} and {last}"
        raise InvalidManifest([Problem("", message, "Give one FineTuneJob per file.")])


def _syntax_problem(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark
    assert mark is not None  # every error of the scanner, parser, composer and constructor carries one
    return Problem(f"line {mark.line + 1}, column {mark.column + 1}", str(error.problem))
