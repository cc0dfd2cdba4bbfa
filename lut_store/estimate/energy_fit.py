"""The fit of all traces of a run: powers, baselines, the meters' lags and robust weights together.

Levenberg-Marquardt over the lag's parameters, with powers and baselines solved exactly in every step (variable
projection); the parameters' columns then stand beside the others, so that the covariance knows that the lag was
fitted too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from lut_store.estimate.energy_lag import HIGHEST, LOWEST, PARAMETERS, SHAPE, Lag, Steps, column_numbers, steps_of
from lut_store.estimate.energy_linear import RIDGE, Normal, Prior, Solution, baseline
from lut_store.estimate.energy_trace import Segment

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

START_SPREADS_S = (0.02, 0.06, 0.15, 0.4, 1.0)
START_DELAYS = (0.5, 1.0, 1.5, 2.0, 3.0)  # mean delay in spreads
START_ROWS = 4000  # of a meter, from which its start is chosen
START_SMOOTHNESS = 30.0
# Prior standard deviations of a lag's parameters. Only the kind is ever decided by them.
WIDE_SD = np.array([1.0, 1.0, 0.5])
USUAL_POLE_SHARE = 0.7
BUMP_SD = 0.1  # of the correction of the step response: 0.05 and 0.2 did the same
LARGEST_STEP = 0.5
DAMPING = (0.0, 0.1, 1.0, 10.0, 100.0)
REFINEMENTS = 12
STANDSTILL = 0.01  # of the noise's variance: parameters then stand within a tenth of their error
HUBER = 1.5  # robust standard deviations: first weights
BISQUARE = 6.0  # the final ones: what is beyond, bursts of other work, counts nothing at all
ROUNDS = 5
MAD = 1.4826
IDLE_SHARE = 0.5  # a row that shows less load than this is idle: a busy board may be noisier than the meter
UNLIKE = 30.0  # times as noisy at most
LEAST_NOISE_W = 1e-6
RIGID = 1e-9  # of the largest information: above rounding, so that what the data say nothing of stays where it is
# A chip that is warm from the last seconds leaks more: some 3 K/W and 4 mW/K, within some ten seconds. Idle windows are
# then too high and loads too low; the slow rest of the warmth is part of the baseline.
WARMTH_S = 10.0
WARMTH, WARMTH_SD = 0.005, 0.01  # of the load's power: 3 K/W and 4 mW/K are 0.012, a board that does not leak 0


@dataclass(frozen=True, eq=False)
class Traces:
    """All segments on top of one another: n rows; loads (items, networks), gap and unknown windows: q columns."""

    segments: tuple[Segment, ...]
    loads: int

    @cached_property
    def columns(self) -> tuple[list[IntArray], int]:
        return column_numbers(self.segments, self.loads)

    @cached_property
    def first_row(self) -> IntArray:
        return np.concatenate([[0], np.cumsum([len(s.time_s) for s in self.segments])])

    @cached_property
    def meters(self) -> list[str]:
        return sorted({s.meter for s in self.segments})

    @cached_property
    def baseline(self) -> tuple[sparse.csr_matrix, Array]:
        return baseline([s.time_s for s in self.segments], [s.end_s for s in self.segments])

    @cached_property
    def power_w(self) -> Array:
        return np.concatenate([s.power_w for s in self.segments])

    @cached_property
    def weight(self) -> Array:
        """(n,) how many values are behind each row, relative to the usual."""
        count = np.concatenate([s.count for s in self.segments])
        relative: Array = count / np.median(count)
        return relative

    @property
    def rows(self) -> int:
        return int(self.first_row[-1])

    def parts(self, values: Array) -> list[Array]:
        return np.split(values, self.first_row[1:-1])

    def of_meter(self, meter: str, rows: int) -> Traces:
        """The first segments of one meter, until they hold so many rows."""
        chosen: list[Segment] = []
        for segment in (s for s in self.segments if s.meter == meter):
            if sum(len(s.time_s) for s in chosen) < rows:
                chosen.append(segment)
        return Traces(tuple(chosen), self.loads)


@dataclass(frozen=True, eq=False)
class Parameters:
    """Everything that is not linear: one lag per meter, and a delay of its own for each segment."""

    lags: Array  # (meters, PARAMETERS)
    late_s: Array  # (segments,)

    @property
    def flat(self) -> Array:
        return np.concatenate([self.lags.ravel(), self.late_s])

    def moved(self, step: Array) -> Parameters:
        lags = self.lags + step[: self.lags.size].reshape(self.lags.shape)
        lags[:, :SHAPE] = np.clip(lags[:, :SHAPE], LOWEST, HIGHEST)
        causal = [Lag.of(row).causal().parameters for row in lags]
        return Parameters(np.array(causal), self.late_s + step[self.lags.size :])


@dataclass(frozen=True, eq=False)
class Fit:
    """The result. `slopes` (n, parameters) are the nonlinear columns, `precision` their prior's."""

    traces: Traces
    parameters: Parameters
    solution: Solution
    prior: Prior
    smoothness: float
    slopes: Array
    precision: Array
    weight: Array  # (n,) final
    even: Array  # (n,) without the robust part: by count, and by the noise of idle and of loaded rows
    robust: Array  # (n,) the robust part
    residual_w: Array  # (n,)
    noise_w: float  # robust standard deviation of a loaded row of usual count


