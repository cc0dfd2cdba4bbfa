"""Tables of others as LUTs: what they all have in common.

Such a table has no uncertainty, no samples and no validation, and says little of how it was measured. The LUT made of
it says all that: standard errors are NaN (not known, which is not zero), stem and head are left out unless the table
holds every one of them, and the provenance names the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lut_store.lut import METRICS, Lut
from lut_store.metric import Array, Metric
from protos.errors import BadInputError
from protos.types import Configuration, SearchSpace

NOTE = "imported: no validation; how it was measured is not recorded, and the configuration is what the importer said"
WITHOUT_ENDS = "stem and head are not included and contribute nothing to a prediction"


@dataclass(frozen=True, eq=False)
class Source:
    """A file: its name and its bytes. Only the hash of the bytes becomes part of a LUT."""

    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, eq=False)
class Column:
    """One quantity of a foreign table in seconds or joules; NaN where the table has no number.

    cells (L, K); fixed (F,): stem, then head. `kept` is what a lossless export needs again and nothing else uses.
    """

    source: Source
    cells: Array
    fixed: Array
    kept: Any = field(default_factory=list)


def lacking_ends(space: SearchSpace, fixed: Iterable[Array]) -> tuple[str, ...]:
    """Names of the operators of stem and head that one of the arrays `fixed` (F,) has no number for."""
    names = [f"stem{i}" for i in range(len(space.stem))] + [f"head{i}" for i in range(len(space.head))]
    missing = np.isnan(np.array(list(fixed))).any(axis=0)
    return tuple(name for name, lacks in zip(names, missing, strict=True) if lacks)


def ends_note(lacking: Sequence[str]) -> list[str]:
    """What a reader must hear of stem and head; nothing where none of their operators is lacking."""
    return [f"{WITHOUT_ENDS} (no number of {', '.join(lacking)})"] if lacking else []


def allowed_of(space: SearchSpace) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(L, K): True where a candidate may be chosen."""
    return np.array([[cell.spec is not None for cell in layer.cells] for layer in space.layers])


def imported(
    space: SearchSpace, configuration: Configuration, format_: str, columns: Mapping[str, Column], note: str = ""
) -> Lut:
    """The LUT of the columns "latency" and "energy" (either may be missing). Raises BadInputError when there is none.

    Stem and head are included when every column has a number for each of their operators.
    """
    if not columns:
        raise BadInputError(f"a {format_} table needs a file of latencies, of energies, or both")
    allowed = allowed_of(space)
    lacking = lacking_ends(space, [column.fixed for column in columns.values()])
    with_ends = not lacking
    notes = [NOTE, "no uncertainty", *ends_note(lacking), *([note] if note else [])]
    return Lut(
        configuration=configuration,
        space=space,
        latency=_metric(columns.get("latency"), allowed, with_ends=with_ends),
        energy=_metric(columns.get("energy"), allowed, with_ends=with_ends),
        provenance={
            "evidence": {f"{name}_sha256": column.source.sha256 for name, column in columns.items()},
            "method": {name: "imported" if name in columns else None for name in METRICS} | {"format": format_},
            "origin": {
                "format": format_,
                "files": {name: column.source.name for name, column in columns.items()},
                "not_used": {name: column.kept for name, column in columns.items()},
                "note": "; ".join(notes),
                **({"lacking": list(lacking)} if lacking else {}),
            },
        },
        fixed_included=with_ends,
    )


def _metric(column: Column | None, allowed: np.ndarray[Any, np.dtype[np.bool_]], *, with_ends: bool) -> Metric | None:
    if column is None:
        return None
    value = np.where(allowed, column.cells, np.nan)
    fixed = column.fixed if with_ends else np.full(column.fixed.shape, np.nan)
    unknown = np.full(value.shape, np.nan)
    return Metric(value, unknown, np.zeros(value.shape, np.int64), value, fixed, np.full(fixed.shape, np.nan), fixed)


def kept_of(lut: Lut, format_: str, name: str) -> Any:
    """What an import of that format kept of the metric `name` for a lossless export; None when it was another one."""
    origin: Any = lut.provenance.get("origin")
    if not isinstance(origin, Mapping) or origin.get("format") != format_:
        return None
    kept = origin.get("not_used")
    return kept.get(name) if isinstance(kept, Mapping) else None
