"""Sums over look-up tables for very many architectures at once, laid out for one core's caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lut_store.metric import Array, BoolArray, Metric
from protos.types import BlockSpec, SearchSpace

Choices = npt.NDArray[np.integer[Any]]  # (N, L)

# Rows that are handled at a time: their indices and sums (0.5 MB) stay in a core's second-level cache.
CHUNK_ROWS = 8192
# Neighbouring layers are summed in advance while their joint table has at most this many rows (16 bytes each), so
# that all the joint tables of a usual space (9 candidates: three layers, 729 rows) stay in the second-level cache
# too.
GROUP_ROWS = 1024


class UnusableChoiceError(Exception):
    """A choice that is out of range, not allowed or without a number; the caller knows which, and says it."""

    def __init__(self, row: int, layer: int) -> None:
        super().__init__(row, layer)
        self.row, self.layer = row, layer


@dataclass(frozen=True, eq=False)
class SumTable:
    """Latency and energy of every cell as one complex number, so that one gather and one addition serve both.

    A candidate that cannot be summed is NaN in either part.
    """

    groups: tuple[tuple[int, ...], ...]  # layers that are looked up together
    tables: tuple[npt.NDArray[np.complex128], ...]  # for each group, (K ** layers,)
    constant: complex
    usable: BoolArray  # (L, K)

    @classmethod
    def of(cls, latency: Array, energy: Array, constant: complex) -> SumTable:
        """latency, energy: (L, K), NaN where a candidate cannot be summed; constant: latency + 1j * energy of the
        rest.
        """
        both = np.empty(latency.shape, np.complex128)  # (L, K)
        both.real, both.imag = latency, energy
        layers, ops = latency.shape
        size = 1
        while ops > 1 and size < layers and ops ** (size + 1) <= GROUP_ROWS:
            size += 1
        groups = tuple(tuple(range(first, min(first + size, layers))) for first in range(0, layers, size))
        tables = []
        for group in groups:
            joint = np.zeros(1, np.complex128)
            for layer in group:
                joint = (joint[:, None] + both[layer]).ravel()
            tables.append(joint)
        return cls(groups, tuple(tables), constant, ~np.isnan(both))

    def sums(self, choices: Choices) -> Array:
        """(N, 2): latency, energy for `choices` (N, L). Raises UnusableChoiceError for the first that cannot be
        summed.
        """
        layers, ops = self.usable.shape
        # A negative number is a very large unsigned one: one comparison finds both ends.
        unsigned = choices.view(np.dtype(f"u{choices.dtype.itemsize}"))
        out = np.full(len(choices), self.constant, np.complex128)
        by_layer = np.empty((layers, CHUNK_ROWS), np.int16)  # GROUP_ROWS fits
        index = np.empty(CHUNK_ROWS, np.intp)
        found = np.empty(CHUNK_ROWS, np.complex128)
        for start in range(0, len(choices), CHUNK_ROWS):
            part = choices[start : start + CHUNK_ROWS]
            if unsigned[start : start + CHUNK_ROWS].max() >= ops:
                raise self._first_unusable(part, start)
            rows = len(part)
            by_layer[:, :rows] = part.astype(np.int16).T  # narrow first: the transpose is what costs
            total = out[start : start + rows]
            for group, table in zip(self.groups, self.tables, strict=True):
                joint = by_layer[group[0], :rows]
                for layer in group[1:]:
                    joint *= ops
                    joint += by_layer[layer, :rows]
                index[:rows] = joint
                # mode="clip" spares numpy a second buffer; nothing is out of range here.
                table.take(index[:rows], out=found[:rows], mode="clip")
                total += found[:rows]
            if np.isnan(total).any():
                raise self._first_unusable(part, start)
        return out.view(np.float64).reshape(-1, 2)

    def _first_unusable(self, part: Choices, start: int) -> UnusableChoiceError:
        layers, ops = self.usable.shape
        inside = (part >= 0) & (part < ops)
        good = inside & self.usable[np.arange(layers), np.where(inside, part, 0)]
        row, layer = np.argwhere(~good)[0]
        return UnusableChoiceError(start + int(row), int(layer))


@dataclass(frozen=True, eq=False)
class IntervalTable:
    """What the uncertainty of sums of one metric needs.

    Cells that are the same operator share one estimate, so that their errors are one error: an operator that stands
    in a network k times adds (k · se)², not k · se².
    """

    se: Array  # (L, K), in corrected units
    operator: npt.NDArray[np.intp]  # (L, K) which operator a cell is
    fixed: Array  # (operators,) k · se of stem and head
    relative: float  # of the sum: common error of the correction and spread of networks

    @classmethod
    def of(cls, space: SearchSpace, metric: Metric, *, fixed_included: bool) -> IntervalTable:
        place: dict[BlockSpec, int] = {}
        operator = np.zeros(space.shape, np.intp)
        for layer, row in enumerate(space.layers):
            for op, cell in enumerate(row.cells):
                if cell.spec is not None:
                    operator[layer, op] = place.setdefault(cell.spec, len(place))
        ends = space.stem + space.head if fixed_included else ()
        for spec in ends:
            place.setdefault(spec, len(place))
        fixed = np.zeros(len(place))
        for index, spec in enumerate(ends):
            fixed[place[spec]] += metric.fixed_se[index] * metric.se_scale
        relative = float(np.hypot(metric.factor_rel_se, metric.residual_rel_sd))
        return cls(metric.se * metric.se_scale, operator, fixed, relative)

    def standard_errors(self, choices: Choices, sums: Array) -> Array:
        """(N,) for `choices` (N, L) that can be summed, and their sums (N,); NaN where something is not known."""
        layers = len(self.se)
        out = np.empty(len(choices))
        for start in range(0, len(choices), CHUNK_ROWS):
            part = choices[start : start + CHUNK_ROWS]
            rows = np.arange(len(part))
            errors = np.tile(self.fixed, (len(part), 1))  # (rows, operators)
            for layer in range(layers):
                errors[rows, self.operator[layer, part[:, layer]]] += self.se[layer, part[:, layer]]
            out[start : start + len(part)] = np.einsum("ij,ij->i", errors, errors)
        return np.asarray(np.sqrt(out + (self.relative * sums) ** 2), np.float64)