class Fitter:
    """Fits `traces`. The state goes from step to step; `run` does them all."""

    def __init__(self, traces: Traces) -> None:
        self.traces = traces
        self._numbers, self._q = traces.columns
        self._hats, self._roughness = traces.baseline
        self._meter = [traces.meters.index(s.meter) for s in traces.segments]
        self._weight = self._even = traces.weight  # with and without the robust part
        self._smoothness = START_SMOOTHNESS
        self._warmth: Array | None = None
        self._noise_w = 0.0

    def run(self) -> Fit:
        parameters = Parameters(
            np.array([_start(self.traces.of_meter(m, START_ROWS)) for m in self.traces.meters]),
            np.zeros(len(self.traces.segments)),
        )
        parameters, solution = self._improve(parameters, SHAPE)
        for round_ in range(ROUNDS):
            self._warm(solution.coefficients)
            normal = self._normal(parameters)
            self._smoothness = normal.smoothness(self._prior())
            self._reweigh(normal.solve(self._prior(), self._smoothness), HUBER if round_ < 2 else None)
            parameters, solution = self._improve(parameters, PARAMETERS)
        residual_w = solution.residual(self.traces.power_w)
        slopes = self._slopes(parameters, solution.coefficients)
        precision = self._precision(parameters)[0]
        return Fit(
            self.traces,
            parameters,
            solution,
            self._prior(),
            self._smoothness,
            slopes,
            precision,
            self._weight,
            self._even,
            self._weight / self._even,
            residual_w,
            self._noise_w,
        )

    def start(self) -> Array:
        """Parameters (PARAMETERS,) of the best of a few lags; for the traces of one meter."""
        candidates = [
            Lag(delay * spread_s, spread_s, USUAL_POLE_SHARE, np.zeros(PARAMETERS - SHAPE)).causal().parameters
            for spread_s in START_SPREADS_S
            for delay in START_DELAYS
        ]
        still = np.zeros(len(self.traces.segments))
        return min(candidates, key=lambda c: self._solve(Parameters(c[None], still)).loss)

    # ---- the linear part

    def _steps(self, parameters: Parameters) -> list[Steps]:
        return [
            steps_of(segment, self._numbers[index], parameters.late_s[index], Lag.of(parameters.lags[meter]))
            for index, (segment, meter) in enumerate(zip(self.traces.segments, self._meter, strict=True))
        ]

    def _design(self, parameters: Parameters) -> sparse.csr_matrix:
        """(n, q)"""
        data, rows, columns = [], [], []
        for index, steps in enumerate(self._steps(parameters)):
            value, row, column = steps.entries(Lag.of(parameters.lags[self._meter[index]]))
            data.append(value)
            rows.append(row + self.traces.first_row[index])
            columns.append(column)
        where = (np.concatenate(rows), np.concatenate(columns))
        return sparse.csr_matrix((np.concatenate(data), where), shape=(self.traces.rows, self._q))

    def _normal(self, parameters: Parameters) -> Normal:
        blocks = [self._design(parameters), self._hats]
        if self._warmth is not None:
            blocks.append(sparse.csr_matrix(self._warmth[:, None]))
        return Normal.of(sparse.csr_matrix(sparse.hstack(blocks)), self._weight, self.traces.power_w)

    def _prior(self) -> Prior:
        precision = np.full(self._q + len(self._roughness), RIDGE)
        mean = np.zeros(len(precision))
        if self._warmth is not None:
            precision = np.append(precision, (max(self._noise_w, 1e-6) / WARMTH_SD) ** 2)
            mean = np.append(mean, WARMTH)
        return Prior(precision, mean, self._q, self._roughness, len(self.traces.segments))

    def _solve(self, parameters: Parameters) -> Solution:
        return self._normal(parameters).solve(self._prior(), self._smoothness)

    # ---- what is not linear

    def _slopes(self, parameters: Parameters, power_w: Array) -> Array:
        """(n, parameters)"""
        meters, segments = len(self.traces.meters), len(self.traces.segments)
        out = np.zeros((self.traces.rows, meters * PARAMETERS + segments))
        for index, steps in enumerate(self._steps(parameters)):
            rows = slice(self.traces.first_row[index], self.traces.first_row[index + 1])
            meter = self._meter[index]
            slopes = steps.slopes(parameters.lags[meter], power_w, len(self.traces.segments[index].time_s))
            out[rows, meter * PARAMETERS : (meter + 1) * PARAMETERS] = slopes
            out[rows, meters * PARAMETERS + index] = slopes[:, 0]
        return out

    def _precision(self, parameters: Parameters) -> tuple[Array, Array]:
        """Of each parameter's prior, relative to the noise, and its mean."""
        lag_precision = np.concatenate([WIDE_SD, np.full(PARAMETERS - SHAPE, BUMP_SD)]) ** -2.0
        late_sd = np.array([max(s.time_sd_s, 1e-3) for s in self.traces.segments])
        means = np.zeros_like(parameters.lags)
        means[:, :2] = parameters.lags[:, :2]
        means[:, 2] = USUAL_POLE_SHARE
        precision = np.concatenate([np.tile(lag_precision, len(parameters.lags)), late_sd**-2.0])
        return precision, np.concatenate([means.ravel(), np.zeros(len(late_sd))])

    def _improve(self, parameters: Parameters, free: int) -> tuple[Parameters, Solution]:
        """Levenberg-Marquardt until the loss stands still; the first `free` parameters of each lag."""
        solution = self._solve(parameters)
        variance = max(self._noise_w**2 or solution.loss / self.traces.rows, LEAST_NOISE_W**2)
        precision, mean = self._precision(parameters)
        lags, segments = parameters.lags.shape[0], len(parameters.late_s)
        moving = np.concatenate([np.tile(np.arange(PARAMETERS) < free, lags), np.ones(segments, bool)])

        def loss(at: Parameters, found: Solution) -> float:
            return found.loss + variance * float(precision @ (at.flat - mean) ** 2)

        now = loss(parameters, solution)
        for _ in range(REFINEMENTS):
            slopes = self._slopes(parameters, solution.coefficients)
            information = information_of(slopes, solution, self._weight)[0] + np.diag(variance * precision)
            pull = (self._weight[:, None] * slopes).T @ solution.residual(self.traces.power_w)
            pull -= variance * precision * (parameters.flat - mean)
            before = now
            for damping in DAMPING:
                trial = parameters.moved(_step(information, pull, damping, moving, lags))
                found = self._solve(trial)
                if loss(trial, found) < now:
                    parameters, solution, now = trial, found, loss(trial, found)
                    break
            if before - now < STANDSTILL * variance:
                break
        return parameters, solution

    # ---- between the steps

    def _warm(self, power_w: Array) -> None:
        """How warm the recent load has made the chip, in watts of load (n,)."""
        parts = [_warmth(s, power_w, n) for s, n in zip(self.traces.segments, self._numbers, strict=True)]
        self._warmth = np.concatenate(parts)

    def _reweigh(self, solution: Solution, huber: float | None) -> None:
        """Set the weights by the residuals."""
        scaled = solution.residual(self.traces.power_w) * np.sqrt(self.traces.weight)
        shown = solution.normal.design[:, : self._q] @ np.ones(self._q)
        noise_w = _noise_by(shown < IDLE_SHARE, scaled)
        self._noise_w = float(noise_w[np.argmax(shown)])
        self._even = self.traces.weight * (self._noise_w / noise_w) ** 2
        z = scaled / noise_w
        self._weight = self._even * (_bisquare(z) if huber is None else _huber(z, huber))


