"""What a meter can reach: the confidence interval of an operator's energy, and the device time for a wanted one. Pure.

The energy of an operator is its power above idle times its latency. Its power comes from the meter's new values, each
with the noise σ, one every T seconds, while the operator runs for A seconds in all, in windows of w seconds. A meter
with the lag τ shows of a window only the share g, so that the power's variance is that of the mean of A·g/T values:

    g = 1 − (τ/w) · (1 − exp(−w/τ))
    A = E · item_share · w/(w + gap) / operators                  of E seconds of energy measurement
    variance = EXCESS · σ²·T · (1/(A·g) + 1/(E·idle_share))       the second part is that of the idle power
    half-width = 1.96 · √variance / p                             relative; p is the power of a busy core

g is the energy of a first-order meter's answer to a window of height 1, over w. EXCESS is what a whole run's fit needs
more than that: it finds the lag and the drift of the idle power from the same values, and bursts of other work take
some of them (`benchmarks/forecast.py` compares forecasts with what emulated runs reach).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from protos.types import MeasurementPlan

OPERATORS = 99  # of fbnet-cifar10 that are measured, stem and head included
GAP_S = 0.15  # set-up before each window on a Pi
EXCESS = 1.3
Z95 = 1.96
STANDARD_ENERGY_S = 1500.0  # of the preset `standard`
LEAST_ENERGY_S = 60.0  # every operator once, in shortened windows
OTHER_S = 150.0  # of the same table: latency rounds on a Pi 3B
WANTED = (0.01, 0.02, 0.05)
_PLAN = MeasurementPlan()
ITEM_SHARE = 1 - _PLAN.idle_share - _PLAN.network_share


@dataclass(frozen=True)
class Quality:
    """What matters of a meter, and of the board before it: power_w is that of one busy core above idle."""

    noise_w: float
    update_period_s: float
    lag_s: float
    power_w: float


@dataclass(frozen=True)
class Forecast:
    """half_width: relative, 95 %, of an operator's energy in the preset `standard`; device_s: wanted half-width → time
    of a whole table, latency included.
    """

    half_width: float
    device_s: dict[float, float]


def forecast(meter: Quality) -> Forecast:
    return Forecast(
        half_width(meter, STANDARD_ENERGY_S), {wanted: energy_s(meter, wanted) + OTHER_S for wanted in WANTED}
    )


def half_width(meter: Quality, seconds: float, operators: int = OPERATORS) -> float:
    """Relative 95 % half-width of an operator's power after so many seconds of energy measurement."""
    return Z95 * math.sqrt(_variance_w2_s(meter, operators) / seconds) / meter.power_w


def energy_s(meter: Quality, wanted: float, operators: int = OPERATORS) -> float:
    """Seconds of energy measurement until the half-width is `wanted`; never less than one visit of every operator."""
    return max(LEAST_ENERGY_S, _variance_w2_s(meter, operators) * (Z95 / (wanted * meter.power_w)) ** 2)


def _variance_w2_s(meter: Quality, operators: int) -> float:
    """Variance of an operator's power times the seconds of measurement."""
    window_s = _PLAN.window_s
    active_share = ITEM_SHARE * window_s / (window_s + GAP_S) / operators
    loads = 1 / (active_share * shown(meter.lag_s, window_s))
    return EXCESS * meter.noise_w**2 * meter.update_period_s * (loads + 1 / _PLAN.idle_share)


def shown(lag_s: float, window_s: float) -> float:
    """The share of a window that a meter with this lag shows."""
    ratio = max(lag_s, 1e-6) / window_s
    return 1 + ratio * math.expm1(-1 / ratio)
