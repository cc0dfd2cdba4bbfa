"""The text pair of HANNA (arXiv 1906.07214): one table of seconds and one of joules.

One line per layer with one number per candidate, separated by blanks, without a header. A pair has no uncertainty and
no stem and head, and it does not say under which conditions it was measured; the LUT made of it says so. Its numbers
are kept as their authors published them, the call overhead that they measured for a skip included: a skip in a LUT of
our own costs nothing, because it is removed. What stands where a candidate is not allowed (the ninth column of layers
without skip) is kept in the provenance for a lossless export, and used for nothing.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from lut_store.formats import files, numbers
from lut_store.formats.imported import Column, Source, allowed_of, imported, kept_of
from lut_store.lut import Lut
from lut_store.metric import Array, Metric
from protos.errors import BadInputError
from protos.types import Configuration, SearchSpace

FORMAT = "hanna"
_SHOWN = 20  # letters of a bad word in a message
_LONGEST = 400  # letters of a number: the smallest double written without an exponent has 345


def parse_grid(text: str, source: str, space: SearchSpace, *, signed: bool = False) -> Array:
    """(L, K) numbers, one line per layer of `space`; blank lines after the last are allowed.

    Raises BadInputError naming source, line and column for a wrong shape, a word, NaN, infinity, and (unless `signed`)
    a negative number.
    """
    layers, ops = space.shape
    lines = text.rstrip().splitlines()
    if len(lines) != layers:
        raise BadInputError(f"{source} has {len(lines)} lines; space {space.name} has {layers} layers, one line each")
    grid = np.empty((layers, ops))
    for row, line in enumerate(lines):
        words = line.split(maxsplit=ops)  # a line of millions of numbers is counted, not kept
        if len(words) != ops:
            count = sum(1 for _ in re.finditer(r"\S+", line))
            raise BadInputError(
                f"{source}, line {row + 1}: {count} numbers; space {space.name} has {ops} candidates on each layer"
            )
        for column, word in enumerate(words):
            grid[row, column] = _number(word, f"{source}, line {row + 1}, column {column + 1}", signed)
    return grid


def _number(word: str, where: str, signed: bool) -> float:
    word = word.rstrip()
    value = numbers.read(word) if len(word) <= _LONGEST else None
    if value is None:
        raise BadInputError(f"{where}: {word[:_SHOWN]!r} is no number")
    if not math.isfinite(value):
        raise BadInputError(f"{where}: {word[:_SHOWN]!r} is not finite")
    if value < 0 and not signed:
        raise BadInputError(f"{where}: {word[:_SHOWN]} is negative; a cost is not")
    if not numbers.is_sane(value):
        raise BadInputError(f"{where}: {word[:_SHOWN]} is larger than any operator's cost")
    return value


def format_grid(grid: Array) -> str:
    """`grid` (L, K) as HANNA writes it: no exponents, and each number reads back as the same float."""
    return "".join(" ".join(np.format_float_positional(v, trim="0") for v in row) + "\n" for row in grid)


def read_text(path: Path) -> str:
    """Raises BadInputError when the file cannot be read or is no text."""
    return files.text_of(files.read(path), str(path))


def load_pair(
    space: SearchSpace, device_type: str, latency: Path, energy: Path, configuration: Configuration | None = None
) -> Lut:
    """The LUT of a pair of files, in seconds and in joules. Raises BadInputError with file, line and column.

    Its configuration, unless given, is edgelut's default (the pair names none); its errors are NaN: not known, which is
    not zero.
    """
    allowed = allowed_of(space)
    columns = {}
    for name, path in (("latency", latency), ("energy", energy)):
        source = Source(path.name, files.read(path))
        grid = parse_grid(files.text_of(source.data, str(path)), str(path), space)
        ends = np.full(len(space.stem) + len(space.head), np.nan)
        columns[name] = Column(source, grid, ends, kept=grid[~allowed].tolist())
    note = "skips cost what the table says"
    return imported(space, configuration or Configuration(device_type, space.name), FORMAT, columns, note)


def dump_pair(lut: Lut) -> tuple[str, str]:
    """The texts of latency and energy, as measured (uncorrected); stem and head have no place in the format.

    Where a candidate is not allowed stands what the imported pair held there, else 0. Raises BadInputError for a metric
    or a cell without a number.
    """
    latency, energy = (
        _dumped(lut, name, metric) for name, metric in (("latency", lut.latency), ("energy", lut.energy))
    )
    return latency, energy


def _dumped(lut: Lut, name: str, metric: Metric | None) -> str:
    if metric is None:
        raise BadInputError(f"{lut.reference} holds no {name}; the HANNA format is a pair of latency and energy")
    holes = np.argwhere(np.isnan(metric.value) & lut.allowed)
    if holes.size:
        layer, op = holes[0]
        raise BadInputError(
            f"{lut.reference}: layer {layer}, {lut.space.op_names[op]} has no {name}; the HANNA format has no holes"
        )
    grid = np.where(lut.allowed, metric.value, 0.0)
    kept = kept_of(lut, FORMAT, name)
    if isinstance(kept, list) and len(kept) == (~lut.allowed).sum() and all(isinstance(v, (int, float)) for v in kept):
        grid[~lut.allowed] = kept
    return format_grid(grid)
