"""What a meter shows of a step in the load: a flexible lag, and the traces' dependence on it.

A dead time, a moving average and a pole in series resemble most meters; what is left is a piecewise linear correction
of the step response. A wrong shape is not harmless: it made networks 0.4 % wrong on a meter with two poles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lut_store.estimate.energy_trace import GAP, IDLE, UNKNOWN, Segment

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

# The correction's corners, in spreads from the dead time; it is zero at both ends.
CORNERS = np.array([0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.9, 2.4, 3.0, 4.0, 5.5, 7.5, 10.0])
SHAPE = 3  # mean, log spread and kind stand first in the parameters of a lag
PARAMETERS = SHAPE + len(CORNERS) - 2
LOWEST = np.array([-0.1, np.log(0.003), 0.02])  # of mean_s, log spread_s and pole_share
HIGHEST = np.array([10.0, np.log(5.0), 1.0])
EARLIEST_S = -0.1  # of the dead time: a meter cannot show what is still to come, but its times may be a little off
STEPS = np.array([4e-3, 0.02, 0.02])  # of the numerical derivative
SETTLED = 10.0  # time constants


@dataclass(frozen=True)
class Lag:
    """mean_s and spread_s: mean and standard deviation of the impulse response but for the correction.

    pole_share: 1 is a pole alone, 0 a moving average alone.
    """

    mean_s: float
    spread_s: float
    pole_share: float
    bumps: Array  # (len(CORNERS) - 2,)

    @classmethod
    def of(cls, parameters: Array) -> Lag:
        return cls(
            float(parameters[0]), float(np.exp(parameters[1])), float(parameters[2]), parameters[SHAPE:PARAMETERS]
        )

    @property
    def parameters(self) -> Array:
        return np.concatenate([[self.mean_s, np.log(self.spread_s), self.pole_share], self.bumps])

    def causal(self) -> Lag:
        """This lag, or the nearest later one whose dead time is possible."""
        return replace(self, mean_s=self.mean_s + max(0.0, EARLIEST_S - self.delay_s))

    @property
    def pole_s(self) -> float:
        return max(self.pole_share * self.spread_s, 1e-4)

    @property
    def average_s(self) -> float:
        """Width of the moving average: its variance is width² / 12."""
        return float(np.sqrt(12 * max(1 - self.pole_share**2, 0.0)) * self.spread_s)

    @property
    def delay_s(self) -> float:
        """Dead time: before it nothing of a step is seen."""
        return self.mean_s - self.pole_s - self.average_s / 2

    @property
    def centre_s(self) -> float:
        """Mean of the impulse response, correction included."""
        bumps = np.concatenate([[0.0], self.bumps, [0.0]])
        return self.mean_s - float(np.trapezoid(bumps, CORNERS * self.spread_s))

    @property
    def memory_s(self) -> float:
        """After this a step is over."""
        parametric_s = self.average_s + SETTLED * self.pole_s
        return self.delay_s + max(parametric_s, float(CORNERS[-1]) * self.spread_s)

    def step(self, age_s: Array) -> Array:
        """The share of a step that is seen so long after it."""
        u, pole_s, width_s = age_s - self.delay_s, self.pole_s, self.average_s

        def ramp(v: Array) -> Array:
            v = np.maximum(v, 0.0)
            return v + pole_s * np.expm1(-v / pole_s)

        seen = (ramp(u) - ramp(u - width_s)) / width_s if width_s > 1e-4 else -np.expm1(-np.maximum(u, 0.0) / pole_s)
        if self.bumps.any():
            corners_s = self.delay_s + CORNERS * self.spread_s
            seen = seen + np.interp(age_s, corners_s, np.concatenate([[0.0], self.bumps, [0.0]]))
        return np.asarray(seen)


@dataclass(frozen=True, eq=False)
class Steps:
    """Every pair of a value and a step of the load that it may still show; p pairs.

    before and after are columns of the design, IDLE for none. The oldest step of each value is taken as over, so that
    the shares of a value add up to one.
    """

    row: IntArray
    age_s: Array
    before: IntArray
    after: IntArray
    over: NDArray[np.bool_]

    def seen(self, lag: Lag) -> Array:
        """(p,)"""
        return np.where(self.over, 1.0, lag.step(self.age_s))

    def entries(self, lag: Lag) -> tuple[Array, IntArray, IntArray]:
        """Values, rows and columns of the design; entries of the same place add up."""
        seen = self.seen(lag)
        gains, ends = self.after != IDLE, (self.before != IDLE) & ~self.over
        return (
            np.concatenate([seen[gains], -seen[ends]]),
            np.concatenate([self.row[gains], self.row[ends]]),
            np.concatenate([self.after[gains], self.before[ends]]),
        )

    def slopes(self, parameters: Array, power_w: Array, rows: int) -> Array:
        """(rows, PARAMETERS): how what is shown of loads with these powers changes with the lag's parameters."""
        height = np.where(self.over, 0.0, _of(power_w, self.after) - _of(power_w, self.before))
        out = np.zeros((rows, PARAMETERS))
        for index in range(SHAPE):
            up, down = parameters.copy(), parameters.copy()
            up[index] = min(up[index] + STEPS[index], HIGHEST[index])
            down[index] = max(down[index] - STEPS[index], LOWEST[index])
            change = (Lag.of(up).step(self.age_s) - Lag.of(down).step(self.age_s)) / (up[index] - down[index])
            out[:, index] = np.bincount(self.row, height * change, rows)
        lag = Lag.of(parameters)
        place = np.interp((self.age_s - lag.delay_s) / lag.spread_s, CORNERS, np.arange(len(CORNERS), dtype=np.float64))
        left = np.minimum(place.astype(np.int64), len(CORNERS) - 2)
        share = place - left
        flat = np.bincount(self.row * len(CORNERS) + left, height * (1 - share), rows * len(CORNERS))
        flat += np.bincount(self.row * len(CORNERS) + left + 1, height * share, rows * len(CORNERS))
        out[:, SHAPE:] = flat.reshape(rows, len(CORNERS))[:, 1:-1]
        return out


