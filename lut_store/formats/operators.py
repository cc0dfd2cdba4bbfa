"""Tables that name operators by keys and hold milliseconds or millijoules: what ofa.py and hw_nas_bench.py share.

A key stands for an operator wherever it is, so that all cells with that operator get one number. Numbers are shifted
by three decimal places in decimal arithmetic: what edgelut writes, it reads back as the same floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np

from lut_store.formats import files, numbers
from lut_store.formats.imported import Column, Source, imported, kept_of
from lut_store.lut import METRICS, Lut
from lut_store.metric import Metric
from protos.errors import BadInputError
from protos.types import SKIP, BlockSpec, Configuration, SearchSpace

MAX_TABLE_BYTES = 4 << 20  # a table of 2,000 operators has 0.2 MB
MAX_ENTRIES = 20_000
MAX_KEY = 200  # letters
MAX_MILLI = Decimal(10) ** 12  # ms or mJ; an operator that takes 30 years is a mistake
SMALLEST = -330  # decimal exponent
MILLI = 3  # decimal places between a unit and its thousandth
SHOWN = 60  # letters of a key or a word in a message

Table = Mapping[str, Decimal]


@dataclass(frozen=True)
class Scheme:
    """A way of naming operators.

    parts(spec): the keys whose numbers add up to the operator's, for each way in which the scheme may write it, the
    preferred one first; an export puts the whole cost under the last key of the first way, and 0 under the others. No
    way: the scheme has no name for this operator. `free_skip`: a skip has no key, because it costs nothing.
    """

    format: str
    parts: Callable[[BlockSpec], tuple[tuple[str, ...], ...]]
    read: Callable[[bytes, str], Table]
    write: Callable[[Mapping[str, str]], str]
    free_skip: bool


@dataclass(frozen=True)
class Dumped:
    """The texts of the metrics that a LUT holds, and sentences about what the format could not hold."""

    texts: Mapping[str, str]
    notes: tuple[str, ...]


def number(word: str, where: str) -> Decimal:
    """A cost of a table. Raises BadInputError naming `where`."""
    try:
        value = Decimal(word) if len(word) <= SHOWN * 10 and numbers.is_plain(word) else None
    except ArithmeticError:
        value = None
    if value is None:
        raise BadInputError(f"{where}: {word[:SHOWN]!r} is no number")
    if not value.is_finite():
        raise BadInputError(f"{where}: {word[:SHOWN]!r} is not finite")
    if value < 0:
        raise BadInputError(f"{where}: {word[:SHOWN]} is negative; a cost is not")
    if value and value.adjusted() < SMALLEST:
        raise BadInputError(f"{where}: {word[:SHOWN]} is smaller than any float")
    if value > MAX_MILLI:
        raise BadInputError(f"{where}: {word[:SHOWN]} is larger than any operator's cost")
    return value


# ---- reading --------------------------------------------------------------------------------------------------------


def load(scheme: Scheme, space: SearchSpace, configuration: Configuration, paths: Mapping[str, Path]) -> Lut:
    """The LUT of one file per metric. Raises BadInputError with file and line or key."""
    return imported(space, configuration, scheme.format, {n: _column(scheme, space, p) for n, p in paths.items()})


def _column(scheme: Scheme, space: SearchSpace, path: Path) -> Column:
    source = Source(path.name, files.read(path, MAX_TABLE_BYTES))
    table = scheme.read(source.data, str(path))
    for key in table:
        if len(key) > MAX_KEY or not key.isprintable():
            raise BadInputError(f"{path}: {key[:SHOWN]!r} is no name of an operator")
    used: set[str] = set()

    def cost(spec: BlockSpec | None) -> float:
        if spec is None:
            return float("nan")
        if spec.kind == SKIP and scheme.free_skip:
            return 0.0
        for way in scheme.parts(spec):
            if all(key in table for key in way):
                used.update(way)
                return float(sum((table[key] for key in way), Decimal(0)).scaleb(-MILLI))
        return float("nan")

    cells = np.array([[cost(cell.spec) for cell in layer.cells] for layer in space.layers])
    kept = {key: str(value) for key, value in table.items() if key not in used}
    if not used:
        raise BadInputError(_nothing_fits(scheme, space, table, path))
    fixed = np.array([cost(spec) for spec in (*space.stem, *space.head)])
    return Column(source, cells, fixed, kept)


def _nothing_fits(scheme: Scheme, space: SearchSpace, table: Table, path: Path) -> str:
    wanted = next(
        (ways[0][0] for layer in space.layers for c in layer.cells if c.spec and (ways := scheme.parts(c.spec))), ""
    )
    has = f"its first key is {next(iter(table))[:SHOWN]!r}" if table else "it is empty"
    needs = f"a block of the space is {wanted!r}" if wanted else "and the format has no key for any of its blocks"
    return f"{path}: none of its {len(table)} operators is one of space {space.name}: {has}, {needs}"


# ---- writing --------------------------------------------------------------------------------------------------------


def dump(scheme: Scheme, lut: Lut) -> Dumped:
    """The tables of a LUT as measured (uncorrected). What an import kept of its file is written again."""
    texts: dict[str, str] = {}
    notes: dict[str, None] = {}
    for name in METRICS:
        metric: Metric | None = getattr(lut, name)
        if metric is not None:
            texts[name], own = _dumped(scheme, lut, name, metric)
            notes |= dict.fromkeys(own)
    return Dumped(texts, tuple(notes))


def _dumped(scheme: Scheme, lut: Lut, name: str, metric: Metric) -> tuple[str, list[str]]:
    values: dict[BlockSpec, list[float]] = {}
    ends = (*lut.space.stem, *lut.space.head) if lut.fixed_included else ()
    for spec, value in zip(ends, metric.fixed_value, strict=False):
        values.setdefault(spec, []).append(float(value))
    for layer, row in enumerate(lut.space.layers):
        for op, cell in enumerate(row.cells):
            if cell.spec is not None:
                values.setdefault(cell.spec, []).append(float(metric.value[layer, op]))
    kept = kept_of(lut, scheme.format, name)
    kept = {key: str(value) for key, value in kept.items()} if isinstance(kept, dict) else {}
    entries: dict[str, str] = {}
    unnamed = missing = averaged = negative = dropped = 0
    for spec, own in values.items():
        known = [value for value in own if not np.isnan(value)]
        if spec.kind == SKIP and scheme.free_skip:
            dropped += any(known)
            continue
        ways = scheme.parts(spec)
        if not ways or not known:
            unnamed += not ways
            missing += not known
            continue
        averaged += len(set(known)) > 1
        mean = known[0] if len(set(known)) == 1 else float(np.mean(known))
        negative += mean < 0
        entries |= _split(ways[0], max(mean, 0.0), kept)
    notes = _notes(scheme, unnamed, missing, averaged, negative, dropped)
    return scheme.write({**{k: v for k, v in kept.items() if k not in entries}, **entries}), notes


def _split(way: tuple[str, ...], value: float, kept: Mapping[str, str]) -> dict[str, str]:
    """The cost under its keys: as an import found it when it still adds up, else all of it under the last one."""
    milli = Decimal(repr(value)).scaleb(MILLI)
    if len(way) > 1 and all(key in kept for key in way):
        found = [number(kept[key], key) for key in way]
        if float(sum(found, Decimal(0)).scaleb(-MILLI)) == value:
            return {key: format(part, "f") for key, part in zip(way, found, strict=True)}
    return dict.fromkeys(way, "0.0") | {way[-1]: format(milli, "f")}


def _notes(scheme: Scheme, unnamed: int, missing: int, averaged: int, negative: int, dropped: int) -> list[str]:
    said = []
    if unnamed:
        said.append(f"no key of the {scheme.format} format for {unnamed} of the operators: they are not in the file")
    if missing:
        said.append(f"no number of {missing} of the operators: they are not in the file")
    if averaged:
        said.append(f"operators with different numbers on several layers, of which the file holds the mean: {averaged}")
    if negative:
        said.append(f"operators below zero, which is noise, and are 0 in the file: {negative}")
    if dropped:
        said.append("the cost of skips is not in the file: in this format a skip costs nothing")
    return said
