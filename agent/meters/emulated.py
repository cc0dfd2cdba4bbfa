"""An emulated meter in a process of its own, whose current follows the CPU time of another process.

Configuration to paste (PID: the process to follow; without one the board is idle)::

    edgelut-agent run --meter "emulated:PID?rate_hz=50"

Options: `rate_hz` (50), `kind` (um25c: any kind of `edgelut-agent emulate-meter`). It is read over a pseudo-terminal
like a real meter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent.meters.base import Clock, Decoder, Meter
from agent.meters.spec import MeterSpec
from protos.errors import BadInputError, unknown
from protos.types import MeterInfo, MeterSamples

if TYPE_CHECKING:
    from agent.emulator.meter import EmulatedMeterProcess


class EmulatedMeter:
    """The emulator's process and the driver that reads it; both end with `close`."""

    def __init__(self, process: EmulatedMeterProcess, meter: Meter) -> None:
        self.process = process
        self._meter = meter

    @property
    def info(self) -> MeterInfo:
        return self._meter.info

    def start(self) -> None:
        self._meter.start()

    def stop(self) -> None:
        self._meter.stop()

    def take(self) -> tuple[MeterSamples, tuple[str, ...]]:
        return self._meter.take()

    def follow(self, pid: int) -> None:
        """Follow another process from now on."""
        self.process.follow(pid)

    def close(self) -> None:
        self._meter.close()
        self.process.close()


def decoder(kind: str, options: Mapping[str, str]) -> Decoder:
    MeterSpec(kind, "", options).only("kind")
    from agent.meters import decoder as decoder_of

    return decoder_of(options.get("kind", "um25c"))


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    from agent.emulator.meter import spawn
    from agent.emulator.meters import protocols
    from agent.meters import open_meter as open_any

    spec.only("rate_hz", "kind")
    if spec.port and not spec.port.isdecimal():
        raise BadInputError(f"meter {spec}: {spec.port!r} is not the number of a process; write emulated:PID.")
    kind = spec.options.get("kind", "um25c")
    if kind not in protocols():
        raise unknown("kind of emulated meter", kind, protocols())
    process = spawn(kind, int(spec.port or 0), spec.number("rate_hz", 50.0, 0.1, 1000.0))
    try:
        return EmulatedMeter(process, open_any(process.spec, clock))
    except BadInputError:
        process.close()
        raise
