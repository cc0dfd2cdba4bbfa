"""A LUT as a list of entries: one for every cell with a block, then stem and head, with all numbers as columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lut_store.lut import Lut
from lut_store.metric import Array, Metric
from protos.types import FIXED_LAYER, SKIP, BlockSpec, CellRef, SearchSpace


@dataclass(frozen=True, eq=False)
class Entries:
    """N entries. Skips and cells that are not allowed have none."""

    cells: tuple[CellRef, ...]
    specs: tuple[BlockSpec, ...]
    _layer: npt.NDArray[np.intp] = field(repr=False)  # (C,) of those that are in layers, which come first
    _op: npt.NDArray[np.intp] = field(repr=False)  # (C,)

    @classmethod
    def of(cls, space: SearchSpace) -> Entries:
        found = [
            (CellRef(layer, op), cell.spec)
            for layer, row in enumerate(space.layers)
            for op, cell in enumerate(row.cells)
            if cell.spec is not None and cell.spec.kind != SKIP
        ]
        ends = [(CellRef(FIXED_LAYER, index), spec) for index, spec in enumerate(space.stem + space.head)]
        return cls(
            tuple(cell for cell, _ in (*found, *ends)),
            tuple(spec for _, spec in (*found, *ends)),
            np.array([cell.layer for cell, _ in found], np.intp),
            np.array([cell.op for cell, _ in found], np.intp),
        )

    def pick(self, metric: Metric, name: str) -> Array:
        """(N,) of "value", "se", "n" or "corrected"."""
        grid, fixed = getattr(metric, name), getattr(metric, f"fixed_{name}")
        return np.concatenate([grid[self._layer, self._op], fixed]).astype(np.float64)

    def operators(self) -> dict[BlockSpec, npt.NDArray[np.intp]]:
        """The entries of each distinct operator, by their positions."""
        places: dict[BlockSpec, list[int]] = {}
        for index, spec in enumerate(self.specs):
            places.setdefault(spec, []).append(index)
        return {spec: np.array(own, np.intp) for spec, own in places.items()}

    def within_layers(self) -> Iterator[tuple[int, list[int]]]:
        """Each layer with the positions of its entries."""
        layers: dict[int, list[int]] = {}
        for index, cell in enumerate(self.cells):
            if cell.layer != FIXED_LAYER:
                layers.setdefault(cell.layer, []).append(index)
        yield from layers.items()


def name_of(lut: Lut, cell: CellRef) -> str:
    """``layer 7, k3_e6`` or ``head0``."""
    if cell.layer == FIXED_LAYER:
        return lut.fixed_name(cell.op)
    return f"layer {cell.layer}, {lut.space.op_names[cell.op]}"
