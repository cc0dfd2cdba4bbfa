"""A LUT as torch tensors; the only module of the store that imports torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lut_store.arrays import arrays
from lut_store.lut import Lut
from lut_store.metric import Array


@dataclass(frozen=True, eq=False)
class LutTensors:
    """`lut_store.arrays.LutArrays` on a device: L layers × K candidates, 0 in cells that are not allowed."""

    latency_s: Tensor | None  # (L, K)
    energy_j: Tensor | None  # (L, K)
    allowed: Tensor  # (L, K) bool
    fixed_latency_s: float
    fixed_energy_j: float


def tensors(lut: Lut, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> LutTensors:
    """Raises MissingCellError naming the first missing cell of a metric that the LUT holds."""
    found = arrays(lut)

    def moved(array: Array | None) -> Tensor | None:
        return None if array is None else torch.tensor(array, dtype=dtype, device=device)

    return LutTensors(
        latency_s=moved(found.latency_s),
        energy_j=moved(found.energy_j),
        allowed=torch.tensor(np.asarray(found.allowed), device=device),
        fixed_latency_s=found.fixed_latency_s,
        fixed_energy_j=found.fixed_energy_j,
    )