def fit(segments: Sequence[Segment], loads: int) -> Fit:
    return Fitter(Traces(tuple(segments), loads)).run()


def _start(traces: Traces) -> Array:
    return Fitter(traces).start()


def information_of(slopes: Array, solution: Solution, weight: Array) -> tuple[Array, Array]:
    """Of the parameters when everything linear follows them, and how it does (p, parameters)."""
    cross = np.asarray(solution.normal.weighted.T @ slopes)
    answer = solution.inverse(cross)
    alone = (weight[:, None] * slopes).T @ slopes
    return alone - cross.T @ answer + RIGID * float(alone.diagonal().max()) * np.eye(len(alone)), answer


def _step(information: Array, pull: Array, damping: float, moving: NDArray[np.bool_], lags: int) -> Array:
    """(parameters,) towards less loss; as a whole shorter where a lag would change too much at once."""
    damped = information + damping * np.diag(np.diag(information))
    step = np.zeros(len(pull))
    step[moving] = linalg.solve(damped[np.ix_(moving, moving)], pull[moving], assume_a="pos")
    shape = np.abs(step[: lags * PARAMETERS].reshape(lags, PARAMETERS)[:, :SHAPE])
    shorter: Array = step / max(1.0, float(shape.max()) / LARGEST_STEP)
    return shorter


