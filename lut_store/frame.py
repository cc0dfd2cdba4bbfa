"""A LUT as a table for people and spreadsheets."""

from __future__ import annotations

from collections import Counter
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lut_store.metric import Metric
from protos.types import FIXED_LAYER, CellRef

if TYPE_CHECKING:  # lut_store.lut imports this module when it is asked for a frame
    from lut_store.lut import Lut

COLUMNS = (
    *(
        "layer",
        "op",
        "latency_s",
        "latency_lo_s",
        "latency_hi_s",
        "energy_j",
        "energy_lo_j",
        "energy_hi_j",
        "n",
        "flags",
    ),
    *("latency_corrected_s", "energy_corrected_j", "latency_se_s", "energy_se_j", "energy_n"),
    *("op_index", "operator_id", "label", "shared_with"),
    *("latency_between_sd_s", "energy_between_sd_j"),
)
LEVEL = 0.95  # of the bounds *_lo_*, *_hi_*


def _rows(lut: Lut) -> list[tuple[CellRef, str]]:
    stem, ends = len(lut.space.stem), len(lut.space.stem) + len(lut.space.head)
    fixed = (
        [(CellRef(FIXED_LAYER, index), lut.fixed_name(index)) for index in range(ends)] if lut.fixed_included else []
    )
    cells = [
        (CellRef(layer, op), lut.space.op_names[op])
        for layer in range(len(lut.space.layers))
        for op in lut.space.allowed(layer)
    ]
    return fixed[:stem] + cells + fixed[stem:]


def _pick(metric: Metric | None, name: str, cells: list[CellRef]) -> np.ndarray[Any, Any]:
    """(rows,) the numbers of `name` for each cell; without the metric, NaN, or 0 samples."""
    if metric is None:
        return np.zeros(len(cells), np.int64) if name == "n" else np.full(len(cells), np.nan)
    grid, fixed = getattr(metric, name), getattr(metric, f"fixed_{name}")
    return np.array([fixed[c.op] if c.layer == FIXED_LAYER else grid[c.layer, c.op] for c in cells])


def _between_rel_sd(lut: Lut, metric: str) -> float:
    """Relative standard deviation of boards of the type around an entry; NaN for a LUT of one board."""
    boards = lut.provenance.get("boards")
    spread = boards.get(metric) if isinstance(boards, dict) else None
    value = spread.get("between_rel_sd") if isinstance(spread, dict) else None
    return float(value) if isinstance(value, (int, float)) else float("nan")


def frame(lut: Lut) -> pd.DataFrame:
    """One row for every allowed cell in the order of the space, the stem's operators before and the head's after them.

    Those have layer -1 and are called stem0, head0, …; they are left out when the LUT does not include them.
    latency_s and energy_j are as measured, with 95 % bounds from their standard errors; the corrected columns are
    what predict() sums. The last two columns say how far boards of the type are apart, NaN for a LUT of one board.
    """
    rows = _rows(lut)
    cells = [cell for cell, _ in rows]
    specs = [lut.space.spec(cell.layer, cell.op) for cell in cells]
    shared = Counter(specs)
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    latency, energy = (
        {name: _pick(m, name, cells) for name in ("value", "se", "n", "corrected")} for m in (lut.latency, lut.energy)
    )
    columns: dict[str, Any] = {
        "layer": [cell.layer for cell in cells],
        "op": [name for _, name in rows],
        "latency_s": latency["value"],
        "latency_lo_s": latency["value"] - z * latency["se"],
        "latency_hi_s": latency["value"] + z * latency["se"],
        "energy_j": energy["value"],
        "energy_lo_j": energy["value"] - z * energy["se"],
        "energy_hi_j": energy["value"] + z * energy["se"],
        "n": latency["n"] if lut.latency is not None else energy["n"],
        "flags": [";".join(lut.flags.get(cell, ())) for cell in cells],
        "latency_corrected_s": latency["corrected"],
        "energy_corrected_j": energy["corrected"],
        "latency_se_s": latency["se"],
        "energy_se_j": energy["se"],
        "energy_n": energy["n"],
        "op_index": [cell.op for cell in cells],
        "operator_id": [spec.operator_id if spec else "" for spec in specs],
        "label": [spec.label() if spec else "" for spec in specs],
        "shared_with": [shared[spec] - 1 for spec in specs],
        "latency_between_sd_s": latency["value"] * _between_rel_sd(lut, "latency"),
        "energy_between_sd_j": energy["value"] * _between_rel_sd(lut, "energy"),
    }
    return pd.DataFrame({name: columns[name] for name in COLUMNS})
