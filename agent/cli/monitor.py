"""`edgelut-agent monitor`: what a meter says, live."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from agent.cli.opened import add_losses, opened
from agent.cli.output import SampleFile
from agent.meters import Meter
from protos.types import MeterInfo, MeterSamples

TICK_S = 0.2
SAY_S = 1.0  # between two lines where there is no terminal
WINDOW_S = 60.0  # of the plot and of the rate
GAP_S = 2.0  # between two values: beyond it the energy in between is not known


@dataclass
class Spread:
    """Mean, standard deviation (Welford 1962), least and greatest of what was added."""

    count: int = 0
    mean: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf
    _squares: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        away = value - self.mean
        self.mean += away / self.count
        self._squares += away * (value - self.mean)
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)

    @property
    def sd(self) -> float | None:
        return math.sqrt(self._squares / (self.count - 1)) if self.count > 1 else None

    def document(self) -> dict[str, float | None] | None:
        if not self.count:
            return None
        return {"mean": self.mean, "sd": self.sd, "min": self.least, "max": self.greatest}


@dataclass
class Watch:
    """What has been seen: whole-run statistics of the new values, and the last WINDOW_S for the plot."""

    info: MeterInfo
    start_ns: int
    voltage_v: Spread = field(default_factory=Spread)
    current_a: Spread = field(default_factory=Spread)
    power_w: Spread = field(default_factory=Spread)
    samples: int = 0
    energy_j: float = 0.0
    losses: Counter[str] = field(default_factory=Counter)
    recent: deque[tuple[float, float]] = field(default_factory=deque)  # (s since the start, W) of new values
    last: tuple[float, float, float] | None = None  # V, A, W
    now_s: float = 0.0

    def add(self, samples: MeterSamples, losses: tuple[str, ...], now_ns: int) -> None:
        self.samples += len(samples.t_ns)
        self.now_s = (now_ns - self.start_ns) * 1e-9
        add_losses(self.losses, losses)
        columns = zip(samples.t_ns, samples.voltage_v, samples.current_a, samples.power_w, samples.fresh, strict=True)
        for t_ns, voltage_v, current_a, power_w, fresh in columns:
            self.last = voltage_v, current_a, power_w
            if fresh:
                self._new((t_ns - self.start_ns) * 1e-9, voltage_v, current_a, power_w)
        while self.recent and self.recent[0][0] < self.now_s - WINDOW_S:
            self.recent.popleft()

    def _new(self, t_s: float, voltage_v: float, current_a: float, power_w: float) -> None:
        if self.recent and t_s - self.recent[-1][0] <= max(GAP_S, 3 / max(self.info.rate_hz, 1e-3)):
            self.energy_j += (t_s - self.recent[-1][0]) * (power_w + self.recent[-1][1]) / 2
        for spread, value in ((self.voltage_v, voltage_v), (self.current_a, current_a), (self.power_w, power_w)):
            spread.add(value)
        self.recent.append((t_s, power_w))

    @property
    def fresh_rate_hz(self) -> float | None:
        """New values a second within the window."""
        if len(self.recent) < 2:
            return None
        passed_s = self.recent[-1][0] - self.recent[0][0]
        return (len(self.recent) - 1) / passed_s if passed_s > 0 else None

    @property
    def silent_s(self) -> float:
        """Since the last new value."""
        return self.now_s - (self.recent[-1][0] if self.recent else 0.0)

    def document(self, output: SampleFile | None) -> dict[str, object]:
        rate_hz = self.power_w.count / self.now_s if self.now_s > 0 else None
        return {
            "meter": asdict(self.info),
            "duration_s": self.now_s,
            "samples": self.samples,
            "fresh": self.power_w.count,
            "fresh_rate_hz": rate_hz,
            "voltage_v": self.voltage_v.document(),
            "current_a": self.current_a.document(),
            "power_w": self.power_w.document(),
            "energy_j": self.energy_j if self.power_w.count > 1 else None,
            "losses": dict(self.losses),
            "output": None if output is None else {"path": str(output.path), "rows": output.rows},
        }


def main(options: argparse.Namespace) -> int:
    """Exit status 0; 1 when no value came at all."""
    with opened(options.meter) as meter, _stopped_by_signal() as stopping:
        start_ns = time.perf_counter_ns()
        output = SampleFile(options.output, start_ns) if options.output else None
        watch = Watch(meter.info, start_ns)
        try:
            with _screen(options.json) as show:
                _follow(meter, watch, output, stopping, options.duration, show)
        finally:
            if output is not None:
                output.close()
    if options.json:
        print(json.dumps(watch.document(output), indent=2))
    else:
        _conclude(watch, output)
    return 0 if watch.power_w.count else 1


def _follow(
    meter: Meter,
    watch: Watch,
    output: SampleFile | None,
    stopping: threading.Event,
    duration_s: float | None,
    show: Show,
) -> None:
    meter.start()
    end_ns = math.inf if duration_s is None else watch.start_ns + duration_s * 1e9
    ended = False
    while not ended:
        left_s = (end_ns - time.perf_counter_ns()) * 1e-9
        ended = stopping.wait(min(TICK_S, max(left_s, 0.0))) or left_s <= TICK_S
        if ended:
            meter.stop()  # the last values are in the buffer then
        samples, losses = meter.take()
        watch.info = meter.info
        watch.add(samples, losses, time.perf_counter_ns())
        if output is not None:
            output.add(samples)
        show(watch)


@contextlib.contextmanager
def _stopped_by_signal() -> Iterator[threading.Event]:
    """Set by Ctrl-C and SIGTERM, so that what came is written to its end."""
    stopping = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- what is shown --------------------------------------------------------------------------------------------------


class Show:
    """Shows nothing."""

    def __call__(self, watch: Watch) -> None:
        """Called after every look at the meter."""


class Lines(Show):
    """A line every SAY_S, for pipes and logs."""

    def __init__(self) -> None:
        self._said_s = -math.inf

    def __call__(self, watch: Watch) -> None:
        if watch.now_s - self._said_s < SAY_S:
            return
        self._said_s = watch.now_s
        print(line(watch), flush=True)


def line(watch: Watch) -> str:
    if watch.last is None:
        return f"{watch.now_s:8.1f} s  no value yet"
    voltage_v, current_a, power_w = watch.last
    rate = "" if watch.fresh_rate_hz is None else f"  {watch.fresh_rate_hz:.3g} new values/s"
    lost = f"  {sum(watch.losses.values())} lost" if watch.losses else ""
    return f"{watch.now_s:8.1f} s  {voltage_v:7.4f} V  {current_a:8.5f} A  {power_w:8.4f} W{rate}{lost}"


@contextlib.contextmanager
def _screen(as_json: bool) -> Iterator[Show]:
    if as_json:
        yield Show()
    elif not sys.stdout.isatty():
        yield Lines()
    else:
        from agent.cli.screen import live

        with live() as show:
            yield show


def _conclude(watch: Watch, output: SampleFile | None) -> None:
    power = watch.power_w
    print(f"{power.count} new values in {watch.now_s:.1f} s", end="")
    if power.count:
        spread = "" if power.sd is None else f" ± {power.sd:.4f}"
        print(f": {power.mean:.4f}{spread} W, {watch.current_a.mean:.5f} A, {watch.voltage_v.mean:.4f} V", end="")
        print(f"; {watch.energy_j:.2f} J", end="")
    print()
    for words, times in watch.losses.most_common():
        print(f"  {times} × {words}")
    if output is not None:
        print(f"{output.rows} samples in {output.path}")
