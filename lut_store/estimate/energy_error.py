"""How uncertain the fitted powers are: covariance with the lag's share, at a scale that whole windows confirm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from lut_store.estimate.energy_fit import BISQUARE, LEAST_NOISE_W, Fit, information_of
from lut_store.estimate.energy_lag import Lag

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

PIECES = 4  # of a load at least: where it had fewer windows, they are cut into pieces
LEAST_LOADS = 10
LEAST_FREE = 0.1  # share of a residual that the fit has left free, below which it is not stretched further


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """covariance (loads, loads) of the powers; inflation: how much more windows scatter than single values say."""

    covariance_w2: Array
    variance_w2: float  # of a value, efficient robust estimate
    inflation: float  # of the variance
    degrees: float  # effective parameters of the fit


def uncertainty(fit: Fit, windows: IntArray) -> Uncertainty:
    """`windows` (loads,): how many windows each load had.

    Three parts: the covariance of a robust fit with a fitted lag; its scale from the influence function (Huber 1981);
    and an inflation from sums of influence over whole windows, pooled over all loads, with the residuals freed from
    what the fit took of them (Bell and McCaffrey 2002). The last catches what is common to the values of a window:
    noise with a memory, a lag that is not quite right, loads that differ from window to window.
    """
    solution, loads = fit.solution, len(windows)
    inverse = solution.inverse(np.eye(len(solution.coefficients)))
    degrees = float(np.sum(solution.normal.gram * inverse))
    variance = _variance(fit, degrees)
    information, answer = information_of(fit.slopes, solution, fit.weight)
    information += np.diag(variance * fit.precision)
    follows = answer[:loads] @ linalg.solve(information, answer[:loads].T, assume_a="pos")
    inflation = _inflation(fit, inverse, windows)
    covariance = variance * inflation * (inverse[:loads, :loads] + follows)
    return Uncertainty(covariance, variance, inflation, degrees)


def _variance(fit: Fit, degrees: float) -> float:
    scaled = fit.residual_w * np.sqrt(fit.even)
    u2 = np.minimum((scaled / (BISQUARE * fit.noise_w)) ** 2, 1.0)
    slope = np.mean(np.where(u2 < 1, (1 - u2) * (1 - 5 * u2), 0.0))
    squares = float(np.sum((fit.robust * scaled) ** 2)) / max(len(scaled) - degrees, 1.0)
    return max(squares * float(np.mean(fit.robust)) / max(float(slope), 0.1) ** 2, LEAST_NOISE_W**2)


def _inflation(fit: Fit, inverse: Array, windows: IntArray) -> float:
    """Variance of influence summed over windows, relative to independent values; at least 1."""
    loads = np.flatnonzero(windows)
    if len(loads) < LEAST_LOADS:
        return 1.0
    pieces = int(np.ceil(PIECES / np.median(windows[loads])))
    root = np.sqrt(fit.weight)
    design = fit.solution.normal.design.sorted_indices()
    of_windows = of_values = 0.0
    for rows in (part for window in _window_rows(fit) for part in np.array_split(window, pieces)):
        rows = rows[root[rows] > 0]
        columns, z = _dense(design, rows, root)
        hat = z @ inverse[np.ix_(columns, columns)] @ z.T
        free, axes = np.linalg.eigh(np.eye(len(rows)) - hat)
        stretched = axes @ ((axes.T @ (root[rows] * fit.residual_w[rows])) / np.sqrt(np.maximum(free, LEAST_FREE)))
        influence = z @ inverse[np.ix_(columns, loads)] * stretched[:, None]  # (rows, loads)
        of_windows += float((influence.sum(axis=0) ** 2).sum())
        of_values += float((influence**2).sum())
    return max(1.0, of_windows / of_values) if of_values > 0 else 1.0


def _dense(design: sparse.csr_matrix, rows: IntArray, scale: Array) -> tuple[IntArray, Array]:
    """The columns that these rows touch (c,), and the scaled rows in them (rows, c)."""
    spans = [slice(design.indptr[row], design.indptr[row + 1]) for row in rows]
    touched = np.concatenate([design.indices[span] for span in spans] or [np.zeros(0, np.int64)])
    columns = np.unique(touched)
    z = np.zeros((len(rows), len(columns)))
    for index, (row, span) in enumerate(zip(rows, spans, strict=True)):
        z[index, np.searchsorted(columns, design.indices[span])] = scale[row] * design.data[span]
    return columns, z


def _window_rows(fit: Fit) -> list[IntArray]:
    """The rows that mostly show the same window, for each window."""
    out = []
    lags = {meter: Lag.of(row) for meter, row in zip(fit.traces.meters, fit.parameters.lags, strict=True)}
    for index, segment in enumerate(fit.traces.segments):
        shown = np.searchsorted(segment.start_s, segment.time_s - lags[segment.meter].centre_s, side="right")
        rows = np.arange(len(shown)) + fit.traces.first_row[index]
        out += np.split(rows, np.flatnonzero(np.diff(shown)) + 1)
    return out
