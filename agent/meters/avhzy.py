"""AVHzY CT-3 and its relatives: Shizuku YK001 and YK003C, Power-Z KT002, Atorch UT18; streaming over USB.

Configuration to paste::

    edgelut-agent run --meter avhzy:/dev/serial/by-id/usb-...YK003C...

Options: `rate_hz` (100; up to 1000). Current is signed: negative means that the meter is wired the wrong way round.
Sample times are the meter's own microseconds.

Frame: A5, length u32, payload, XOR of the payload, 5A. Public clients disagree about what follows volts and amperes,
so only these two are taken, and the last 8 bytes as microseconds where the payload has 28 (avhzy-monitor). No frame of
a real sample was at hand.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from functools import reduce
from operator import xor

from agent.meters.base import OUTSIDE, Clock, FrameClock, FrameDecoder, Meter, Reading, Verdict
from agent.meters.sampling import Limits
from agent.meters.serial_meter import SerialDriver, open_serial
from agent.meters.spec import MeterSpec

BEGIN, END = 0xA5, 0x5A
TIMED_BYTES = 28  # payload of the sample that ends with the meter's time
LEAST_BYTES = 12  # of a sample: its head, volts and amperes
MAX_BYTES = 64  # no longer payload is known
OVERHEAD_BYTES = 7  # of a frame beside its payload
SAMPLE = b"\x04\x00"
LIMITS = Limits(26.0, 6.0)
START_COMMAND = 0x09


def frame(payload: bytes) -> bytes:
    """The payload as it stands on the line."""
    return b"\xa5" + len(payload).to_bytes(4, "little") + payload + bytes((reduce(xor, payload, 0), END))


STOP = frame(bytes((0x01, 0x07, 0x00, 0x00)))
RESET_TIMER = frame(bytes((0x01, 0x0C, 0x0A, 0x00)))


def start_command(period_ms: int) -> bytes:
    return frame(bytes((0x01, START_COMMAND, 0x0B, 0x00)) + period_ms.to_bytes(4, "little"))


def fault(data: bytes) -> str:
    """Why a whole frame is refused; empty when it is good."""
    if data[-1] != END:
        return "frame without its end"
    return "" if data[-2] == reduce(xor, data[5:-2], 0) else "frame with a wrong checksum"


class AvhzyDecoder(FrameDecoder):
    """Samples out of a stream of frames; frames of other kinds are skipped silently.

    The checksum is weak: it sees neither a lost zero byte together with a wrong length, nor two flips of one bit. So a
    single sample is refused whose length, or whose time, does not follow from the one before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._length = 0  # of the samples so far
        self._last_length = 0
        self._clock = FrameClock()

    def reset(self) -> None:
        super().reset()
        self._clock.reset()

    def _next(self, buffer: bytearray) -> Verdict | None:
        if buffer[0] != BEGIN:
            at = buffer.find(BEGIN)
            return at if at > 0 else len(buffer), (), OUTSIDE
        if len(buffer) < 5:
            return None
        length = int.from_bytes(buffer[1:5], "little")
        if not 4 <= length <= MAX_BYTES:
            return 1, (), OUTSIDE
        size = length + OVERHEAD_BYTES
        if len(buffer) < size:
            return (1, (), OUTSIDE) if length > TIMED_BYTES and self._hides_a_sample(buffer) else None
        reason = fault(bytes(buffer[:size]))
        if reason:
            return 1, (), reason if length <= TIMED_BYTES else OUTSIDE
        payload = bytes(buffer[5 : 5 + length])
        if payload[:2] != SAMPLE or length < LEAST_BYTES:
            return size, (), ""
        return self._sample(payload, size)

    def _hides_a_sample(self, buffer: bytearray) -> bool:
        """Whether what looks like the beginning of a long frame, which may never come, has a good sample behind it."""
        length = self._length or TIMED_BYTES
        at = buffer.find(bytes((BEGIN,)) + length.to_bytes(4, "little") + SAMPLE, 1)
        data = bytes(buffer[at : at + length + OVERHEAD_BYTES])
        return at > 0 and len(data) == length + OVERHEAD_BYTES and not fault(data)

    def _sample(self, payload: bytes, size: int) -> Verdict:
        length, self._last_length = self._last_length, len(payload)
        if self._length and len(payload) not in (self._length, length):
            return 1, (), "sample of another length"
        self._length = len(payload)
        voltage_v, current_a = struct.unpack_from("<ff", payload, 4)
        if not (math.isfinite(voltage_v) and math.isfinite(current_a)):
            return 1, (), "sample that is no number"
        if abs(voltage_v) > 2 * LIMITS.voltage_v or abs(current_a) > 2 * LIMITS.current_a:
            return 1, (), "sample far beyond the meter's range"
        device_time_s = None
        if len(payload) == TIMED_BYTES:
            device_time_s = self._clock.follow(int.from_bytes(payload[20:28], "little") * 1e-6, payload)
            if device_time_s is None:
                return 1, (), "sample whose time does not follow"
        return size, (Reading(voltage_v, current_a, voltage_v * current_a, device_time_s=device_time_s),), ""


def decoder(kind: str, options: Mapping[str, str]) -> AvhzyDecoder:
    MeterSpec(kind, "", options).only()
    return AvhzyDecoder()


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    spec.only("rate_hz", "emulated", "first_reply_s")
    period_ms = max(1, round(1000 / spec.number("rate_hz", 100.0, 1.0, 1000.0)))
    driver = SerialDriver(
        kind=spec.kind,
        make_decoder=AvhzyDecoder,
        baud=115200,
        rate_hz=1000 / period_ms,
        update_s=0.0,
        limits=LIMITS,
        start_commands=(STOP, RESET_TIMER, start_command(period_ms)),
        stop_commands=(STOP,),
        first_reply_s=spec.number("first_reply_s", 3.0, 0.1, 120.0),
        reply_s=1.0,
    )
    return open_serial(driver, spec, clock)
