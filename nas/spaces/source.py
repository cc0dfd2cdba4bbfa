"""A TOML or YAML file as a tree of values that know their lines, so that a message can name the line of what is wrong.

YAML nodes carry their lines themselves. `tomllib` gives none; but a document that it accepts is valid TOML, and a short
scan of valid text finds where each key and each element begins (toml_lines.py). Values are always the parser's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from nas.spaces.toml_lines import Path as KeyPath
from nas.spaces.toml_lines import toml_lines
from protos.errors import BadInputError, unknown

if TYPE_CHECKING:
    import yaml

SUFFIXES = (".toml", ".yaml", ".yml")
MAX_BYTES = 1 << 20  # a space file has a few kB
MAX_NODES = 100_000  # YAML aliases can make a short text endless


@dataclass(frozen=True)
class Node:
    """A value of a file: a dict of nodes, a list of nodes, or a scalar. field: its place, like ``stages[2].stride``.

    The readers below raise BadInputError, with file, line and field, when the value is not what they are asked for.
    """

    file: str
    line: int
    field: str
    value: object

    def fail(self, problem: str) -> NoReturn:
        """Raise BadInputError with the file, the line and the field of this value."""
        where = f"{self.file}, line {self.line}"
        raise BadInputError(f"{where}, {self.field}: {problem}" if self.field else f"{where}: {problem}")

    def table(self, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Node]:
        """The entries of a table that may hold these keys and no others."""
        entries = self.entries()
        for key, node in entries.items():
            if key not in required + optional:
                node.fail(str(unknown("key", key, required + optional)))
        for key in required:
            if key not in entries:
                self.fail(f"the key {key!r} is missing")
        return entries

    def entries(self) -> dict[str, Node]:
        if not isinstance(self.value, dict):
            self.fail(f"is {_named(self.value)}; it must be a table of keys and values")
        return self.value

    def items(self) -> list[Node]:
        if not isinstance(self.value, list):
            self.fail(f"is {_named(self.value)}; it must be a list")
        return self.value

    def text(self) -> str:
        if not isinstance(self.value, str):
            self.fail(f"is {_named(self.value)}; it must be text")
        return self.value

    def whole(self, low: int, high: int) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not low <= self.value <= high:
            self.fail(f"is {_named(self.value)}; it must be a whole number from {low} to {high}")
        return self.value

    def one_of(self, what: str, allowed: tuple[str, ...]) -> str:
        name = self.text()
        if name not in allowed:
            self.fail(str(unknown(what, name, allowed)))
        return name


def _named(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def read(path: Path) -> Node:
    """The root of a space file, a table. Raises BadInputError with file and line when there is none to be had."""
    text = _text(path)
    try:
        root = _read_toml(str(path), text) if path.suffix.lower() == ".toml" else _read_yaml(str(path), text)
    except RecursionError as error:
        raise BadInputError(f"{path}: nested too deeply for a space file") from error
    root.entries()
    return root


def _text(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise BadInputError(f"{path}: the name of a space file must end in one of {', '.join(SUFFIXES)}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInputError(f"{path}: the space file cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise BadInputError(f"{path}: larger than {MAX_BYTES >> 20} MB, which no space file is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInputError(f"{path}, line {line}: not UTF-8 text") from error


# ---- TOML -----------------------------------------------------------------------------------------------------------


def _read_toml(file: str, text: str) -> Node:
    text = text.replace("\r\n", "\n")
    try:
        document = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and what int() says of a number with thousands of digits
        problem = str(error)
        found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)", problem)
        line = int(found[1]) if found and found[1] else text.rstrip().count("\n") + 1
        problem = problem[: found.start()] if found else problem
        raise BadInputError(f"{file}, line {line}: not valid TOML: {problem}") from error
    return _toml_node(file, document, (), toml_lines(text), 1)


def _toml_node(file: str, value: object, path: KeyPath, lines: Mapping[KeyPath, int], above: int) -> Node:
    line = lines.get(path, above)
    if isinstance(value, dict):
        value = {key: _toml_node(file, item, (*path, key), lines, line) for key, item in value.items()}
    elif isinstance(value, list):
        value = [_toml_node(file, item, (*path, index), lines, line) for index, item in enumerate(value)]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return Node(file, line, field.removeprefix("."), value)


# ---- YAML -----------------------------------------------------------------------------------------------------------


def _read_yaml(file: str, text: str) -> Node:
    import yaml  # only who reads YAML needs it

    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise BadInputError(f"{file}, line 1: the file is empty")
        return _YamlTree(file, loader).node(root, "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise BadInputError(f"{file}, line {line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise BadInputError(f"{file}: not valid YAML: {error}") from error


class _YamlTree:
    def __init__(self, file: str, loader: yaml.SafeLoader) -> None:
        self._file = file
        self._loader = loader
        self._count = 0

    def node(self, source: yaml.Node, field: str) -> Node:
        import yaml

        self._count += 1
        if self._count > MAX_NODES:
            self._fail(source, "more values than a space file has; is an alias inside itself?")
        value: object
        if isinstance(source, yaml.MappingNode):
            value = self._mapping(source, field)
        elif isinstance(source, yaml.SequenceNode):
            value = [self.node(item, f"{field}[{index}]") for index, item in enumerate(source.value)]
        else:
            assert isinstance(source, yaml.ScalarNode)  # there are these three
            value = self._scalar(source)
        return Node(self._file, source.start_mark.line + 1, field, value)

    def _mapping(self, source: yaml.MappingNode, field: str) -> dict[str, Node]:
        import yaml

        content: dict[str, Node] = {}
        for key, value in source.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                self._fail(key, "a key must be a plain word")
            if key.value in content:
                self._fail(key, f"the key {key.value!r} stands twice")
            node = self.node(value, f"{field}.{key.value}".removeprefix("."))
            # A block begins on the line below its key, but people look for the key.
            content[key.value] = Node(node.file, key.start_mark.line + 1, node.field, node.value)
        return content

    def _scalar(self, source: yaml.ScalarNode) -> object:
        plain = source.style is None
        implied = self._loader.resolve(type(source), source.value, (plain, not plain))  # type: ignore[no-untyped-call]
        if source.tag != implied:
            self._fail(source, f"the tag {source.tag} has no meaning in a space file")
        try:
            value: object = self._loader.construct_object(source)
        except ValueError as error:  # for example 2024-99-99, which looks like a date
            self._fail(source, f"not valid YAML: {error}")
        return value

    def _fail(self, source: yaml.Node, problem: str) -> NoReturn:
        raise BadInputError(f"{self._file}, line {source.start_mark.line + 1}: {problem}")