def _noise_by(idle: NDArray[np.bool_], residual_w: Array) -> Array:
    """Robust standard deviation at each row (n,), idle and loaded ones apart, never wildly different."""
    noise_w = np.full(len(residual_w), LEAST_NOISE_W)
    for rows in (idle, ~idle):
        if rows.any():
            noise_w[rows] = max(MAD * float(np.median(np.abs(residual_w[rows]))), LEAST_NOISE_W)
    return np.asarray(np.maximum(noise_w, noise_w.max() / UNLIKE))


def _huber(z: Array, limit: float) -> Array:
    return np.asarray(np.minimum(1.0, limit / np.maximum(np.abs(z), 1e-9)))


def _bisquare(z: Array) -> Array:
    return np.asarray(np.where(np.abs(z) < BISQUARE, (1 - (z / BISQUARE) ** 2) ** 2, 0.0))


def _warmth(segment: Segment, power_w: Array, columns: IntArray) -> Array:
    """The load's power behind a first-order lag of WARMTH_S, at each value (n,); cold at the beginning."""
    start_s, load_w = segment.start_s[1:], np.where(columns[1:] < 0, 0.0, power_w[np.maximum(columns[1:], 0)])
    keep = np.exp(-np.diff(start_s, append=segment.end_s) / WARMTH_S)
    warm = np.zeros(len(load_w) + 1)
    for index in range(len(load_w)):
        warm[index + 1] = warm[index] * keep[index] + load_w[index] * (1 - keep[index])
    at = np.maximum(np.searchsorted(start_s, segment.time_s, side="right") - 1, 0)
    left = np.exp(-(segment.time_s - start_s[at]) / WARMTH_S)
    return np.asarray(warm[at] * left + load_w[at] * (1 - left))
