"""What architectures cost as plain arrays, and what they may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lut_store.arrays import require_whole
from lut_store.lut import Lut
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
        found = lut.arrays()
        assert found.latency_s is not None
        assert found.energy_j is not None
        return cls(found.latency_s, found.energy_j, found.allowed, found.fixed_latency_s, found.fixed_energy_j)

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
