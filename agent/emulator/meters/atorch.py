"""An ATORCH USB meter (UD18) that pushes a report for every new value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.meters.atorch import HEADER, REPORT_BYTES, checksum
from agent.meters.base import Reading


def encode(reading: Reading) -> bytes:
    """A USB report, 36 bytes."""
    frame = bytearray(REPORT_BYTES)
    frame[:4] = HEADER + b"\x01\x03"
    seconds = int(reading.device_time_s or 0.0)
    for at, size, value in (
        (4, 3, round(reading.voltage_v * 100)),
        (7, 3, round(reading.current_a * 100)),
        (10, 3, round((reading.charge_c or 0.0) / 3.6)),
        (13, 4, round((reading.energy_j or 0.0) / 36.0)),
        (21, 2, round(reading.temp_c or 0.0)),
        (23, 2, seconds // 3600 % 65536),
    ):
        frame[at : at + size] = value.to_bytes(size, "big")
    frame[25:28] = bytes((seconds // 60 % 60, seconds % 60, 0x3C))
    frame[-1] = checksum(bytes(frame))
    return bytes(frame)


class EmulatedMeter:
    def __init__(self, kind: str) -> None:
        self._kind = kind

    def receive(self, data: bytes, now: Callable[[], Reading]) -> bytes:  # noqa: ARG002 - it only pushes
        return b""

    def stream(self, readings: Sequence[Reading]) -> bytes:
        return b"".join(map(encode, readings))
