"""JSON text of unknown origin → Lut. Everything is checked; a fault is one sentence with source and field."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

import numpy as np

from lut_store.document import FORMAT, FORMAT_VERSION
from lut_store.formats.files import MAX_DOCUMENT_BYTES
from lut_store.formats.provenance_shape import fault, fault_of_boards
from lut_store.lut import Lut
from lut_store.metric import Array, IntArray, Metric
from protos.errors import BadInputError
from protos.types import BlockSpec, Cell, CellRef, Configuration, Layer, SearchSpace

T = TypeVar("T")

_KEYS = frozenset(
    {"format", "format_version", "digest", "version", "created_wall_s", "configuration", "space", "fixed_included"}
    | {"latency", "energy", "flags", "validation", "provenance"}
)
_SPACE_KEYS = frozenset({"name", "op_names", "operators", "stem", "layers", "head"})
_METRIC_KEYS = frozenset(item.name for item in fields(Metric))


class _Node:
    """A value with the place where it stands."""

    def __init__(self, value: Any, source: str, path: str = "") -> None:
        self.value, self.source, self.path = value, source, path

    def fail(self, why: str) -> NoReturn:
        raise BadInputError(f"{self.source}: {self.path or 'the document'} {why}")

    def _of(self, kind: type[T] | tuple[type, ...], word: str) -> T:
        value = self.value
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.fail(f"must be {word}, not {_shown(value)}")
        return value  # type: ignore[return-value]

    def object(self, keys: frozenset[str]) -> dict[str, _Node]:
        found: dict[str, Any] = self._of(dict, "an object")
        for key in sorted(keys - found.keys()):
            self.fail(f"has no field {key!r}")
        for key in sorted(found.keys() - keys):
            self.fail(f"has a field {key!r}, which format version {FORMAT_VERSION} does not know")
        return {key: _Node(found[key], self.source, f"{self.path}.{key}" if self.path else key) for key in found}

    def record(self) -> dict[str, Any]:
        return self._of(dict, "an object")

    def items(self) -> list[_Node]:
        values: list[Any] = self._of(list, "a list")
        return [_Node(value, self.source, f"{self.path}[{index}]") for index, value in enumerate(values)]

    def text(self) -> str:
        value: str = self._of(str, "text")
        if not value.isascii() and any(0xD800 <= ord(letter) < 0xE000 for letter in value):
            self.fail("holds half a surrogate pair, which is no text")
        return value

    def flag(self) -> bool:
        return self._of(bool, "true or false")

    def whole(self) -> int:
        value: int = self._of(int, "a whole number")
        if abs(value) >= 1 << 53:
            self.fail("is larger than any count or size can be")
        return value

    def number(self) -> float:
        value: float = self._of((int, float), "a number")
        if abs(value) > sys.float_info.max:  # 1e999 is valid JSON and becomes infinite
            self.fail("is not a finite number")
        return float(value)

    def number_or_nan(self) -> float:
        return float("nan") if self.value is None else self.number()

    def floats(self, *shape: int) -> Array:
        return np.array(self._numbers(shape, whole=False), np.float64).reshape(shape)

    def counts(self, *shape: int) -> IntArray:
        return np.array(self._numbers(shape, whole=True), np.int64).reshape(shape)

    def _numbers(self, shape: tuple[int, ...], *, whole: bool) -> list[float]:
        """Flat, None as NaN. The shape is the space's, so that no table can be larger than what it describes."""
        items = self.items()
        if len(items) != shape[0]:
            self.fail(f"has {len(items)} entries; the space needs {shape[0]}")
        if len(shape) > 1:
            return [number for item in items for number in item._numbers(shape[1:], whole=whole)]
        if whole:
            return [item.whole() for item in items]
        return [item.number_or_nan() for item in items]


