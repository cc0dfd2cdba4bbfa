"""Power per operator and network from one least-squares fit of the whole trace.

The meter shows a delayed, smeared version of the true power. Every load (item, network, set-up gap) is one unknown
step height above a slowly drifting baseline; the smear is a moving average followed by a first-order lag, its width,
time constant and delay being fitted to the trace with everything else (variable projection). Robust weights keep
bursts of other work out (docs/decisions/0004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, sparse

from protos.types import PowerTrace, RunSpec

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

KNOT_S = 20.0  # between the knots of the baseline
SMOOTHNESS = tuple(10.0**e for e in np.arange(-1.0, 4.1, 0.5))  # of the baseline, chosen by REML
HUBER = 2.0  # robust standard deviations
REWEIGHTINGS = 4
MEMORY = 9.0  # time constants after which a step has settled
# lag_s, average_s, delay_s from which the fit begins.
STARTS = ((0.01, 0.005, 0.01), (0.1, 0.05, 0.05), (0.3, 0.15, 0.2), (0.6, 0.3, 0.3), (0.1, 0.05, 0.5))
LAG_STEPS = 8
LEAST_WEIGHT = 0.5  # a sample counts for a subject that makes up at least half of it
LIMITS_S = ((0.002, 3.0), (0.001, 2.0), (-0.3, 2.0))  # lag, width of the average, delay


@dataclass(frozen=True)
class PowerEstimate:
    """I items and M networks, in the order of the run; NaN where nothing was seen.

    *_power_w: above idle; *_se_w: its standard error; *_samples: fresh samples taken mostly under that load;
    *_windows and *_active_s: how often and how long it ran; *_current_a: current above idle, for the HANNA form V ×
    (I_dynamic - I_idle) × t.
    """

    item_power_w: Array
    item_se_w: Array
    item_samples: IntArray
    item_windows: IntArray
    item_active_s: Array
    item_current_a: Array
    network_power_w: Array
    network_se_w: Array
    network_samples: IntArray
    idle_power_w: float
    idle_current_a: float
    voltage_v: float
    lag_s: float
    average_s: float
    delay_s: float
    noise_w: float
    samples: int

    def document(self) -> dict[str, float | int]:
        """What the provenance of a LUT keeps."""
        names = ("idle_power_w", "idle_current_a", "voltage_v", "lag_s", "average_s", "delay_s", "noise_w", "samples")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class _Segment:
    """One unbroken trace: loads as (start, end, column) and fresh samples, in seconds from its beginning."""

    start_s: Array
    end_s: Array
    column: IntArray
    t_s: Array
    voltage_v: Array
    current_a: Array


def estimate_power(spec: RunSpec, segments: Sequence[Sequence[PowerTrace]]) -> PowerEstimate:
    """Fit all segments together: a power per item and network, a baseline per segment, one lag for the meter."""
    items, networks = len(spec.items), len(spec.networks)
    parts = [s for s in (_segment(chunks, items, networks) for chunks in segments) if len(s.t_s) > 1]
    columns = items + networks + 1
    if not parts:
        return _nothing(items, networks)
    fit = _Fit(parts, columns)
    lag = fit.lag()
    power, covariance, _ = fit.solve(lag, fit.power_w)
    current, _, _ = fit.solve(lag, fit.current_a)
    design = fit.loads(lag)
    share = np.asarray((design > LEAST_WEIGHT).sum(axis=0)).ravel()
    windows = np.zeros(columns, np.int64)
    active = np.zeros(columns)
    for part in parts:
        np.add.at(windows, part.column, 1)
        np.add.at(active, part.column, part.end_s - part.start_s)
    seen = (share[: items + networks] > 0) & (windows[: items + networks] > 0)
    power_w = np.where(seen, power[: items + networks], np.nan)
    se_w = np.where(seen, np.sqrt(np.diag(covariance)[: items + networks]), np.nan)
    residual = fit.power_w - design @ power[:columns] - fit.baseline @ power[columns:]
    return PowerEstimate(
        item_power_w=power_w[:items],
        item_se_w=se_w[:items],
        item_samples=share[:items].astype(np.int64),
        item_windows=windows[:items],
        item_active_s=active[:items],
        item_current_a=np.where(seen, current[: items + networks], np.nan)[:items],
        network_power_w=power_w[items:],
        network_se_w=se_w[items:],
        network_samples=share[items : items + networks].astype(np.int64),
        idle_power_w=float(np.mean(power[columns:])),
        idle_current_a=float(np.mean(current[columns:])),
        voltage_v=float(np.median(fit.voltage_v)),
        lag_s=float(lag[0]),
        average_s=float(lag[1]),
        delay_s=float(lag[2]),
        noise_w=float(1.4826 * np.median(np.abs(residual))),
        samples=len(fit.power_w),
    )


def _segment(chunks: Sequence[PowerTrace], items: int, networks: int) -> _Segment:
    windows = sorted((w for chunk in chunks for w in chunk.windows), key=lambda w: w.started_ns)
    zero_ns = windows[0].started_ns if windows else 0
    column = {"item": 0, "network": items, "gap": items + networks}
    loads = [w for w in windows if w.subject != "idle"]
    t_ns = np.array([t for chunk in chunks for t in chunk.samples.t_ns], np.int64)
    fresh = np.array([f for chunk in chunks for f in chunk.samples.fresh], bool)
    voltage = np.array([v for chunk in chunks for v in chunk.samples.voltage_v])
    current = np.array([i for chunk in chunks for i in chunk.samples.current_a])
    keep = fresh & (t_ns >= zero_ns) if len(t_ns) else np.zeros(0, bool)
    return _Segment(
        start_s=np.array([w.started_ns - zero_ns for w in loads]) * 1e-9,
        end_s=np.array([w.ended_ns - zero_ns for w in loads]) * 1e-9,
        column=np.array([column[w.subject] + (w.index if w.subject != "gap" else 0) for w in loads], np.int64),
        t_s=np.asarray((t_ns[keep] - zero_ns) * 1e-9, np.float64),
        voltage_v=voltage[keep],
        current_a=current[keep],
    )


class _Fit:
    """Rows are fresh samples of all segments; columns are loads, then the knots of each segment's baseline."""

    def __init__(self, parts: Sequence[_Segment], columns: int) -> None:
        self._parts, self._columns = parts, columns
        self.voltage_v = np.concatenate([p.voltage_v for p in parts])
        self.current_a = np.concatenate([p.current_a for p in parts])
        self.power_w = self.voltage_v * self.current_a
        hats, penalties = zip(*(_baseline(p.t_s) for p in parts), strict=True)
        self.baseline = sparse.block_diag(hats, format="csr")
        self._roughness = linalg.block_diag(*penalties)
        self._smoothness = 30.0

    def loads(self, lag: Array) -> sparse.csr_matrix:
        """(rows, columns): how much of each load each sample shows."""
        blocks = [_shown(p, self._columns, *lag) for p in self._parts]
        return sparse.csr_matrix(sparse.vstack(blocks))

    def lag(self) -> Array:
        """lag_s, average_s, delay_s of the best fit: least squares with everything else solved for (variable
        projection).
        """
        weight = np.ones(len(self.power_w))

        def residual(parameters: Array) -> Array:
            design = self._design(_lag_of(parameters))
            gram, right = self._normal(design, self.power_w, weight)
            left = self.power_w - design @ linalg.solve(gram, right, assume_a="pos")
            return np.asarray(np.sqrt(weight) * left, np.float64)

        lows, highs = np.array(LIMITS_S).T
        bounds = (_parameters_of(lows), _parameters_of(highs))
        best = min((_parameters_of(np.array(start)) for start in STARTS), key=lambda p: float((residual(p) ** 2).sum()))
        for _ in range(2):
            found = optimize.least_squares(residual, best, bounds=bounds, diff_step=0.01, max_nfev=LAG_STEPS)
            best = np.asarray(found.x, np.float64)
            _, _, weight = self.solve(_lag_of(best), self.power_w)
        return _lag_of(best)

    def _design(self, lag: Array) -> sparse.csr_matrix:
        return sparse.csr_matrix(sparse.hstack([self.loads(lag), self.baseline]))

    def _normal(self, design: sparse.csr_matrix, target: Array, weight: Array) -> tuple[Array, Array]:
        weighted = sparse.csr_matrix(design.multiply(weight[:, None]))
        gram = np.asarray((design.T @ weighted).todense(), np.float64)
        n = self._columns
        gram[np.arange(n), np.arange(n)] += 1e-7
        gram[n:, n:] += self._smoothness * self._roughness
        return gram, np.asarray(weighted.T @ target, np.float64)

    def solve(self, lag: Array, target: Array) -> tuple[Array, Array, Array]:
        """Coefficients, their covariance, and the Huber weights of the samples."""
        design, weight = self._design(lag), np.ones(len(target))
        for _ in range(REWEIGHTINGS):
            self._choose_smoothness(design, target, weight)
            gram, right = self._normal(design, target, weight)
            solution = np.asarray(linalg.solve(gram, right, assume_a="pos"), np.float64)
            residual = target - design @ solution
            used = weight
            scale = 1.4826 * float(np.median(np.abs(residual))) + 1e-12
            weight = np.asarray(1 / np.maximum(1, np.abs(residual) / (HUBER * scale)), np.float64)
        freedom = max(1.0, used.sum() - self._columns)
        variance = float((used * residual**2).sum() / freedom)
        return solution, np.asarray(variance * linalg.inv(gram), np.float64), weight

    def _choose_smoothness(self, design: sparse.csr_matrix, target: Array, weight: Array) -> None:
        """The smoothness of the baseline with the greatest restricted likelihood."""
        n, rank = self._columns, self._roughness.shape[0] - len(self._parts)
        self._smoothness = 0.0
        plain, right = self._normal(design, target, weight)
        freedom, best, chosen = len(target) - n - len(self._parts), -np.inf, SMOOTHNESS[0]
        for value in SMOOTHNESS:
            gram = plain + 1e-9 * np.eye(len(plain))
            gram[n:, n:] += value * self._roughness
            factor = linalg.cholesky(gram, lower=True)
            half = linalg.solve_triangular(factor, right, lower=True)
            rss = float((weight * target**2).sum() - half @ half)
            likelihood = -0.5 * (freedom * np.log(rss) + 2 * np.log(np.diag(factor)).sum() - rank * np.log(value))
            if likelihood > best:
                best, chosen = likelihood, value
        self._smoothness = chosen


