"""A microcontroller with an INA226 that prints `t_ms,V,A`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.meters.base import Reading

HEADER = b"# INA226, 0.1 ohm\r\nt_ms,V,A\r\n"


def encode(reading: Reading) -> bytes:
    time_ms = round((reading.device_time_s or 0.0) * 1000) % (1 << 32)
    return f"{time_ms},{reading.voltage_v:.5f},{reading.current_a:.5f}\r\n".encode()


class EmulatedMeter:
    """Prints a header, then a line for every new value; it never listens."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._begun = False

    def receive(self, data: bytes, now: Callable[[], Reading]) -> bytes:  # noqa: ARG002
        return b""

    def stream(self, readings: Sequence[Reading]) -> bytes:
        header = b"" if self._begun else HEADER
        self._begun = self._begun or bool(readings)
        return header + b"".join(map(encode, readings)) if readings else b""