def _shown(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "…"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which JSON does not have; a number that is not known is null")


def _parse(text: bytes | str, source: str) -> Any:
    if len(text) > MAX_DOCUMENT_BYTES:
        raise BadInputError(f"{source} is larger than {MAX_DOCUMENT_BYTES >> 20} MiB, which no LUT is")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise BadInputError(
            f"{source} is not JSON, or is cut off: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of 5000 digits, a thousand brackets
        raise BadInputError(f"{source} is not the JSON of a LUT: {error}") from error


def from_text(text: bytes | str, source: str) -> Lut:
    """The LUT of a JSON document; `source` names it in messages. Raises BadInputError."""
    root = _Node(_parse(text, source), source)
    head = root.record()
    if head.get("format") != FORMAT:
        raise BadInputError(f"{source} is JSON but not a LUT: its field 'format' must be {FORMAT!r}")
    if head.get("format_version") != FORMAT_VERSION:
        raise BadInputError(
            f"{source} has the format version {_shown(head.get('format_version'))}, this program reads "
            f"{FORMAT_VERSION}; read it with the edgelut that wrote it, or a newer one"
        )
    parts = root.object(_KEYS)
    space = _space(parts["space"])
    lut = _built(
        root,
        Lut,
        configuration=_configuration(parts["configuration"]),
        space=space,
        latency=_metric(parts["latency"], space),
        energy=_metric(parts["energy"], space),
        flags=_flags(parts["flags"]),
        validation=parts["validation"].record(),
        provenance=_provenance(parts["provenance"], space),
        version=parts["version"].whole(),
        created_wall_s=parts["created_wall_s"].number(),
        fixed_included=parts["fixed_included"].flag(),
    )
    if lut.digest != parts["digest"].text():
        parts["digest"].fail("does not fit the content: the file was changed or damaged after it was written")
    return lut


def _built(node: _Node, cls: type[T], **values: Any) -> T:
    """`cls(**values)`, with the sentence of a refusal at its place in the file."""
    try:
        return cls(**values)
    except (ValueError, TypeError, OverflowError) as error:
        node.fail(f"cannot be: {error}")


def _plain_fields(node: _Node, cls: type[T]) -> T:
    """A flat dataclass of texts and whole numbers."""
    parts = node.object(frozenset(item.name for item in fields(cls)))  # type: ignore[arg-type]
    kinds = {item.name: item.type for item in fields(cls)}  # type: ignore[arg-type]
    return _built(
        node, cls, **{key: part.text() if kinds[key] in (str, "str") else part.whole() for key, part in parts.items()}
    )


def _configuration(node: _Node) -> Configuration:
    return _plain_fields(node, Configuration)


def _space(node: _Node) -> SearchSpace:
    parts = node.object(_SPACE_KEYS)
    operators = [_plain_fields(item, BlockSpec) for item in parts["operators"].items()]

    def operator(item: _Node) -> BlockSpec:
        index = item.whole()
        if not 0 <= index < len(operators):
            item.fail(f"names operator {index}; there are {len(operators)}")
        return operators[index]

    def cell(item: _Node) -> Cell:
        return Cell(None if item.value is None else operator(item))

    return _built(
        node,
        SearchSpace,
        name=parts["name"].text(),
        op_names=tuple(item.text() for item in parts["op_names"].items()),
        layers=tuple(Layer(tuple(cell(item) for item in row.items())) for row in parts["layers"].items()),
        stem=tuple(operator(item) for item in parts["stem"].items()),
        head=tuple(operator(item) for item in parts["head"].items()),
    )


def _metric(node: _Node, space: SearchSpace) -> Metric | None:
    if node.value is None:
        return None
    parts = node.object(_METRIC_KEYS)
    grid, fixed = space.shape, len(space.stem) + len(space.head)
    return _built(
        node,
        Metric,
        value=parts["value"].floats(*grid),
        se=parts["se"].floats(*grid),
        n=parts["n"].counts(*grid),
        corrected=parts["corrected"].floats(*grid),
        fixed_value=parts["fixed_value"].floats(fixed),
        fixed_se=parts["fixed_se"].floats(fixed),
        fixed_n=parts["fixed_n"].counts(fixed),
        fixed_corrected=parts["fixed_corrected"].floats(fixed),
        correction=parts["correction"].record(),
        factor_rel_se=parts["factor_rel_se"].number_or_nan(),
        residual_rel_sd=parts["residual_rel_sd"].number_or_nan(),
    )


def _flags(node: _Node) -> Mapping[CellRef, tuple[str, ...]]:
    flags: dict[CellRef, tuple[str, ...]] = {}
    for item in node.items():
        parts = item.object(frozenset({"layer", "op", "flags"}))
        cell = CellRef(parts["layer"].whole(), parts["op"].whole())
        flags[cell] = tuple(word.text() for word in parts["flags"].items())
    return flags


def _provenance(node: _Node, space: SearchSpace) -> dict[str, Any]:
    record = node.record()
    if said := fault(record) or fault_of_boards(record.get("boards"), space):
        raise BadInputError(f"{node.source}: {said}")
    return record


def space_from_document(document: Any, source: str) -> SearchSpace:
    """The space that `lut_store.document.space_document` gave. Raises BadInputError naming source and place."""
    return _space(_Node(document, source))
