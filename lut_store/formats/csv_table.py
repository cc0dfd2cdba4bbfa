"""The frame as a table of others may write it: CSV with one row per cell, and a LUT of it again.

Needed are the columns `layer` and `op` and at least one of `latency_s` and `energy_j`; `latency_se_s`, `energy_se_j`,
`n`, `energy_n`, `latency_corrected_s`, `energy_corrected_j`, `flags` and `operator_id` are read where they stand, and
other columns are not. Cells without a row or without a number are missing. Rows of layer -1 (stem0, head0, …) include
stem and head when every operator of theirs has its numbers; else none of them counts. What a frame does not hold is
not known afterwards: the correction's own uncertainty, validation and provenance.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lut_store.formats import files, numbers
from lut_store.formats.imported import NOTE, Source, ends_note, lacking_ends
from lut_store.lut import Lut
from lut_store.metric import Array, Metric
from protos.errors import BadInputError
from protos.types import FIXED_LAYER, CellRef, Configuration, SearchSpace

FORMAT = "csv"
MAX_BYTES = 8 << 20  # the frame of 22 × 9 cells has 50 kB
MAX_COLUMNS = 100
SHOWN = 40  # letters of a bad word in a message
# Columns of each metric: value, standard error, samples, corrected.
COLUMNS = {
    "latency": ("latency_s", "latency_se_s", "n", "latency_corrected_s"),
    "energy": ("energy_j", "energy_se_j", "energy_n", "energy_corrected_j"),
}
FIELDS = ("value", "se", "n", "corrected")
_PLACES = ("layer", "op")


@dataclass(frozen=True)
class _Row:
    """A line of the file with its cell."""

    where: str
    words: Mapping[str, str]
    cell: CellRef

    def number(self, column: str, *, signed: bool) -> float:
        """NaN where the column is empty or not there."""
        word = self.words.get(column, "").strip()
        if not word:
            return float("nan")
        value = numbers.read(word)
        if value is None:
            raise BadInputError(f"{self.where}, {column}: {word[:SHOWN]!r} is no number")
        if not np.isfinite(value):
            raise BadInputError(f"{self.where}, {column}: {word[:SHOWN]!r} is not finite; leave it empty if not known")
        if value < 0 and not signed:
            raise BadInputError(f"{self.where}, {column}: {word[:SHOWN]} is negative")
        return value

    def cost(self, column: str, *, signed: bool) -> float:
        value = self.number(column, signed=signed)
        if value == value and not numbers.is_sane(value):
            word = self.words[column][:SHOWN]
            raise BadInputError(f"{self.where}, {column}: {word} is larger than any operator's cost")
        return value

    def count(self, column: str) -> float:
        value = self.number(column, signed=False)
        if value != value:
            return 0.0
        if not value.is_integer() or value >= 1 << 53:
            raise BadInputError(f"{self.where}, {column}: {self.words[column][:SHOWN]!r} is no number of samples")
        return value


def load(space: SearchSpace, configuration: Configuration, path: Path) -> Lut:
    """Raises BadInputError with file, line and column."""
    source = Source(path.name, files.read(path, MAX_BYTES))
    text = files.text_of(source.data, str(path))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = _header(reader, str(path))
        rows = list(_rows(reader, header, space, str(path)))
    except csv.Error as error:
        raise BadInputError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    if not rows:
        raise BadInputError(f"{path} has a header and no rows")
    metrics = {name: _metric(space, rows, columns) for name, columns in COLUMNS.items() if _any(rows, columns[0])}
    if not metrics:
        raise BadInputError(f"{path} holds no number in {' or '.join(columns[0] for columns in COLUMNS.values())}")
    lacking = lacking_ends(space, [metric.fixed_value for metric in metrics.values()])
    if lacking:
        rows = [row for row in rows if row.cell.layer != FIXED_LAYER]
        metrics = {name: _metric(space, rows, COLUMNS[name]) for name in metrics}
    flags = {row.cell: _flags(row.words.get("flags", "")) for row in rows}
    try:
        return Lut(
            configuration=configuration,
            space=space,
            latency=metrics.get("latency"),
            energy=metrics.get("energy"),
            flags=flags,
            provenance=_provenance(source, metrics, lacking),
            fixed_included=not lacking,
        )
    except ValueError as error:
        raise BadInputError(f"{path}: {error}") from error


def _any(rows: list[_Row], column: str) -> bool:
    return any(row.words.get(column, "").strip() for row in rows)


def _flags(words: str) -> tuple[str, ...]:
    return tuple(word for word in words.split(";") if word)


def _header(reader: Iterator[list[str]], source: str) -> list[str]:
    header = next(reader, [])
    if len(header) > MAX_COLUMNS:
        raise BadInputError(f"{source}, line 1: {len(header)} columns, which no table has")
    for name in _PLACES:
        if name not in header:
            raise BadInputError(f"{source}, line 1: there is no column {name!r}; a table has layer, op and the costs")
    if not any(columns[0] in header for columns in COLUMNS.values()):
        raise BadInputError(f"{source}, line 1: there is neither a column 'latency_s' nor 'energy_j'")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise BadInputError(f"{source}, line 1: the column {twice[0][:SHOWN]!r} stands twice")
    return header


def _rows(reader: Any, header: list[str], space: SearchSpace, source: str) -> Iterator[_Row]:
    """The rows with a cell of the space each, none twice: a file of a billion rows is refused at the first too many."""
    place = _places(space)
    seen: set[CellRef] = set()
    for words in reader:
        where = f"{source}, line {reader.line_num}"
        if not words:
            continue
        if len(words) != len(header):
            raise BadInputError(f"{where}: {len(words)} fields; the header has {len(header)}")
        named = dict(zip(header, words, strict=True))
        layer, op = named["layer"].strip(), named["op"].strip()
        cell = place.get((layer, op))
        if cell is None:
            raise BadInputError(
                f"{where}: layer {layer[:SHOWN]!r}, op {op[:SHOWN]!r} is no cell of space {space.name}, "
                f"or not an allowed one"
            )
        if cell in seen:
            raise BadInputError(f"{where}: layer {layer}, {op} stands twice")
        seen.add(cell)
        spec = space.spec(cell.layer, cell.op)
        operator = named.get("operator_id", "").strip()
        if operator and spec is not None and operator != spec.operator_id:
            raise BadInputError(
                f"{where}: layer {layer}, {op} is operator {operator[:SHOWN]}, in space {space.name} it is "
                f"{spec.operator_id}: the table is of another space"
            )
        yield _Row(where, named, cell)


def _places(space: SearchSpace) -> dict[tuple[str, str], CellRef]:
    """The cells by what a row calls them."""
    place = {
        (str(layer), space.op_names[op]): CellRef(layer, op)
        for layer in range(len(space.layers))
        for op in space.allowed(layer)
    }
    for end, specs, first in (("stem", space.stem, 0), ("head", space.head, len(space.stem))):
        place |= {(str(FIXED_LAYER), f"{end}{i}"): CellRef(FIXED_LAYER, first + i) for i in range(len(specs))}
    return place


def _metric(space: SearchSpace, rows: list[_Row], columns: tuple[str, str, str, str]) -> Metric:
    value_s, se_s, n, corrected_s = columns
    signed = value_s == "energy_j"  # a small operator's energy above idle may come out below zero
    layers, ops = space.shape
    fixed = len(space.stem) + len(space.head)
    # The last row takes stem and head, so that layer -1 addresses it, as in CellRef.
    grid = {name: np.full((layers + 1, max(ops, fixed)), 0.0 if name == "n" else np.nan) for name in FIELDS}
    for row in rows:
        place = row.cell.layer, row.cell.op
        value = row.cost(value_s, signed=signed)
        corrected = row.cost(corrected_s, signed=signed)
        if np.isnan(value) and not np.isnan(corrected):
            raise BadInputError(f"{row.where}: a corrected number without the measured one in {value_s}")
        grid["value"][place] = value
        grid["se"][place] = row.cost(se_s, signed=False)
        grid["n"][place] = row.count(n)
        grid["corrected"][place] = value if np.isnan(corrected) else corrected
    cells: dict[str, Array] = {name: array[:layers, :ops] for name, array in grid.items()}
    ends: dict[str, Array] = {f"fixed_{name}": array[FIXED_LAYER, :fixed] for name, array in grid.items()}
    same = np.array_equal(grid["value"], grid["corrected"], equal_nan=True)
    arrays: dict[str, Any] = cells | ends
    return Metric(**arrays, correction={} if same else {"method": "imported"})


def _provenance(source: Source, metrics: Mapping[str, Metric], lacking: Sequence[str]) -> dict[str, Any]:
    return {
        "evidence": {"table_sha256": source.sha256},
        "method": {name: "imported" if name in metrics else None for name in COLUMNS} | {"format": FORMAT},
        "origin": {
            "format": FORMAT,
            "files": {"table": source.name},
            "note": "; ".join([NOTE, *ends_note(lacking)]),
            **({"lacking": list(lacking)} if lacking else {}),
        },
    }
