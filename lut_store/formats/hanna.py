"""The text pair of HANNA (arXiv 1906.07214): one table of seconds and one of joules.

One line per layer with one number per candidate, separated by blanks, without a header. A pair has no uncertainty and
no stem and head, and it does not say under which conditions it was measured; the LUT made of it says so. Its numbers
are kept as their authors published them, the call overhead that they measured for a skip included: a skip in a LUT of
our own costs nothing, because it is removed. What stands where a candidate is not allowed (the ninth column of layers
without skip) is kept in the provenance for a lossless export, and used for nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lut_store.formats import files
from lut_store.lut import Lut
from lut_store.metric import Array, Metric
from protos.errors import BadInputError
from protos.types import Configuration, SearchSpace

_SHOWN = 20  # letters of a bad word in a message


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
        words = line.split()
        if len(words) != ops:
            raise BadInputError(
                f"{source}, line {row + 1}: {len(words)} numbers; space {space.name} has {ops} candidates on each layer"
            )
        for column, word in enumerate(words):
            grid[row, column] = _number(word, f"{source}, line {row + 1}, column {column + 1}", signed)
    return grid


def _number(word: str, where: str, signed: bool) -> float:
    try:
        value = float(word)
    except ValueError:
        raise BadInputError(f"{where}: {word[:_SHOWN]!r} is no number") from None
    if not math.isfinite(value):
        raise BadInputError(f"{where}: {word[:_SHOWN]!r} is not finite")
    if value < 0 and not signed:
        raise BadInputError(f"{where}: {word[:_SHOWN]} is negative; a cost is not")
    return value


def format_grid(grid: Array) -> str:
    """`grid` (L, K) as HANNA writes it: no exponents, and each number reads back as the same float."""
    return "".join(" ".join(np.format_float_positional(v, trim="0") for v in row) + "\n" for row in grid)


def read_text(path: Path) -> str:
    """Raises BadInputError when the file cannot be read or is no text."""
    try:
        return files.read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path} is no text file: byte {error.start} is not UTF-8") from error


def load_pair(space: SearchSpace, device_type: str, latency: Path, energy: Path) -> Lut:
    """The LUT of a pair of files, in seconds and in joules. Raises BadInputError with file, line and column.

    Its configuration is edgelut's default (the pair names none), its errors are NaN: not known, which is not zero.
    """
    texts = {"latency": read_text(latency), "energy": read_text(energy)}
    paths = {"latency": latency, "energy": energy}
    grids = {name: parse_grid(text, str(paths[name]), space) for name, text in texts.items()}
    allowed = np.array([[cell.spec is not None for cell in layer.cells] for layer in space.layers])
    return Lut(
        configuration=Configuration(device_type, space.name),
        space=space,
        latency=_metric(space, allowed, grids["latency"]),
        energy=_metric(space, allowed, grids["energy"]),
        provenance={
            "evidence": {f"{name}_sha256": hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
            "method": {"latency": "imported", "energy": "imported", "format": "hanna"},
            "origin": {
                "format": "hanna",
                "files": {name: path.name for name, path in paths.items()},
                "not_used": {name: grid[~allowed].tolist() for name, grid in grids.items()},
                "note": (
                    "imported: no uncertainty, stem and head not included, skips cost what the table says; "
                    "how it was measured is not recorded, and the configuration is edgelut's default"
                ),
            },
        },
        fixed_included=False,
    )


def _metric(space: SearchSpace, allowed: np.ndarray[Any, np.dtype[np.bool_]], grid: Array) -> Metric:
    value = np.where(allowed, grid, np.nan)
    unknown, fixed = np.full(space.shape, np.nan), np.full(len(space.stem) + len(space.head), np.nan)
    return Metric(value, unknown, np.zeros(space.shape, np.int64), value, fixed, fixed, fixed)


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
    kept = _kept(lut, name)
    if len(kept) == (~lut.allowed).sum():
        grid[~lut.allowed] = kept
    return format_grid(grid)


def _kept(lut: Lut, name: str) -> list[float]:
    origin: Any = lut.provenance.get("origin")
    not_used = origin.get("not_used") if isinstance(origin, Mapping) else None
    values = not_used.get(name) if isinstance(not_used, Mapping) else None
    return values if isinstance(values, list) and all(isinstance(value, (int, float)) for value in values) else []
