"""An emulated board in its device time: it warms up, slows down when hot, and remembers what it drew."""

from __future__ import annotations

import math

from agent.emulator.device_disturbance import Burst, Disturbances, Scatter, Settings
from agent.emulator.device_supply import BoardSupply
from agent.emulator.device_types import DeviceType

REFERENCE_C = 25.0  # of the air, where idle_w was measured
SLICE_S = 1.0  # what lasts longer is appended in slices, so that the temperature has corners often enough
MAX_SLICES = 600
SLOWS_WITH_CLOCK = 0.85  # exponent: memory keeps its own clock
DRAWS_WITH_CLOCK = 2.0  # exponent: the voltage goes down as well
LOAD_S = 60.0  # of the load average
NOW_BITS = 0x2 | 0x4  # get_throttled: frequency capped, throttled
SINCE_SHIFT = 16


class Board:
    """`now_s` is how far the board has got; everything that runs advances it."""

    def __init__(self, kind: DeviceType, seed: int, settings: Settings) -> None:
        self.kind = kind
        self.now_s = 0.0
        self.disturbances = Disturbances(seed, settings)
        self.scatter = Scatter(seed, settings)
        self.throttled_bits = 0
        self.load_1m = 0.0
        self._leaks = settings.drift
        self._ambient_c = settings.ambient_c
        thermal, idle_w = kind.thermal, kind.power.idle_w
        self._chip_c = thermal.chip_c_per_w * idle_w  # above the board
        self._board_c = thermal.board_c_per_w * idle_w  # above the air
        self._rest_c = REFERENCE_C + self._chip_c + self._board_c
        self.supply = BoardSupply(kind.power, self.disturbances, self._leakage_w())

    @property
    def temp_c(self) -> float:
        return self._ambient_c + self._board_c + self._chip_c

    @property
    def throttled(self) -> bool:
        return bool(self.throttled_bits & NOW_BITS)

    @property
    def frequency_hz(self) -> float:
        return self.kind.thermal.throttled_hz if self.throttled else self.kind.frequency_hz

    def slowdown(self) -> float:
        """Of everything at this moment: drift of the speed, and the clock when it is too hot."""
        clock = self.kind.frequency_hz / self.frequency_hz
        return self.disturbances.slowdown(self.now_s) * float(clock**SLOWS_WITH_CLOCK)

    def bursts(self, duration_s: float) -> list[Burst]:
        """Other processes from now on, for so long."""
        return self.disturbances.bursts(self.now_s, self.now_s + duration_s)

    def run(self, duration_s: float, load_w: float, threads: int) -> None:
        """Draw load_w above idle (at the nominal clock) on `threads` cores for duration_s; 0 threads: rest."""
        slices = min(MAX_SLICES, max(1, math.ceil(duration_s / SLICE_S)))
        free = 1 - 0.9 * min(threads / self.kind.cores, 1.0)
        for _ in range(slices):
            drawn_w = load_w * (self.frequency_hz / self.kind.frequency_hz) ** DRAWS_WITH_CLOCK
            started_s, self.now_s = self.now_s, self.now_s + duration_s / slices
            self._warm(self.now_s - started_s, drawn_w, threads)
            self.supply.append(started_s, self.now_s, drawn_w, free, self._leakage_w())

    def rest_until(self, time_s: float) -> None:
        if time_s > self.now_s:
            self.run(time_s - self.now_s, 0.0, 0)

    def _warm(self, duration_s: float, drawn_w: float, threads: int) -> None:
        thermal = self.kind.thermal
        power_w = self.kind.power.idle_w + drawn_w
        chip, board = math.exp(-duration_s / thermal.chip_s), math.exp(-duration_s / thermal.board_s)
        self._chip_c = chip * self._chip_c + (1 - chip) * thermal.chip_c_per_w * power_w
        self._board_c = board * self._board_c + (1 - board) * thermal.board_c_per_w * power_w
        average = math.exp(-duration_s / LOAD_S)
        self.load_1m = average * self.load_1m + (1 - average) * threads
        if self.temp_c >= thermal.throttle_c:
            self.throttled_bits |= NOW_BITS | NOW_BITS << SINCE_SHIFT
        elif self.temp_c <= thermal.release_c:
            self.throttled_bits &= ~NOW_BITS

    def _leakage_w(self) -> float:
        return self.kind.power.leakage_w_per_c * (self.temp_c - self._rest_c) if self._leaks else 0.0
