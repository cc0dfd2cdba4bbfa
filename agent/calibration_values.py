"""Which samples of a meter are new values, and when the meter took them. Pure functions, numpy.

A meter that is polled a little faster than it has new values shows values that are up to one poll old, which is more
than its lag may be known to. But it ticks evenly: which polls had a new value gives the period and phase of the ticks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from protos.errors import BadInputError

Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LEAST_STALE = 0.03  # with fewer repeats the meter was polled about as fast as it ticks, or speaks by itself
LEAST_TICKS = 20
SEARCH = 0.02  # how far the period may be from the mean gap between new values, relative
STEP = 0.05  # of a period, between two candidates at the far end of the trace
PHASES = 100
FITTING = 0.9  # share of the polls that must agree with the ticks
USUAL = 1.6  # times the median gap: beyond it something was lost
HELD = 1.8  # samples between two changes, at least, in a stream that repeats its values


@dataclass(frozen=True, eq=False)
class Values:
    """New values of a meter (n,), when it took them, and the time from one to the next (s).

    time_se_s: standard error that is common to all times.
    """

    time_s: Array
    power_w: Array
    period_s: float
    time_se_s: float = 0.0


def new_values(time_s: Array, power_w: Array, fresh: ArrayLike | None = None) -> Values:
    """The new values among samples (n,). Raises BadInputError for columns that do not fit each other."""
    is_new = np.ones(len(time_s), bool) if fresh is None else np.asarray(fresh, bool)
    if not len(time_s) == len(power_w) == len(is_new):
        raise BadInputError(
            f"times, powers and freshness have {len(time_s)}, {len(power_w)} and {len(is_new)} values; they must be "
            "columns of one trace."
        )
    if len(time_s) < 2:
        return Values(time_s, power_w, 0.0)
    if not (np.isfinite(time_s).all() and np.isfinite(power_w).all() and (np.diff(time_s) >= 0).all()):
        raise BadInputError("times and powers must be finite, and times must not run backwards.")
    if np.mean(~is_new) >= LEAST_STALE:
        return _polled(time_s, power_w, is_new)
    return _stream(time_s[is_new], power_w[is_new])


def _polled(time_s: Array, power_w: Array, fresh: BoolArray) -> Values:
    """Times are those of the ticks where these can be told, else the middle between a poll and the one before."""
    found = np.flatnonzero(fresh[1:]) + 1
    before_s, at_s = time_s[:-1], time_s[1:]
    gap_s = at_s - before_s
    usual = gap_s <= USUAL * np.median(gap_s)
    period_s = float(gap_s[usual].sum() / max(1, np.count_nonzero(fresh[1:] & usual)))
    taken_s = (time_s[found] + time_s[found - 1]) / 2
    time_se_s = float(np.median(gap_s)) / 12**0.5 / max(1.0, len(found) ** 0.5)
    if len(found) >= LEAST_TICKS:
        ticks = _ticks(before_s[usual], at_s[usual], fresh[1:][usual], period_s)
        if ticks is not None:
            period_s, phase_s, time_se_s = ticks
            tick_s = phase_s + period_s * np.floor((time_s[found] - phase_s) / period_s)
            taken_s = np.where(tick_s > time_s[found - 1], tick_s, taken_s)
    return Values(np.maximum.accumulate(taken_s), power_w[found], period_s, time_se_s)


def _ticks(before_s: Array, at_s: Array, fresh: BoolArray, mean_s: float) -> tuple[float, float, float] | None:
    """Period, phase and its standard error (s) with which most polls have a new value exactly when a tick lies before
    them; None: no clock.

    before_s and at_s (n,) are the times of a poll's predecessor and its own. Of the many that are equally good, the
    middle one.
    """
    origin_s = (before_s[0] + at_s[-1]) / 2  # far ends then err alike
    step_s = STEP * mean_s**2 / max(at_s[-1] - before_s[0], mean_s)
    count = min(int(SEARCH * mean_s / step_s) + 1, 2000)
    periods_s = mean_s + step_s * np.arange(-count, count + 1)
    shares = np.arange(PHASES) / PHASES
    score = np.empty((len(periods_s), PHASES))
    for row, period_s in enumerate(periods_s):
        first = np.floor((before_s - origin_s)[:, None] / period_s - shares)
        second = np.floor((at_s - origin_s)[:, None] / period_s - shares)
        score[row] = np.mean((second > first) == fresh[:, None], axis=0)
    best = score.max()
    if best < FITTING:
        return None
    rows, columns = np.nonzero(score >= best - 1e-9)
    turns = np.exp(2j * np.pi * shares[columns])
    middle = turns.mean()
    away = np.angle(turns / middle) / (2 * np.pi)
    period_s = float(periods_s[rows].mean())
    phase_s = float(np.angle(middle)) / (2 * np.pi) * period_s
    return period_s, origin_s + phase_s, float(np.sqrt(np.mean(away**2))) * period_s


def _stream(time_s: Array, power_w: Array) -> Values:
    """Samples of a meter that says them by itself; where it repeats each value, only the first of each counts."""
    gap_s = np.diff(time_s)
    gap_s = gap_s[gap_s > 0]
    if not len(gap_s):
        return Values(time_s, power_w, 0.0)
    usual_s = float(np.median(gap_s))
    period_s = float(gap_s[gap_s <= USUAL * usual_s].mean())
    changed = np.flatnonzero(np.diff(power_w) != 0) + 1
    if len(changed) > LEAST_TICKS:
        between_s = np.diff(time_s[changed])
        held_s = float(np.percentile(between_s, 10))
        if held_s > HELD * period_s:
            held_s = float(between_s[between_s <= USUAL * held_s].mean())
            return Values(time_s[changed], power_w[changed], held_s)
    return Values(time_s, power_w, period_s)