def _of(power_w: Array, column: IntArray) -> Array:
    return np.where(column == IDLE, 0.0, power_w[np.maximum(column, 0)])


def steps_of(segment: Segment, columns: IntArray, late_s: float, lag: Lag) -> Steps:
    """`columns` (m,) of the segment's windows; late_s: delay of this segment's values beyond the lag's."""
    time_s = segment.time_s - late_s
    newest = np.maximum(np.searchsorted(segment.start_s, time_s - lag.delay_s, side="right") - 1, 0)
    active, back = np.arange(len(time_s)), 0
    parts: list[tuple[IntArray, Array, IntArray, NDArray[np.bool_]]] = []
    while len(active):
        window = newest[active] - back
        age_s = time_s[active] - segment.start_s[window]
        over = (age_s > lag.memory_s) | (window == 0)
        parts.append((active, age_s, window, over))
        active, back = active[~over], back + 1
    row, age_s, window, over = (np.concatenate(column) for column in zip(*parts, strict=True))
    age_s = np.where(over, lag.memory_s, age_s)  # the first window began long ago
    before = np.where(window > 0, columns[np.maximum(window - 1, 0)], IDLE)
    return Steps(row, age_s, before, columns[window], over)


def column_numbers(segments: Sequence[Segment], loads: int) -> tuple[list[IntArray], int]:
    """Design columns of every segment's windows, and how many there are.

    Items and networks keep their numbers below `loads`, the set-up gap follows, then each UNKNOWN window: its mean
    power is a free number, so that what the lag carries over from it hurts nothing.
    """
    count = loads + 1
    numbers = []
    for segment in segments:
        column = segment.load.copy()
        column[segment.load == GAP] = loads
        unknown = np.flatnonzero(segment.load == UNKNOWN)
        column[unknown] = count + np.arange(len(unknown))
        count += len(unknown)
        numbers.append(column)
    return numbers, count
