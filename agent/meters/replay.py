"""A recorded trace, played again as if a meter said it now.

Configuration to paste (a file of `edgelut-agent monitor`; or any text that the `csv` meter reads, `columns` as there)::

    edgelut-agent run --meter replay:trace.csv
    edgelut-agent run --meter "replay:scope.csv?columns=t_s,V,A,W"

Options: `columns` (t_s,V,A; those of a monitor's file are known, and what it marks as repeated is left out), `speed`
(1), `loop` (no). The trace begins when sampling starts; each start begins it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.meters.base import Clock, Meter, Reading
from agent.meters.csv import CsvDecoder, parse_columns
from agent.meters.sampling import Freshness, SampleBuffer, SamplingMeter
from agent.meters.spec import MeterSpec
from protos.errors import BadInputError
from protos.types import MeterInfo

DEFAULT_COLUMNS = "t_s,V,A"
MONITOR_HEADER = b"t_s,voltage_v,current_a,power_w,fresh,temp_c\n"
MONITOR_COLUMNS = "t_s,V,A,W,_,_"
TICK_S = 0.02


class ReplayMeter(SamplingMeter):
    """Samples at the trace's own times, counted from `start`."""

    def __init__(self, info: MeterInfo, clock: Clock, readings: list[Reading], speed: float, loop: bool) -> None:
        super().__init__(info, clock, SampleBuffer(Freshness(0.0, 0.0)))
        self._readings = readings
        self._speed = speed
        self._loop = loop

    def _run(self) -> None:
        times_s = [reading.device_time_s or 0.0 for reading in self._readings]
        length_s = times_s[-1] - times_s[0] + (times_s[-1] - times_s[0]) / (len(times_s) - 1)
        began_ns = self.clock.now_ns()
        at = 0
        while not self._stopping.is_set():
            passed_s = (self.clock.now_ns() - began_ns) * 1e-9 * self._speed
            while (due_s := times_s[at % len(times_s)] - times_s[0] + at // len(times_s) * length_s) <= passed_s:
                self.buffer.add(began_ns + round(due_s / self._speed * 1e9), self._readings[at % len(times_s)])
                at += 1
                if at == len(times_s) and not self._loop:
                    self.buffer.lose("the recorded trace has ended")
                    return
            self._stopping.wait(TICK_S)

    def _release(self) -> None:
        return  # nothing is held


def decoder(kind: str, options: Mapping[str, str]) -> CsvDecoder:
    MeterSpec(kind, "", options).only("columns")
    return CsvDecoder(options.get("columns", DEFAULT_COLUMNS))


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    spec.only("columns", "speed", "loop")
    data, columns = _trace(spec)
    if not any(column.quantity == "time_s" for column in parse_columns(columns)):
        raise BadInputError(f"meter {spec}: columns={columns} has no time; a trace needs one.")
    source = CsvDecoder(columns)
    readings = source.feed(data + b"\n")
    if len(readings) < 2:
        reasons = ", ".join(f"{times} × {reason}" for reason, times in source.rejected.most_common(3)) or "it is empty"
        raise BadInputError(f"meter {spec}: the trace has fewer than two samples ({reasons}).")
    first_s, last_s = readings[0].device_time_s or 0.0, readings[-1].device_time_s or 0.0
    speed = spec.number("speed", 1.0, 0.01, 1000.0)
    rate_hz = (len(readings) - 1) / (last_s - first_s) * speed
    # A recorded trace is no measurement of what runs now: it counts as emulated.
    info = MeterInfo("replay", spec.port, "replay", rate_hz=rate_hz, emulated=True)
    return ReplayMeter(info, clock, readings, speed, spec.flag("loop", False))


def _trace(spec: MeterSpec) -> tuple[bytes, str]:
    """The lines of the file and their columns."""
    try:
        data = Path(spec.port).read_bytes()
    except OSError as error:
        raise BadInputError(f"meter {spec}: the trace cannot be read: {error}.") from error
    if "columns" in spec.options or not data.startswith(MONITOR_HEADER):
        return data, spec.options.get("columns", DEFAULT_COLUMNS)
    lines = data.removeprefix(MONITOR_HEADER).splitlines(keepends=True)
    return b"".join(row for row in lines if row.split(b",")[4:5] != [b"0"]), MONITOR_COLUMNS
