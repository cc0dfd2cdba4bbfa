"""One measured quantity of a LUT, latency or energy: its numbers for every cell and how well they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from lut_store.plain import plain_mapping
from protos.types import FIXED_LAYER, SKIP, PlanItem, SearchSpace

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def frozen_floats(name: str, values: npt.ArrayLike) -> Array:
    """A read-only float64 copy. Raises ValueError when a value is infinite; NaN means "not known" and stays."""
    array = np.array(values, dtype=np.float64)
    if np.isinf(array).any():
        raise ValueError(f"{name} holds an infinite value; a number that is not known must be NaN")
    array.flags.writeable = False
    return array


def frozen_counts(name: str, values: npt.ArrayLike) -> IntArray:
    """A read-only int64 copy. Raises ValueError when a value is negative or not whole."""
    given = np.asarray(values)
    array = np.array(given, dtype=np.int64)
    if not np.array_equal(given, array) or (array < 0).any():
        raise ValueError(f"{name} must hold whole numbers that are not negative")
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Metric:
    """Latency in seconds or energy in joules of L layers × K candidates and F fixed (stem, then head) operators.

    NaN in `value` and `corrected` where a candidate is not allowed or was not measured. A standard error of NaN is
    unknown, which is not zero: intervals that need it are NaN too. The arrays are read-only copies.

    `correction` is JSON-able and says how `corrected` came from `value`, e.g. ``{"method": "factor", "factor":
    1.003}``; its "factor", where there is one, also scales the standard errors (d corrected / d value).
    """

    value: Array  # (L, K) as measured, uncorrected
    se: Array  # (L, K) standard error
    n: IntArray  # (L, K) independent samples behind the value
    corrected: Array  # (L, K) what predict() sums; equals value without a correction
    fixed_value: Array  # (F,)
    fixed_se: Array  # (F,)
    fixed_corrected: Array  # (F,)
    correction: Mapping[str, Any] = field(default_factory=dict)
    factor_rel_se: float = float("nan")  # common relative standard error of a prediction
    residual_rel_sd: float = float("nan")  # spread of networks around the corrected sum, relative
    fixed_n: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))  # (F,) samples; left out: 0, not known

    def __post_init__(self) -> None:
        for name in ("value", "se", "corrected", "fixed_value", "fixed_se", "fixed_corrected"):
            object.__setattr__(self, name, frozen_floats(name, getattr(self, name)))
        object.__setattr__(self, "n", frozen_counts("n", self.n))
        counts = self.fixed_n if np.size(self.fixed_n) else np.zeros(self.fixed_value.shape, np.int64)
        object.__setattr__(self, "fixed_n", frozen_counts("fixed_n", counts))
        if self.value.ndim != 2 or self.fixed_value.ndim != 1:
            raise ValueError(f"value must be (layers, candidates) and fixed_value flat, not {self.value.shape}")
        for name, like in (("se", "value"), ("n", "value"), ("corrected", "value")):
            self._same_shape(name, like)
        for name in ("fixed_se", "fixed_corrected", "fixed_n"):
            self._same_shape(name, "fixed_value")
        for name in ("se", "fixed_se"):
            if (getattr(self, name) < 0).any():
                raise ValueError(f"{name} holds a negative standard error")
        for name, like in (("corrected", "value"), ("fixed_corrected", "fixed_value")):
            if not np.array_equal(np.isnan(getattr(self, name)), np.isnan(getattr(self, like))):
                raise ValueError(f"{name} and {like} must be NaN in the same places")
        for name in ("factor_rel_se", "residual_rel_sd"):
            number = float(getattr(self, name))
            if number < 0 or number == float("inf"):
                raise ValueError(f"{name} is {number}; it must be finite and not negative, or NaN when unknown")
            object.__setattr__(self, name, number)
        object.__setattr__(self, "correction", plain_mapping("correction", self.correction))

    def _same_shape(self, name: str, like: str) -> None:
        shape, wanted = getattr(self, name).shape, getattr(self, like).shape
        if shape != wanted:
            raise ValueError(f"{name} has the shape {shape}, {like} has {wanted}; they must be the same")

    def __reduce__(self) -> tuple[Any, ...]:
        return Metric, tuple(getattr(self, item.name) for item in fields(self))

    @property
    def se_scale(self) -> float:
        """d corrected / d value: the correction's factor, 1 without one."""
        factor = self.correction.get("factor")
        return abs(float(factor)) if isinstance(factor, (int, float)) and not isinstance(factor, bool) else 1.0

    @classmethod
    def from_items(
        cls,
        space: SearchSpace,
        items: Sequence[PlanItem],
        value: npt.ArrayLike,
        se: npt.ArrayLike,
        n: npt.ArrayLike,
        corrected: npt.ArrayLike | None = None,
        *,
        correction: Mapping[str, Any] | None = None,
        factor_rel_se: float = float("nan"),
        residual_rel_sd: float = float("nan"),
    ) -> Metric:
        """Spread one number per operator, arrays (items,), over the cells that the operators stand for.

        A removed skip costs nothing by definition: every allowed skip cell is exactly 0 with standard error 0,
        whether or not an item names it. Cells of no item are NaN.
        """
        layers, ops = space.shape
        columns = {
            "value": np.asarray(value, np.float64),
            "se": np.asarray(se, np.float64),
            "corrected": np.asarray(value if corrected is None else corrected, np.float64),
            "n": np.asarray(n, np.float64),
        }
        # The last row takes what belongs to no layer, so that layer -1 addresses it, as in CellRef.
        fixed = len(space.stem) + len(space.head)
        grid = {name: np.full((layers + 1, max(ops, fixed)), 0.0 if name == "n" else np.nan) for name in columns}
        for index, item in enumerate(items):
            for cell in item.cells:
                for name, column in columns.items():
                    grid[name][cell.layer, cell.op] = column[index]
        skips = [
            (layer, op)
            for layer in range(layers)
            for op, cell in enumerate(space.layers[layer].cells)
            if cell.spec is not None and cell.spec.kind == SKIP
        ]
        for array in grid.values():
            for place in skips:
                array[place] = 0.0
        cells = {name: array[:layers, :ops] for name, array in grid.items()}
        ends = {f"fixed_{name}": array[FIXED_LAYER, :fixed] for name, array in grid.items()}
        return cls(
            **cells,
            **ends,
            correction=correction or {},
            factor_rel_se=factor_rel_se,
            residual_rel_sd=residual_rel_sd,
        )
