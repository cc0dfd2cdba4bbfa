"""What a real meter makes of the true voltage and current: lag, delay, latching, noise, steps."""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, replace

from agent.emulator.supply import Supply
from agent.meters.base import Reading


@dataclass(frozen=True)
class MeterSettings:
    """How the emulated meter falsifies the truth. Defaults resemble a UM25C.

    Two poles in series make a lag that is not first order; what the meter shows is latched every update_s, at a phase
    of its own, and then quantised. Zero switches an effect off.
    """

    update_s: float = 0.5  # period of new values
    tau_s: float = 0.4  # first pole of the lag
    tau2_s: float = 0.1  # second pole
    delay_s: float = 0.05  # dead time before the filter
    noise_a: float = 0.005  # standard deviation of a new value
    noise_v: float = 0.002
    offset_a: float = 0.0
    voltage_step_v: float = 0.001
    current_step_a: float = 0.0001
    power_step_w: float = 0.001
    temp_c: float = 27.0
    step_s: float = 0.005  # of the simulation; at most update_s
    seed: int = 0

    @classmethod
    def at_rate(cls, rate_hz: float, **changes: float) -> MeterSettings:
        """A meter with new values at rate_hz whose lag and delay shrink with its period."""
        scale = 1 / (rate_hz * cls.update_s)
        scaled = cls(
            update_s=1 / rate_hz,
            tau_s=cls.tau_s * scale,
            tau2_s=cls.tau2_s * scale,
            delay_s=cls.delay_s * scale,
            step_s=min(cls.step_s, 1 / rate_hz),
        )
        return replace(scaled, **changes)  # type: ignore[arg-type]  # the names are checked by replace

    @property
    def mean_lag_s(self) -> float:
        """How much later than the truth the values are in the mean, without the age of the latched value."""
        return self.tau_s + self.tau2_s + self.delay_s


# A meter that nobody has read for longer is taken up this long ago: its filter settles within that time, a supply keeps
# only so much of its past, and hours of idling need not be simulated. Its counters leave out what lies before.
UNREAD_S = 600.0


def _quantised(value: float, step: float) -> float:
    return round(round(value / step) * step, 9) if step else value


def _share(step_s: float, tau_s: float) -> float:
    """How far a pole moves towards its input within one step."""
    return 1.0 if tau_s <= 0 else 1 - math.exp(-step_s / tau_s)


class MeterModel:
    """The meter's inside, in whole steps of device time; time must not run backwards.

    `update(t)` gives the values that became new up to t; `reading(t)` the one that a poll at t sees.
    """

    def __init__(self, supply: Supply, settings: MeterSettings | None = None) -> None:
        self.supply = supply
        self.settings = settings or MeterSettings()
        self._random = random.Random(self.settings.seed)
        self._steps_per_update = max(1, round(self.settings.update_s / self.settings.step_s))
        self.step_s = self.settings.update_s / self._steps_per_update
        self._until_update = self._random.randint(1, self._steps_per_update)
        self._start_s: float | None = None
        self._steps = 0
        self._late: deque[tuple[float, float]] = deque()
        self._first = (0.0, 0.0)
        self._second = (0.0, 0.0)
        self._charge_c = 0.0
        self._energy_j = 0.0
        self._latest: Reading | None = None

    def reading(self, t_s: float) -> Reading:
        """What a poll at t_s sees."""
        self.update(t_s)
        assert self._latest is not None  # the first update latches a value
        return self._latest

    def update(self, t_s: float) -> list[Reading]:
        """Simulate up to t_s; the new values on the way, each with the meter's own time (seconds since it was
        switched on).
        """
        if self._start_s is None:
            self._switch_on(t_s)
        assert self._start_s is not None
        count = math.floor((t_s - self._start_s) / self.step_s + 1e-6) - self._steps
        if count <= 0:
            return []
        skipped = max(0, count - round(UNREAD_S / self.step_s)) // self._steps_per_update * self._steps_per_update
        self._steps += skipped
        count -= skipped
        begin_s = self._start_s + self._steps * self.step_s
        voltages, currents = self.supply.sample(begin_s, begin_s + count * self.step_s, self.step_s)
        return self._simulate(voltages, currents)

    def _switch_on(self, t_s: float) -> None:
        self._start_s = t_s - self.step_s
        voltage, current = self.supply.sample(self._start_s, t_s, self.step_s)
        self._steps = 1
        steady = (voltage[0], current[0])
        self._first = self._second = steady
        self._late.extend([steady] * round(self.settings.delay_s / self.step_s))
        self._latest = self._latch()

    def _simulate(self, voltages: list[float], currents: list[float]) -> list[Reading]:
        first, second = _share(self.step_s, self.settings.tau_s), _share(self.step_s, self.settings.tau2_s)
        (v1, a1), (v2, a2) = self._first, self._second
        late, new = self._late, []
        for sample in zip(voltages, currents, strict=True):
            late.append(sample)
            volts, amps = late.popleft()
            v1 += first * (volts - v1)
            a1 += first * (amps - a1)
            v2 += second * (v1 - v2)
            a2 += second * (a1 - a2)
            self._steps += 1
            self._charge_c += a2 * self.step_s
            self._energy_j += v2 * a2 * self.step_s
            self._until_update -= 1
            if self._until_update == 0:
                self._until_update = self._steps_per_update
                self._second = (v2, a2)
                self._latest = self._latch()
                new.append(self._latest)
        self._first, self._second = (v1, a1), (v2, a2)
        return new

    def _latch(self) -> Reading:
        settings = self.settings
        voltage_v = self._second[0] + self._random.gauss(0.0, settings.noise_v)
        current_a = self._second[1] + settings.offset_a + self._random.gauss(0.0, settings.noise_a)
        voltage_v, current_a = max(0.0, voltage_v), max(0.0, current_a)
        return Reading(
            _quantised(voltage_v, settings.voltage_step_v),
            _quantised(current_a, settings.current_step_a),
            _quantised(voltage_v * current_a, settings.power_step_w),
            temp_c=settings.temp_c,
            device_time_s=self._steps * self.step_s,
            charge_c=self._charge_c,
            energy_j=self._energy_j,
        )
