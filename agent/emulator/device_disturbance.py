"""What disturbs an emulated board: drifting speed and idle power, other processes, and the scatter of single calls.

Drifts and bursts are functions of device time alone, fixed by the seed: they do not depend on what is asked first.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Less than a server's 1–3 % in 20 minutes (method notes, A5): a board at a fixed clock has no neighbours.
SPEED_SD = 0.002
SPEED_S = 60.0
IDLE_SD_W = 0.025  # 5 mA
IDLE_S = 300.0
SERVICE_W = 0.012  # a service that wakes up now and then, for a minute or so
SERVICE_TOGGLE_S = 90.0

BURST_EVERY_S = 120.0
BURST_S = 0.9  # median; lognormal, so that some are three times as long
BURST_SPREAD = 0.5
BURST_SLOWDOWN = (1.05, 1.35)

CALL_SD = 0.003  # common to all blocks of one call
BLOCK_SD = 0.007
TAIL_SHARE, TAIL_MEAN = 0.02, 0.04  # a few calls are longer by some per cent
TICK_PER_S, TICK_S = 0.8, 0.6e-3  # the kernel takes the core away
LAYOUT_SD = 0.0015  # where in memory a module's weights happen to lie, for the life of a process
PROCESS_SD = 0.001  # the same for a process as a whole
WINDOW_POWER_SD = 0.002  # what the data happen to be

_CHUNK_S = 1024  # the drifts are made in steps of a second, this many at a time
_KEPT_S = 1 << 15
_LAYOUTS = 4099  # a prime, so that names spread


@dataclass(frozen=True)
class Settings:
    """What happens beside the work itself. Everything off: a measurement is exactly the truth.

    noise: scatter of calls, placement of weights in memory; drift: speed, idle power, leakage of the warm chip;
    bursts: other processes. ambient_c: a board in a hot room reaches its throttling temperature under load.
    """

    noise: bool = True
    drift: bool = True
    bursts: bool = True
    ambient_c: float = 25.0


QUIET = Settings(noise=False, drift=False, bursts=False)


@dataclass(frozen=True)
class Burst:
    """Another process, busy on one core."""

    started_s: float
    ended_s: float
    slowdown: float
    strength: float  # of its power, relative

    def overlap_s(self, started_s: float, ended_s: float) -> float:
        return max(0.0, min(ended_s, self.ended_s) - max(started_s, self.started_s))


class Disturbances:
    """Drifts and bursts of one board over its device time. May be asked from several threads."""

    def __init__(self, seed: int, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._drift_rng = np.random.default_rng([seed, 1])
        self._burst_rng = np.random.default_rng([seed, 2])
        self._origin_s = 0  # earlier drifts are forgotten
        self._speed = self._drift_rng.normal(0, SPEED_SD, 1)  # at _origin_s, a second later, …
        self._idle = self._drift_rng.normal(0, IDLE_SD_W, 1)
        self._service = np.zeros(1)
        self._bursts: list[Burst] = []
        self._bursts_until_s = 0.0

    def slowdown(self, time_s: float) -> float:
        """How much slower than usual the board is; about 1."""
        if not self._settings.drift:
            return 1.0
        with self._lock:
            self._extend(time_s)
            index = int(time_s) - self._origin_s
            part = time_s - int(time_s)
            return float(np.exp(self._speed[index] * (1 - part) + self._speed[index + 1] * part))

    def idle_w(self, times_s: Array) -> Array:
        """What the board draws more at rest than usual. times_s (n,) ascends. ValueError: it is forgotten."""
        if not self._settings.drift or not len(times_s):
            return np.zeros(len(times_s))
        first, last = int(times_s[0]), int(times_s[-1]) + 2
        with self._lock:
            self._extend(float(times_s[-1]))
            low, high = first - self._origin_s, last - self._origin_s
            if low < 0:
                raise ValueError(f"the drift at {first} s is forgotten; it is known from {self._origin_s} s on")
            values = self._idle[low:high] + self._service[low:high]
        return np.interp(times_s, np.arange(first, last), values)

    def bursts(self, started_s: float, ended_s: float) -> list[Burst]:
        """Those that touch this time, in order."""
        if not self._settings.bursts:
            return []
        with self._lock:
            while self._bursts_until_s <= ended_s:
                self._next_burst()
            # They are short and rare: looking back over the last few is enough and quick.
            found = []
            for burst in reversed(self._bursts):
                if burst.ended_s <= started_s:
                    break
                if burst.started_s < ended_s:
                    found.append(burst)
        return found[::-1]

    def _next_burst(self) -> None:
        rng = self._burst_rng
        started_s = self._bursts_until_s + rng.exponential(BURST_EVERY_S)
        ended_s = started_s + BURST_S * rng.lognormal(0, BURST_SPREAD)
        self._bursts.append(Burst(started_s, ended_s, rng.uniform(*BURST_SLOWDOWN), rng.uniform(0.7, 1.3)))
        self._bursts_until_s = ended_s

    def _extend(self, until_s: float) -> None:
        """Make the drifts up to until_s; the lock is held."""
        while self._origin_s + len(self._speed) < until_s + 3:
            rng = self._drift_rng
            self._speed = _wander(self._speed, rng.standard_normal(_CHUNK_S), SPEED_SD, SPEED_S)
            self._idle = _wander(self._idle, rng.standard_normal(_CHUNK_S), IDLE_SD_W, IDLE_S)
            toggles = np.cumsum(rng.random(_CHUNK_S) < 1 / SERVICE_TOGGLE_S)
            on = (toggles + (self._service[-1] > 0)) % 2
            self._service = np.append(self._service, SERVICE_W * on)
            if len(self._speed) > 2 * _KEPT_S:
                self._origin_s += len(self._speed) - _KEPT_S
                self._speed, self._idle, self._service = (
                    values[-_KEPT_S:] for values in (self._speed, self._idle, self._service)
                )


def _wander(before: Array, steps: Array, sd: float, time_constant_s: float) -> Array:
    """Continue an Ornstein-Uhlenbeck process by one value for each step."""
    keep = np.exp(-1 / time_constant_s)
    fresh = sd * np.sqrt(1 - keep**2)
    value, values = float(before[-1]), []
    for step in steps:
        value = keep * value + fresh * float(step)
        values.append(value)
    return np.append(before, values)


class Scatter:
    """The scatter of single calls, and where a process happens to have put its weights."""

    def __init__(self, seed: int, settings: Settings) -> None:
        self._on = settings.noise
        self._rng = np.random.default_rng([seed, 3])
        self.restart()

    def restart(self) -> None:
        """A new process: everything lies elsewhere."""
        self._process = float(np.exp(self._rng.normal(0, PROCESS_SD)))
        self._layout = np.exp(self._rng.normal(0, LAYOUT_SD, _LAYOUTS))

    def placed(self, weights: IntArray) -> Array:
        """Slow-down of operators by the place of their weights (n,), and of the process."""
        if not self._on:
            return np.ones(len(weights))
        layout: Array = self._layout[(weights * 2654435761) % _LAYOUTS]
        return layout * self._process

    def calls(self, base_s: Array) -> Array:
        """Durations (calls, n) that scatter around base_s (calls, n), skewed to the right; the median hardly moves."""
        if not self._on:
            return base_s
        rng, shape = self._rng, base_s.shape
        factor = np.exp(BLOCK_SD * rng.standard_normal(shape) + CALL_SD * rng.standard_normal((shape[0], 1)))
        factor += (rng.random(shape) < TAIL_SHARE) * rng.exponential(TAIL_MEAN, shape)
        ticks = rng.random(shape) < -np.expm1(-TICK_PER_S * base_s)
        return base_s * factor + ticks * rng.exponential(TICK_S, shape)

    def mean(self, calls: int) -> float:
        """Mean slow-down of many calls in a row."""
        if not self._on:
            return 1.0
        usual = 1 + TAIL_SHARE * TAIL_MEAN + TICK_PER_S * TICK_S
        return float(usual + CALL_SD * self._rng.standard_normal() / np.sqrt(calls))

    def short(self) -> float:
        """Of one short computation, such as the probe."""
        return float(self.calls(np.ones((1, 1)) * 1e-3)[0, 0] * 1e3) if self._on else 1.0

    def around(self, value: float, relative_sd: float) -> float:
        """`value`, give or take; never below half of it."""
        return value * max(0.5, 1 + relative_sd * float(self._rng.standard_normal())) if self._on else value
