"""Penalised weighted least squares with a drifting baseline whose smoothness the data choose (REML)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, sparse

Array = NDArray[np.float64]

KNOT_S = 20.0  # of the baseline: 10 and 40 s did the same
RIDGE = 1e-7  # keeps what was hardly seen solvable; against the least sample's weight it is nothing
SMOOTHNESS = (-3.0, 6.0)  # decades of the search; far beyond, rounding would eat the ridge


def baseline(times_s: Sequence[Array], ends_s: Sequence[float]) -> tuple[sparse.csr_matrix, Array]:
    """Piecewise linear functions of each trace (n, k), and the sum of squared differences of neighbouring knots (k, k).

    The latter makes the baseline a random walk, per trace.
    """
    hats, roughness = [], []
    for time_s, end_s in zip(times_s, ends_s, strict=True):
        knots = max(2, int(np.ceil(end_s / KNOT_S)) + 1)
        place = np.clip(time_s / end_s, 0.0, 1.0) * (knots - 1)
        left = np.minimum(place.astype(np.int64), knots - 2)
        rows = np.arange(len(time_s))
        data = np.concatenate([1 - (place - left), place - left])
        where = (np.concatenate([rows, rows]), np.concatenate([left, left + 1]))
        hats.append(sparse.csr_matrix((data, where), shape=(len(time_s), knots)))
        difference = np.diff(np.eye(knots), axis=0)
        roughness.append(difference.T @ difference)
    return sparse.csr_matrix(sparse.block_diag(hats)), np.asarray(linalg.block_diag(*roughness))


@dataclass(frozen=True, eq=False)
class Prior:
    """A quadratic penalty on the coefficients: precision and mean (p,), and the roughness of k from `first`."""

    precision: Array
    mean: Array
    first: int
    roughness: Array  # (k, k)
    traces: int

    def matrix(self, smoothness: float) -> Array:
        full = np.diag(self.precision)
        knots = slice(self.first, self.first + len(self.roughness))
        full[knots, knots] += smoothness * self.roughness
        return full


@dataclass(frozen=True, eq=False)
class Normal:
    """Normal equations of one design with its weights."""

    design: sparse.csr_matrix  # (n, p)
    weighted: sparse.csr_matrix  # (n, p): the design with each row times its weight
    gram: Array  # (p, p)
    right: Array  # (p,)
    total: float  # weighted square of the target

    @classmethod
    def of(cls, design: sparse.csr_matrix, weight: Array, target: Array) -> Normal:
        weighted = sparse.csr_matrix(sparse.diags_array(weight) @ design)
        gram = np.asarray((design.T @ weighted).toarray())
        return cls(design, weighted, gram, weighted.T @ target, float((weight * target) @ target))

    def solve(self, prior: Prior, smoothness: float) -> Solution:
        penalty = prior.matrix(smoothness)
        factor = linalg.cholesky(self.gram + penalty, lower=True)
        right = self.right + prior.precision * prior.mean
        coefficients = linalg.cho_solve((factor, True), right)
        loss = self.total + float(prior.precision @ prior.mean**2) - float(coefficients @ right)
        return Solution(self, factor, coefficients, loss)

    def smoothness(self, prior: Prior) -> float:
        """The smoothness with the greatest restricted likelihood."""
        n, loads = len(self.design.indptr) - 1, prior.first
        freedom = n - loads - prior.traces
        rank = len(prior.roughness) - prior.traces

        def deviance(decade: float) -> float:
            solution = self.solve(prior, 10.0**decade)
            log_determinant = 2 * float(np.log(np.diag(solution.factor)).sum())
            return freedom * math.log(max(solution.loss, 1e-300)) + log_determinant - rank * decade * math.log(10)

        found = optimize.minimize_scalar(deviance, bounds=SMOOTHNESS, method="bounded", options={"xatol": 0.1})
        return float(10.0**found.x)


@dataclass(frozen=True, eq=False)
class Solution:
    normal: Normal
    factor: Array  # (p, p) lower Cholesky factor of the penalised gram
    coefficients: Array  # (p,)
    loss: float  # weighted squared residuals with the penalty

    def residual(self, target: Array) -> Array:
        return np.asarray(target - self.normal.design @ self.coefficients)

    def inverse(self, right: Array) -> Array:
        return np.asarray(linalg.cho_solve((self.factor, True), right))
