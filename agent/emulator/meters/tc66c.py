"""TC66C as it answers on the line."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from agent.meters.base import Reading
from agent.meters.tc66c import CIPHER, REQUEST, crc16


def encode(reading: Reading, serial: int = 12345, firmware: str = "1.16", runs: int = 7) -> bytes:
    """The 192 encrypted bytes for a reading; the counters stand in group 0."""
    packets = [bytearray(64) for _ in range(3)]
    for number, packet in enumerate(packets, 1):
        packet[:4] = f"pac{number}".encode()
    resistance = min(99999, round(10 * reading.voltage_v / reading.current_a)) if reading.current_a > 0 else 99999
    struct.pack_into("<4s4sI", packets[0], 4, b"TC66", firmware.encode(), serial)
    values = (round(reading.voltage_v * 1e4), round(reading.current_a * 1e5), round(reading.power_w * 1e4))
    struct.pack_into("<IIII", packets[0], 44, runs, *values)
    charge, energy = round((reading.charge_c or 0.0) / 3.6), round((reading.energy_j or 0.0) / 3.6)
    struct.pack_into("<III", packets[1], 4, resistance, charge, energy)
    temp_c = round(reading.temp_c or 0.0)
    struct.pack_into("<IIII", packets[1], 24, int(temp_c < 0), abs(temp_c), 285, 284)
    for packet in packets:
        struct.pack_into("<I", packet, 60, crc16(bytes(packet[:60])))
    return CIPHER.encryptor().update(b"".join(packets))


class EmulatedMeter:
    """Answers every `getva` with a reply, and `query` with `firm`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._heard = b""

    def receive(self, data: bytes, now: Callable[[], Reading]) -> bytes:
        self._heard += data
        reply = b""
        while len(self._heard) >= len(REQUEST):
            word, self._heard = self._heard[: len(REQUEST)], self._heard[len(REQUEST) :]
            if word == REQUEST:
                reply += encode(now())
            elif word == b"query":
                reply += b"firm"
            else:  # not a command: look for one a byte later
                self._heard = word[1:] + self._heard
        return reply

    def stream(self, readings: Sequence[Reading]) -> bytes:  # noqa: ARG002 - it only answers
        return b""
