"""From readings to samples: host time, freshness, limits, losses, and the thread that collects them."""

from __future__ import annotations

import math
import statistics
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from dataclasses import dataclass, replace

from agent.meters.base import Clock, Reading
from protos.types import MeterInfo, MeterSamples

RATE_CHANGES = 32  # changes of value that are enough to say how fast a meter really is
FAR = 20.0  # times a meter's range: no load, but a wrong unit


@dataclass(frozen=True)
class Limits:
    """What a meter can measure; a value beyond is kept and said."""

    voltage_v: float = float("inf")
    current_a: float = float("inf")


def far_beyond(reading: Reading, limits: Limits) -> str:
    """The value in words when it is so far beyond the range that its unit must be wrong; empty otherwise."""
    if abs(reading.current_a) > FAR * limits.current_a:
        return f"{reading.current_a:g} A, far beyond the {limits.current_a:g} A of this meter"
    if abs(reading.voltage_v) > FAR * limits.voltage_v:
        return f"{reading.voltage_v:g} V, far beyond the {limits.voltage_v:g} V of this meter"
    return ""


class Freshness:
    """Which readings are new values of the meter: a repeat within one update period is stale, a later one is genuine.

    slack_s forgives the jitter of a reader that asks about as fast as the meter updates.
    """

    def __init__(self, update_s: float, slack_s: float) -> None:
        self._hold_ns = max(0, round((update_s - slack_s) * 1e9))
        self._value: tuple[float, float, float] | None = None
        self._fresh_ns = 0
        self._changed_ns = 0
        self._gaps_ns: deque[int] = deque(maxlen=4 * RATE_CHANGES)

    def is_fresh(self, t_ns: int, voltage_v: float, current_a: float, power_w: float) -> bool:
        value = (voltage_v, current_a, power_w)
        changed = value != self._value or not self._hold_ns  # without a hold all are new
        if changed:
            if self._value is not None:
                self._gaps_ns.append(t_ns - self._changed_ns)
            self._value, self._changed_ns = value, t_ns
        fresh = changed or t_ns - self._fresh_ns >= self._hold_ns
        if fresh:
            self._fresh_ns = t_ns
        return fresh

    @property
    def found_rate_hz(self) -> float | None:
        """New values a second, as seen; None before enough of them came."""
        if len(self._gaps_ns) < RATE_CHANGES:
            return None
        # Equal values hide updates of a meter that is polled, hence the median there.
        gap_ns = statistics.median(self._gaps_ns) if self._hold_ns else statistics.fmean(self._gaps_ns)
        return float(f"{1e9 / gap_ns:.2g}") if gap_ns > 0 else None


class DeviceTime:
    """Maps a meter's own clock to host time.

    The shortest transfer of the last `WINDOW_S` to twice as long marks the offset: two crystals differ, and a meter
    may lose count of samples. The residual (how much later than expected a sample came) is the transfer's jitter.
    """

    WINDOW_S = 10.0
    JUMP_S = 2.0  # a sample that comes so much too early means that the meter's clock was set

    def __init__(self) -> None:
        self._before_s = self._now_s = math.inf  # least offset of the last window and of this one
        self._last_s = -math.inf  # newest device time
        self._window_end_s = -math.inf  # in host time
        self.residual_s = 0.0
        self.jumps = 0

    def observe(self, device_s: float, arrival_ns: int) -> None:
        """A sample of this device time came now; of several that came together the newest counts most.

        One that comes late was held up on its way, however long; a clock was set or restarted when it goes back, or
        when a sample comes before its time.
        """
        arrival_s = arrival_ns * 1e-9
        offset_s = arrival_s - device_s
        known_s = min(self._before_s, self._now_s)
        back = device_s < self._last_s
        self._last_s = device_s
        if math.isfinite(known_s) and (back or offset_s < known_s - self.JUMP_S):
            self.jumps += 1
            self._before_s = self._now_s = math.inf
        if arrival_s >= self._window_end_s:
            self._before_s, self._now_s = self._now_s, math.inf
            self._window_end_s = arrival_s + self.WINDOW_S
        self._now_s = min(self._now_s, offset_s)
        self.residual_s = offset_s - min(self._before_s, self._now_s)

    def host_ns(self, device_s: float) -> int:
        """Host time of a device time; one must have been observed."""
        return round((device_s + min(self._before_s, self._now_s)) * 1e9)


class SampleBuffer:
    """Columns of samples between two calls of `take`, filled by one thread and taken by another."""

    def __init__(self, freshness: Freshness, limits: Limits | None = None) -> None:
        self.freshness = freshness
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._rows: list[tuple[int, float, float, float, bool, float | None]] = []
        self._losses: Counter[str] = Counter()
        self._last_ns = 0

    def add(self, t_ns: int, reading: Reading) -> None:
        voltage_v, current_a, power_w = reading.voltage_v, reading.current_a, reading.power_w
        t_ns = max(t_ns, self._last_ns)  # mapped device time may step back by a jitter
        self._last_ns = t_ns
        fresh = self.freshness.is_fresh(t_ns, voltage_v, current_a, power_w)
        with self._lock:
            self._rows.append((t_ns, voltage_v, current_a, power_w, fresh, reading.temp_c))
        if abs(current_a) > self._limits.current_a:
            self.lose(f"the current was beyond the meter's range of {self._limits.current_a:g} A")
        if abs(voltage_v) > self._limits.voltage_v:
            self.lose(f"the voltage was beyond the meter's range of {self._limits.voltage_v:g} V")
        if current_a < -0.01 and power_w < 0:
            self.lose("the current was negative: the meter is wired the wrong way round")

    def lose(self, what: str, times: int = 1) -> None:
        with self._lock:
            self._losses[what] += times

    def take(self) -> tuple[MeterSamples, tuple[str, ...]]:
        with self._lock:
            rows, self._rows = self._rows, []
            losses, self._losses = self._losses, Counter()
        words = tuple(what if times == 1 else f"{times} × {what}" for what, times in sorted(losses.items()))
        if not rows:
            return MeterSamples(), words
        t_ns, voltage_v, current_a, power_w, fresh, temps = zip(*rows, strict=True)
        temp_c = () if None in temps else temps
        return MeterSamples(t_ns, voltage_v, current_a, power_w, fresh, temp_c), words


class SamplingMeter(ABC):
    """A meter read by its own thread between `start` and `stop`."""

    def __init__(self, info: MeterInfo, clock: Clock, buffer: SampleBuffer) -> None:
        self._info = info
        self.clock = clock
        self.buffer = buffer
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def info(self) -> MeterInfo:
        found = self.buffer.freshness.found_rate_hz
        return replace(self._info, rate_hz=found) if found else self._info

    @abstractmethod
    def _run(self) -> None:
        """Sample until `_stopping` is set."""

    @abstractmethod
    def _release(self) -> None:
        """Give the port back."""

    def start(self) -> None:
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._guarded, name=f"meter-{self._info.kind}", daemon=True)
            self._thread.start()

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as error:  # a dead thread would look like a silent meter
            self.buffer.lose(f"the sampling ended by an error: {type(error).__name__}: {error}")
            raise

    def stop(self) -> None:
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def take(self) -> tuple[MeterSamples, tuple[str, ...]]:
        return self.buffer.take()

    def close(self) -> None:
        self.stop()
        self._release()
