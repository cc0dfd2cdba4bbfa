"""SmartPower3 as it logs; the board hangs on output 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.meters.base import Reading
from agent.meters.smartpower3 import WRAP, checksums

INPUT = "15080,0412,06212,0"


def encode(reading: Reading) -> bytes:
    """One line with its end, 81 bytes."""
    time_ms = round((reading.device_time_s or 0.0) * 1000) % WRAP
    milli = (round(reading.voltage_v * 1000), round(reading.current_a * 1000), round(reading.power_w * 1000))
    output = f"{milli[0]:05d},{milli[1]:04d},{milli[2]:05d},1,00"
    text = f"{time_ms:010d},{INPUT},{output},00000,0000,00000,0,00,"
    complement, parity = checksums(text)
    return f"{text}{complement:02x},{parity:02x}\r\n".encode("ascii")


class EmulatedMeter:
    """Logs every new value; it never listens."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def receive(self, data: bytes, now: Callable[[], Reading]) -> bytes:  # noqa: ARG002
        return b""

    def stream(self, readings: Sequence[Reading]) -> bytes:
        return b"".join(map(encode, readings))
