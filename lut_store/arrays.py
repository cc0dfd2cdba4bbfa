"""The numbers of a whole LUT as a search wants them: nothing is missing, and what is not allowed weighs nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lut_store.lut import Lut, MissingCellError
from lut_store.metric import Array, BoolArray, Metric
from protos.errors import BadInputError


@dataclass(frozen=True, eq=False)
class LutArrays:
    """What `Lut.predict` sums: L layers × K candidates, corrected, 0 in cells that are not allowed.

    energy_j, or latency_s, is None when the LUT does not hold it and it was not asked for. fixed_* is stem and head
    together, 0 when the LUT does not include them.
    """

    latency_s: Array | None
    energy_j: Array | None
    allowed: BoolArray
    fixed_latency_s: float
    fixed_energy_j: float


def require_whole(lut: Lut, metrics: tuple[str, ...] = ("latency", "energy")) -> None:
    """Raise BadInputError when one of `metrics` was not measured, MissingCellError naming its first missing cell."""
    for name in metrics:
        metric: Metric | None = getattr(lut, name)
        if metric is None:
            raise BadInputError(f"{lut.reference} holds no {name}, which a search needs: profile with a power meter")
        holes = np.argwhere(np.isnan(metric.corrected) & lut.allowed)
        if holes.size:
            layer, op = holes[0]
            raise MissingCellError(
                f"{lut.reference}: layer {layer}, {lut.space.op_names[op]} has no {name} ({len(holes)} cells in all); "
                "a search needs every allowed cell, so profile the device again (--only-missing), or take "
                "lut.estimated()"
            )
        fixed = np.flatnonzero(np.isnan(metric.fixed_corrected))
        if lut.fixed_included and fixed.size:
            raise MissingCellError(f"{lut.reference}: {lut.fixed_name(int(fixed[0]))} has no {name}; profile it again")


def arrays(lut: Lut) -> LutArrays:
    """Raises MissingCellError naming the first missing cell of a metric that the LUT holds."""
    held = tuple(name for name in ("latency", "energy") if getattr(lut, name) is not None)
    require_whole(lut, held)
    included = lut.fixed_included
    return LutArrays(
        latency_s=np.nan_to_num(lut.latency_corrected_s) if "latency" in held else None,
        energy_j=np.nan_to_num(lut.energy_corrected_j) if "energy" in held else None,
        allowed=lut.allowed,
        fixed_latency_s=lut.fixed_latency_corrected_s if included and "latency" in held else 0.0,
        fixed_energy_j=lut.fixed_energy_corrected_j if included and "energy" in held else 0.0,
    )
