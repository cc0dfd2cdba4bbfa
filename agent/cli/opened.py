"""The meter that a command was told to read, and what came from it."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.meters import Meter, open_meter
from agent.meters.emulated import EmulatedMeter
from agent.meters.spec import parse_spec
from protos.types import MeterSamples

EMULATED = "emulated"
_TIMES = re.compile(r"(\d+) × (.*)", re.DOTALL)


class MonotonicClock:
    """CLOCK_MONOTONIC, as everything else on this machine has it."""

    def now_ns(self) -> int:
        return time.perf_counter_ns()


@contextlib.contextmanager
def opened(spec: str, follow_pid: int = 0) -> Iterator[Meter]:
    """The meter of `spec`, closed at the end; an emulated one follows the CPU time of `follow_pid`."""
    parsed = parse_spec(spec)
    if parsed.kind == EMULATED and not parsed.port and follow_pid:
        spec = f"{EMULATED}:{follow_pid}?{spec.partition('?')[2]}"
    meter = open_meter(spec, MonotonicClock())
    try:
        yield meter
    finally:
        meter.close()


def emulator_pids(meter: Meter) -> tuple[int, ...]:
    """The processes that play the meter: no disturbance of the board."""
    return (meter.process.pid,) if isinstance(meter, EmulatedMeter) else ()


@dataclass
class Recording:
    """Samples in the order they came, and what was lost."""

    t_ns: list[int] = field(default_factory=list)
    voltage_v: list[float] = field(default_factory=list)
    current_a: list[float] = field(default_factory=list)
    power_w: list[float] = field(default_factory=list)
    fresh: list[bool] = field(default_factory=list)
    losses: Counter[str] = field(default_factory=Counter)

    def take(self, meter: Meter) -> MeterSamples:
        """Fetch what has come since the last call."""
        samples, losses = meter.take()
        self.t_ns += samples.t_ns
        self.voltage_v += samples.voltage_v
        self.current_a += samples.current_a
        self.power_w += samples.power_w
        self.fresh += samples.fresh
        add_losses(self.losses, losses)
        return samples

    @property
    def times_s(self) -> list[float]:
        return [t_ns * 1e-9 for t_ns in self.t_ns]


def add_losses(total: Counter[str], losses: tuple[str, ...]) -> None:
    """Count the words of `Meter.take`, which begin with their number where it is not one."""
    for words in losses:
        times = _TIMES.fullmatch(words)
        total[times[2] if times else words] += int(times[1]) if times else 1
