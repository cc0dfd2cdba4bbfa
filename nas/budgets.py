"""What architectures cost as plain arrays, and what they may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lut_store.lut import Lut, MissingCellError
from lut_store.metric import Array, BoolArray
from protos.errors import BadInputError


class InfeasibleError(BadInputError):
    """No architecture stays within the budgets."""


@dataclass(frozen=True, eq=False)
class Costs:
    """Latency (seconds) and energy (joules) of L layers × K candidates, and of what every network has besides."""

    latency_s: Array  # (L, K)
    energy_j: Array  # (L, K)
    allowed: BoolArray  # (L, K)
    fixed_latency_s: float = 0.0
    fixed_energy_j: float = 0.0

    @classmethod
    def from_lut(cls, lut: Lut) -> Costs:
        """The numbers that `Lut.predict` sums, correction included. Raises as `require_whole`."""
        require_whole(lut)
        return cls(
            np.nan_to_num(lut.latency_corrected_s),
            np.nan_to_num(lut.energy_corrected_j),
            lut.allowed,
            lut.fixed_latency_corrected_s if lut.fixed_included else 0.0,
            lut.fixed_energy_corrected_j if lut.fixed_included else 0.0,
        )

    def of(self, choices: Sequence[int]) -> tuple[float, float]:
        rows = np.arange(len(choices))
        chosen = np.asarray(choices)
        return (
            float(self.latency_s[rows, chosen].sum()) + self.fixed_latency_s,
            float(self.energy_j[rows, chosen].sum()) + self.fixed_energy_j,
        )


@dataclass(frozen=True)
class Budgets:
    """What a whole network may cost; None is no limit."""

    max_latency_s: float | None = None
    max_energy_j: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("latency", self.max_latency_s), ("energy", self.max_energy_j)):
            if value is not None and not 0 < value < float("inf"):
                raise BadInputError(f"the {name} budget is {value:g}; it must be above zero and finite")


@dataclass(frozen=True)
class Solution:
    """An architecture that no other one beats: `objective` is the least there is (sum over layers)."""

    choices: tuple[int, ...]
    latency_s: float
    energy_j: float
    objective: float


def require_whole(lut: Lut) -> None:
    """Raise BadInputError when latency or energy was not measured, MissingCellError naming the first missing cell."""
    for name, metric in (("latency", lut.latency), ("energy", lut.energy)):
        if metric is None:
            raise BadInputError(f"{lut.reference} holds no {name}, which a search needs: profile with a power meter")
        holes = np.argwhere(np.isnan(metric.corrected) & lut.allowed)
        if holes.size:
            layer, op = holes[0]
            raise MissingCellError(
                f"{lut.reference}: layer {layer}, {lut.space.op_names[op]} has no {name} ({len(holes)} cells in all); "
                "a search needs every allowed cell, so profile the device again"
            )
        fixed = np.flatnonzero(np.isnan(metric.fixed_corrected))
        if lut.fixed_included and fixed.size:
            raise MissingCellError(f"{lut.reference}: {lut.fixed_name(int(fixed[0]))} has no {name}; profile it again")
