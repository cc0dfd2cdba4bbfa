"""UM24C, UM25C and UM34C as they answer on the line."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from agent.meters.base import Reading
from agent.meters.um25c import FRAME_BYTES, MODELS, REQUEST, TAIL, checksum


def encode(reading: Reading, number: int, group: int = 0) -> bytes:
    """The 130-byte frame of the model `number` for a reading; the counters stand in `group`."""
    model = MODELS[number]
    temp_c = round(reading.temp_c or 0.0)
    frame = bytearray(FRAME_BYTES)
    struct.pack_into(
        ">HHHIHHH",
        frame,
        0,
        number,
        round(reading.voltage_v / model.voltage_step_v),
        round(reading.current_a / model.current_step_a),
        round(reading.power_w * 1000),
        temp_c,
        round(temp_c * 1.8 + 32),
        group,
    )
    charge, energy = round((reading.charge_c or 0.0) / 3.6), round((reading.energy_j or 0.0) / 3.6)
    struct.pack_into(">II", frame, 16 + 8 * group, charge, energy)
    struct.pack_into(">HHH", frame, 96, 1, 0, 7)
    resistance_ohm = min(9999.9, reading.voltage_v / reading.current_a) if reading.current_a > 0 else 9999.9
    struct.pack_into(">HIH", frame, 120, 4, round(resistance_ohm * 10), 0)
    frame[128:] = TAIL if model.name != "UM34C" else bytes((0x68, checksum(bytes(frame))))
    return bytes(frame)


class EmulatedMeter:
    """Answers every F0 with a frame; other commands have no reply."""

    def __init__(self, kind: str) -> None:
        self._number = next(number for number, model in MODELS.items() if model.name.lower() == kind)

    def receive(self, data: bytes, now: Callable[[], Reading]) -> bytes:
        return b"".join(encode(now(), self._number) for byte in data if byte == REQUEST[0])

    def stream(self, readings: Sequence[Reading]) -> bytes:  # noqa: ARG002 - it only answers
        return b""
