"""AVHzY CT-3 as it streams, in the variant with the meter's time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from agent.meters.avhzy import BEGIN, START_COMMAND, frame
from agent.meters.base import Reading


def encode(reading: Reading, sequence: int = 0) -> bytes:
    """One sample frame, 35 bytes."""
    time_us = round((reading.device_time_s or 0.0) * 1e6)
    head = struct.pack("<BBBB", 4, 0, sequence & 0xFF, 0)
    return frame(head + struct.pack("<ff8xQ", reading.voltage_v, reading.current_a, time_us))


class EmulatedMeter:
    """Acknowledges commands and streams between start and stop, at the model's rate whatever period is asked for."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._heard = bytearray()
        self._streaming = False
        self._sequence = 0

    def receive(self, data: bytes, now: Callable[[], Reading]) -> bytes:  # noqa: ARG002 - samples come by themselves
        self._heard += data
        reply = b""
        while len(self._heard) >= 11:
            size = int.from_bytes(self._heard[1:5], "little") + 7
            if self._heard[0] != BEGIN or size > 64:
                del self._heard[0]
                continue
            if len(self._heard) < size:
                break
            command, sequence = self._heard[6], self._heard[7]
            self._streaming = command == START_COMMAND or (self._streaming and command != 0x07)
            reply += frame(bytes((0x01, command, sequence, 0x00)))
            del self._heard[:size]
        return reply

    def stream(self, readings: Sequence[Reading]) -> bytes:
        if not self._streaming:
            return b""
        self._sequence += len(readings)
        return b"".join(encode(reading, self._sequence) for reading in readings)