def _lag_of(parameters: Array) -> Array:
    """lag_s and average_s are positive, so that they are searched as logarithms."""
    return np.array([np.exp(parameters[0]), np.exp(parameters[1]), parameters[2]])


def _parameters_of(lag: Array) -> Array:
    return np.array([np.log(lag[0]), np.log(lag[1]), lag[2]])


def _baseline(t_s: Array) -> tuple[sparse.csr_matrix, Array]:
    """(samples, knots) hat functions and (knots, knots) roughness of a piecewise linear baseline."""
    knots = max(2, int(np.ceil((t_s[-1] - t_s[0]) / KNOT_S)) + 1)
    step = (t_s[-1] - t_s[0]) / (knots - 1)
    left = np.minimum(((t_s - t_s[0]) / step).astype(int), knots - 2)
    share = (t_s - t_s[0]) / step - left
    rows = np.arange(len(t_s))
    values = (np.concatenate([1 - share, share]), (np.concatenate([rows, rows]), np.concatenate([left, left + 1])))
    difference = np.diff(np.eye(knots), axis=0)
    return sparse.csr_matrix(values, shape=(len(t_s), knots)), difference.T @ difference


def _shown(part: _Segment, columns: int, lag_s: float, average_s: float, delay_s: float) -> sparse.csr_matrix:
    rows, cols, values = [], [], []
    u = part.t_s - delay_s
    for start, end, column in zip(part.start_s, part.end_s, part.column, strict=True):
        low = int(np.searchsorted(u, start))
        high = int(np.searchsorted(u, end + average_s + MEMORY * lag_s))
        if high > low:
            shown = _step(u[low:high] - start, lag_s, average_s) - _step(u[low:high] - end, lag_s, average_s)
            rows.append(np.arange(low, high))
            cols.append(np.full(high - low, column))
            values.append(shown)
    if not rows:
        return sparse.csr_matrix((len(u), columns))
    where = (np.concatenate(rows), np.concatenate(cols))
    return sparse.csr_matrix((np.concatenate(values), where), shape=(len(u), columns))


def _step(u: Array, lag_s: float, average_s: float) -> Array:
    """What the meter shows of a unit step u seconds after it: a moving average, then a first-order lag."""

    def ramp(v: Array) -> Array:
        positive = np.maximum(v, 0)
        return positive + lag_s * np.expm1(-positive / lag_s)

    width = max(average_s, 1e-3)
    return (ramp(u) - ramp(u - width)) / width


def _nothing(items: int, networks: int) -> PowerEstimate:
    def unknown(n: int) -> Array:
        return np.full(n, np.nan)

    none = np.zeros(items, np.int64)
    nan = float("nan")
    return PowerEstimate(
        unknown(items), unknown(items), none, none, np.zeros(items), unknown(items), unknown(networks),
        unknown(networks), np.zeros(networks, np.int64), nan, nan, nan, nan, nan, nan, nan, 0,
    )  # fmt: skip
