"""When a slow meter really took the values that a faster poll found.

A meter with a new value every half second that is polled every 0.4 s shows values that are 0 to 0.4 s old, and at a
switch of the load that age is worth more than all its noise. But it ticks evenly: which polls found a new value, and
which the old one, gives period and phase of the ticks, and so the time of every value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LEAST_STALE = 0.03  # with fewer repeats the meter was polled about as fast as it ticks, and tells nothing
LEAST_VALUES = 40
FASTEST_S = 0.1  # ticks below this are well timed by their polls
FIRST_LOOK = 120  # values that are enough to find the period roughly
SEARCH = 0.02  # how far the period may be from what the number of values says, relative
STEP = 0.04  # of a period, between two candidates at the far end of the trace
LOST = 1.5  # times the usual gap between polls: some were lost
FITTING = 0.95  # share of the values that must agree with the ticks
SLACK_S = 0.02  # of a poll's own time stamp


def tick_times(polled_s: Array, fresh: BoolArray) -> tuple[Array, float] | None:
    """The time of the tick behind each poll (n,), and the standard error that is common to all of them (s).

    polled_s (n,) ascends and holds all polls; times of polls without a new value, and of the few that contradict the
    ticks, are the polls' own. None where the polls do not show an even tick: they are then the best that is known.
    """
    found = np.flatnonzero(fresh[1:]) + 1
    if len(found) < LEAST_VALUES or np.mean(~fresh) < LEAST_STALE:
        return None
    after_s, until_s = polled_s[found - 1], polled_s[found]  # a tick lies in between
    mean_s = _mean_gap(polled_s, fresh)
    if mean_s < FASTEST_S:
        return None
    period_s, phase_s = _search(after_s, until_s, mean_s)
    number = np.floor((until_s - phase_s) / period_s)
    fits = phase_s + number * period_s > after_s - SLACK_S
    if fits.mean() < FITTING:
        return None
    centre = _centre(after_s[fits], until_s[fits], number[fits])
    if centre is None:
        return None
    period_s, phase_s, margin_s = centre
    ticks_s = phase_s + number * period_s
    inside = (ticks_s > after_s - SLACK_S) & (ticks_s < until_s + SLACK_S)
    times_s = polled_s.copy()
    times_s[found[inside]] = ticks_s[inside]
    return times_s, max(margin_s, 0.0) / np.sqrt(3)  # uniform within ± margin


def _mean_gap(polled_s: Array, fresh: BoolArray) -> float:
    """Mean time between new values (s), without stretches in which polls were lost."""
    gap_s = np.diff(polled_s)
    usual = gap_s < LOST * np.median(gap_s)
    return float(gap_s[usual].sum() / max(fresh[1:][usual].sum(), 1))


def _search(after_s: Array, until_s: Array, mean_s: float) -> tuple[float, float]:
    """The period and phase with which the most intervals hold a tick: roughly on the beginning, then on all."""
    first = slice(0, FIRST_LOOK)
    step_s = STEP * mean_s**2 / (until_s[first][-1] - until_s[0])
    periods_s = mean_s + step_s * np.arange(-int(SEARCH * mean_s / step_s), int(SEARCH * mean_s / step_s) + 1)
    held = np.array([_most_held(after_s[first], until_s[first], p)[0] for p in periods_s])
    best_s = periods_s[held == held.max()]
    fine_s = STEP * mean_s**2 / (until_s[-1] - until_s[0])
    periods_s = np.arange(best_s[0] - step_s, best_s[-1] + step_s, fine_s)
    looks = [_most_held(after_s, until_s, p) for p in periods_s]
    best = max(range(len(looks)), key=lambda index: looks[index][0])
    return float(periods_s[best]), looks[best][1]


def _most_held(after_s: Array, until_s: Array, period_s: float) -> tuple[int, float]:
    """How many of the intervals (n,) hold a tick with this period, at best, and with which phase."""
    width_s = until_s - after_s
    always = width_s >= period_s
    low = np.mod(after_s, period_s)[~always]
    high = low + width_s[~always]
    wraps = high > period_s
    ends = np.concatenate([low, np.where(wraps, high - period_s, high)])
    order = np.argsort(ends, kind="stable")
    held = int(always.sum() + wraps.sum()) + np.cumsum(np.where(order < len(low), 1, -1))
    if not len(held):
        return len(width_s), 0.0
    best = int(np.argmax(held))
    following = ends[order[best + 1]] if best + 1 < len(order) else ends[order[0]] + period_s
    return int(held[best]), float(ends[order[best]] + following) / 2


def _centre(after_s: Array, until_s: Array, number: Array) -> tuple[float, float, float] | None:
    """Period, phase and margin (s) with which every tick keeps the greatest distance from both ends of its interval."""
    one = np.ones(len(number))
    limits = np.concatenate([np.column_stack([-number, -one, one]), np.column_stack([number, one, one])])
    bounds = np.concatenate([-after_s, until_s])
    result = optimize.linprog([0.0, 0.0, -1.0], A_ub=limits, b_ub=bounds, bounds=[(None, None)] * 3)
    if result.x is None:
        return None
    period_s, phase_s, margin_s = (float(x) for x in result.x)
    return period_s, phase_s, margin_s
