"""A LUT as tensors: what an architecture, or a distribution over architectures, costs. Seconds and joules throughout.

Stem, head and the LUT's correction are in every number, exactly as in `Lut.predict`. An imported table that holds no
stem and head contributes its cells alone. A skip costs what the LUT says: exactly nothing in every LUT of our own,
because a chosen skip is removed from the network; a published table keeps the call overhead that its authors measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lut_store.arrays import require_whole
from lut_store.lut import Lut
from protos.errors import BadInputError
from protos.types import SearchSpace


@dataclass(frozen=True, eq=False)
class CostTable:
    """L layers × K candidates; 0 in cells that are not allowed, which no mask lets through."""

    space: SearchSpace
    latency_s: Tensor  # (L, K)
    energy_j: Tensor  # (L, K)
    fixed_latency_s: float  # stem and head, 0 when the LUT does not include them
    fixed_energy_j: float
    allowed: Tensor  # (L, K) bool

    @classmethod
    def from_lut(cls, lut: Lut, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> CostTable:
        """Raises BadInputError when latency or energy was not measured, MissingCellError naming a missing cell."""
        require_whole(lut)
        found = lut.tensors(device, dtype)
        assert found.latency_s is not None
        assert found.energy_j is not None
        return cls(
            lut.space, found.latency_s, found.energy_j, found.fixed_latency_s, found.fixed_energy_j, found.allowed
        )

    def probabilities(self, theta: Tensor) -> Tensor:
        """Softmax of θ (…, L, K) over the allowed candidates of each layer; exactly 0 for the others."""
        return theta.masked_fill(~self.allowed, -math.inf).softmax(dim=-1)

    def expected(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Latency and energy, each (…), of the mixture `weights` (…, L, K); differentiable in the weights.

        HANNA's LAT = Σ_l Σ_i m_li · LUT_li (arXiv 1906.07214), with stem and head. Weights of cells that are not
        allowed count as nothing.
        """
        latency = (weights * self.latency_s).sum(dim=(-2, -1)) + self.fixed_latency_s
        energy = (weights * self.energy_j).sum(dim=(-2, -1)) + self.fixed_energy_j
        return latency, energy

    def uniform(self) -> tuple[float, float]:
        """Expected latency and energy when every allowed candidate is equally probable: those of a search's start."""
        latency, energy = self.expected(self.probabilities(torch.zeros_like(self.latency_s)))
        return float(latency), float(energy)

    def exact(self, choices: Sequence[int]) -> tuple[float, float]:
        """Latency and energy of one architecture. Raises BadInputError naming a layer whose choice is not allowed."""
        try:
            self.space.check_choices(tuple(choices))
        except ValueError as error:
            raise BadInputError(str(error)) from None
        rows = torch.arange(len(choices), device=self.latency_s.device)
        chosen = torch.tensor(list(choices), device=self.latency_s.device)
        latency, energy = self.latency_s[rows, chosen].sum(), self.energy_j[rows, chosen].sum()
        return float(latency) + self.fixed_latency_s, float(energy) + self.fixed_energy_j
