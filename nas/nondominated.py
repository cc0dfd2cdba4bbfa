"""Partial architectures that no other one dominates, and how to read whole ones from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lut_store.metric import Array, BoolArray

IntArray = npt.NDArray[np.intp]
BLOCK = 512  # columns that are compared with each other at a time when three numbers matter


@dataclass(frozen=True, eq=False)
class Step:
    """How the survivors of one layer came about, to read an architecture backwards."""

    layer: int
    parent: IntArray  # (survivors,)
    op: IntArray  # (survivors,)


def by_width(dominance: Array) -> list[int]:
    """Layers with the fewest candidates worth choosing first: while few are alive, dominance is cheap."""
    widths = []
    for layer in range(dominance.shape[1]):
        rows = dominance[:, layer]
        widths.append(len(front(rows[:, np.isfinite(rows).all(axis=0)])))
    return sorted(range(len(widths)), key=widths.__getitem__)


def architectures(steps: Sequence[Step], last: IntArray) -> IntArray:
    """(points, L) choices of the survivors `last` of the last step."""
    choices = np.empty((len(last), len(steps)), np.intp)
    for step in reversed(steps):
        choices[:, step.layer] = step.op[last]
        last = step.parent[last]
    return choices


def front(points: Array) -> IntArray:
    """Positions of the columns of `points` (D, N) that no other one dominates; of equal ones the first."""
    if points.shape[1] <= 1:
        return np.arange(points.shape[1])
    order = np.lexsort(points[::-1])
    if len(points) == 1:
        return order[:1]
    if len(points) == 2:
        second = points[1, order]
        best = np.minimum.accumulate(second)
        keep = np.ones(len(order), bool)
        keep[1:] = second[1:] < best[:-1]
        return order[keep]
    return _front_of_three(points, order)


def _front_of_three(points: Array, order: IntArray) -> IntArray:
    """In blocks of lexical order: whatever dominates a point stands before it. Keeps `order`."""
    kept: list[IntArray] = []
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        for before in kept:
            block = block[~_dominated(points[:, block], points[:, before])]
        inside = points[1:, block]  # the first coordinate is sorted
        beaten = (inside[:, :, None] <= inside[:, None, :]).all(axis=0)  # (by, whom)
        kept.append(block[~np.triu(beaten, 1).any(axis=0)])
    return np.concatenate(kept)


def _dominated(points: Array, by: Array) -> BoolArray:
    """Which columns of `points` some column of `by`, which stands before all of them, is nowhere above."""
    return np.asarray((by[1:, :, None] <= points[1:, None, :]).all(axis=0).any(axis=0))
