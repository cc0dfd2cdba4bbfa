"""The highest value that the meter showed in each window: what somebody reads from its display. It lies above the
plateau by the noise of the meter; docs/versions.md says when it is of use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lut_store.estimate.energy_fit import Fit
from lut_store.estimate.energy_lag import Lag
from lut_store.estimate.statistic import SE_FACTORS

Array = NDArray[np.float64]

MAD = 1.4826


@dataclass(frozen=True, eq=False)
class Peaks:
    """(loads,): highest power and current of a window above the fitted baseline, median over the load's windows, and
    the standard error of the power's; NaN for a load of which no window holds a value.
    """

    power_w: Array
    power_se_w: Array
    current_a: Array


def peaks(found: Fit, lags: Sequence[Lag], loads: int, idle_w: Array, idle_a: Array) -> Peaks:
    """`lags`: one per meter. idle_w, idle_a (n,): the baseline at each of the fit's values."""
    traces = found.traces
    highest: list[list[tuple[float, float]]] = [[] for _ in range(loads)]
    for segment, base_w, base_a in zip(traces.segments, traces.parts(idle_w), traces.parts(idle_a), strict=True):
        lag = lags[traces.meters.index(segment.meter)]
        window = np.searchsorted(segment.start_s, segment.time_s - lag.centre_s, side="right") - 1
        above_w, above_a = segment.power_w - base_w, segment.current_a - base_a
        for number in np.unique(window[window >= 0]):
            load, own = int(segment.load[number]), window == number
            if 0 <= load < loads:
                highest[load].append((float(above_w[own].max()), float(above_a[own].max())))
    power_w, error_w, current_a = (np.full(loads, np.nan) for _ in range(3))
    for load, values in enumerate(highest):
        if values:
            watts, amps = np.array(values).T
            power_w[load], current_a[load] = np.median(watts), np.median(amps)
            spread_w = MAD * float(np.median(np.abs(watts - power_w[load])))
            # Few windows may agree by chance: no peak is known better than the meter's noise.
            error_w[load] = SE_FACTORS["median"] * max(spread_w, found.noise_w) / np.sqrt(len(watts))
    return Peaks(power_w, error_w, current_a)
