"""What an emulated board draws, as a function of device time (an `agent.emulator.supply.Supply`)."""

from __future__ import annotations

import threading
from bisect import bisect_right

import numpy as np

from agent.emulator.device_disturbance import Array, Disturbances
from agent.emulator.device_types import PowerModel

KEPT_S = 7200.0  # how long a meter may look back
PRUNED_AT = 1 << 16  # segments


class BoardSupply:
    """The history of the board's load plus drift, leakage and bursts; the voltage sags with the current.

    A moment that has not been reached yet is idle. The board appends from one thread while a meter may ask from
    another. Raises ValueError for a time that is long forgotten.
    """

    def __init__(self, power: PowerModel, disturbances: Disturbances, leakage_w: float) -> None:
        self._power = power
        self._disturbances = disturbances
        self._lock = threading.Lock()
        self._starts_s: list[float] = []
        self._loads_w: list[float] = []
        self._free: list[float] = []  # share of the cores that is left to other processes
        self._leakages_w: list[float] = []  # at the starts
        self._end_s = 0.0
        self._known_from_s = float("-inf")  # a meter begins a step before the board does
        self._end_leakage_w = leakage_w

    def append(self, started_s: float, ended_s: float, load_w: float, free: float, leakage_w: float) -> None:
        """The board draws load_w above idle until ended_s, and then has warmed up to leakage_w."""
        with self._lock:
            self._starts_s.append(started_s)
            self._loads_w.append(load_w)
            self._free.append(free)
            self._leakages_w.append(self._end_leakage_w)
            self._end_s, self._end_leakage_w = ended_s, leakage_w
            if len(self._starts_s) >= PRUNED_AT:
                self._prune(ended_s - KEPT_S)

    def _prune(self, until_s: float) -> None:
        count = max(0, bisect_right(self._starts_s, until_s) - 1)
        for column in (self._starts_s, self._loads_w, self._free, self._leakages_w):
            del column[:count]
        self._known_from_s = self._starts_s[0]

    def sample(self, start_s: float, stop_s: float, step_s: float) -> tuple[list[float], list[float]]:
        """See `agent.emulator.supply.Supply`."""
        times_s: Array = start_s + step_s * np.arange(round((stop_s - start_s) / step_s), dtype=np.float64)
        if not len(times_s):
            return [], []
        power, power_w = self._power, self.power_w(times_s)
        source_v, resistance_ohm = power.source_v, power.resistance_ohm
        # The board's regulators take constant power: V · I = P and V = V0 − R · I.
        current_a = (source_v - np.sqrt(source_v**2 - 4 * resistance_ohm * power_w)) / (2 * resistance_ohm)
        return (source_v - resistance_ohm * current_a).tolist(), current_a.tolist()

    def power_w(self, times_s: Array) -> Array:
        """All that the board draws at ascending times (n,)."""
        starts_s, loads_w, free, leakages_w, end_s = self._between(float(times_s[0]), float(times_s[-1]))
        index = np.searchsorted(starts_s, times_s, side="right") - 1
        running = (index >= 0) & (times_s < end_s)
        power_w = self._power.idle_w + self._disturbances.idle_w(times_s)
        power_w += np.where(running, loads_w[index], 0.0)
        power_w += np.interp(times_s, np.append(starts_s, end_s), leakages_w)
        for burst in self._disturbances.bursts(float(times_s[0]), float(times_s[-1])):
            during = (times_s >= burst.started_s) & (times_s < burst.ended_s)
            power_w += during * burst.strength * self._power.burst_w * np.where(running, free[index], 1.0)
        return power_w

    def _between(self, first_s: float, last_s: float) -> tuple[Array, Array, Array, Array, float]:
        """The segments that touch this time: starts, loads, free cores (m,), leakage at corners (m + 1,), end."""
        with self._lock:
            if first_s < self._known_from_s:
                raise ValueError(f"the supply at {first_s:.1f} s is forgotten; it is kept for {KEPT_S:.0f} s")
            low = max(0, bisect_right(self._starts_s, first_s) - 1)
            high = bisect_right(self._starts_s, last_s)
            inside = high < len(self._starts_s)
            end_s = self._starts_s[high] if inside else self._end_s
            leakage_w = self._leakages_w[high] if inside else self._end_leakage_w
            return (
                np.array(self._starts_s[low:high] or [end_s]),
                np.array(self._loads_w[low:high] or [0.0]),
                np.array(self._free[low:high] or [1.0]),
                np.array([*(self._leakages_w[low:high] or [leakage_w]), leakage_w]),
                end_s,
            )
