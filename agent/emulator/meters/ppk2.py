"""PPK2: calibration text on request, then 100,000 samples a second between start and stop."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from agent.meters.base import Reading
from agent.meters.ppk2 import AMPERE, METADATA, POWER_ON, REGULATOR, SOURCE, START, STOP
from agent.meters.ppk2_samples import ADC_VOLTS, SAMPLE_HZ, Calibration

RANGE_LIMITS_A = (50e-6, 500e-6, 5e-3, 80e-3)  # above the last one range 4 measures
ADC_MAX = 0x3FFF
CALIBRATION = Calibration(calibrated=True, hardware="10604")
_LENGTHS = {METADATA[0]: 1, START[0]: 1, STOP[0]: 1, AMPERE[0]: 2, SOURCE[0]: 2, POWER_ON[0]: 2, REGULATOR[0]: 3}


def metadata() -> bytes:
    lines = ["Calibrated: 1"]
    for name in ("r", "gs", "gi", "o", "s", "i", "ug"):
        lines += [f"{name.upper()}{index}: {value:.8f}" for index, value in enumerate(getattr(CALIBRATION, name))]
    return "\n".join([*lines, "VDD: 5000", f"HW: {CALIBRATION.hardware}", "mode: 1", "IA: 55", "END\n"]).encode()


def encode(current_a: float, first: int, count: int) -> bytes:
    """`count` samples of one current, counted from `first`; their mean is exact although the ADC is coarse."""
    measured = sum(current_a > limit for limit in RANGE_LIMITS_A)
    exact = current_a * CALIBRATION.r[measured] / ADC_VOLTS / 4
    low = min(ADC_MAX, int(exact))
    lower = count - round(count * (exact - low)) if low < ADC_MAX else count
    return _level(low, measured, first, lower) + _level(low + 1, measured, first + lower, count - lower)


def _level(adc: int, measured: int, first: int, count: int) -> bytes:
    """`count` samples of one value: they repeat with their counter."""
    turn = struct.pack("<64I", *(adc | measured << 14 | (first + k & 63) << 18 for k in range(64)))
    return turn * (count // 64) + turn[: 4 * (count % 64)]


class EmulatedMeter:
    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._heard = bytearray()
        self._streaming = False
        self._count = 0
        self._until_s: float | None = None  # device time up to which samples were sent

    def receive(self, data: bytes, now: Callable[[], Reading]) -> bytes:  # noqa: ARG002 - samples come by themselves
        self._heard += data
        reply = b""
        while self._heard and len(self._heard) >= (size := _LENGTHS.get(self._heard[0], 1)):
            command = self._heard[:1]
            del self._heard[:size]
            if command == METADATA:
                reply += metadata()
            elif command in (START, STOP):
                self._streaming = command == START
                self._until_s = None
        return reply

    def stream(self, readings: Sequence[Reading]) -> bytes:
        if not self._streaming:
            return b""
        said = b""
        for reading in readings:
            time_s = reading.device_time_s or 0.0
            if self._until_s is not None:
                count = round((time_s - self._until_s) * SAMPLE_HZ)
                said += encode(reading.current_a, self._count, count)
                self._count += count
            self._until_s = time_s
        return said
