"""ODROID SmartPower3: a supply that measures what it delivers; lines of text over USB, 200 a second at most.

Configuration to paste (switch logging on at the device; 200 Hz needs 921600 baud there)::

    edgelut-agent run --meter "smartpower3:/dev/ttyUSB0?baud=921600&channel=0"

Options: `baud` (115200), `channel` (0 or 1). Nothing is ever written to the port: one byte 03 would open the device's
menu and halt the logging. Sample times are the device's milliseconds, which wrap after 49.7 days.

Line: 79 characters, fixed width, ended by CRLF or LF, with two checksums over the first 74 (hardkernel/smartpower3).
The current is a mean of the newer half of the interval, the voltage its last value, and W the firmware's product of
the two: a line whose W is another is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import xor

from agent.meters.base import OUTSIDE, Clock, FrameClock, LineDecoder, Meter, Reading
from agent.meters.sampling import Limits
from agent.meters.serial_meter import SerialDriver, open_serial
from agent.meters.spec import MeterSpec

LINE_CHARS = 79
CHECKED_CHARS = 74
SLACK_W, REL_SLACK = 0.03, 0.05
WRAP = 1 << 32  # of the device's milliseconds
_LINE = re.compile(
    r"(\d{10}),\d{5},\d{4},\d{5},\d,(\d{5}),(\d{4}),(\d{5}),\d,[0-9a-f]{2},"
    r"(\d{5}),(\d{4}),(\d{5}),\d,[0-9a-f]{2},([0-9a-f]{2}),([0-9a-f]{2})"
)


def checksums(text: str) -> tuple[int, int]:
    """(two's complement of the byte sum, XOR) of a line's first part."""
    data = text.encode("ascii")
    return -sum(data) & 0xFF, reduce(xor, data, 0)


class SmartPower3Decoder(LineDecoder):
    """Lines of one output; what stands before a good line (a lost line end) is dropped."""

    encoding = "latin-1"  # any byte may stand before a good line

    def __init__(self, channel: int = 0) -> None:
        super().__init__()
        self._channel = channel
        self._clock = FrameClock(wrap_s=WRAP / 1000, strict=False)

    def _line(self, line: str) -> Sequence[Reading] | str:
        if not line:
            return ()
        if len(line) > LINE_CHARS:
            self.rejected[OUTSIDE] += len(line) - LINE_CHARS
            line = line[-LINE_CHARS:]
        match = _LINE.fullmatch(line)
        if match is None:
            return "line of another form"
        if checksums(line[:CHECKED_CHARS]) != (int(match[8], 16), int(match[9], 16)):
            return "line with a wrong checksum"
        time_s = self._clock.follow(int(match[1]) / 1000, line)
        milli = match.groups()[4:7] if self._channel else match.groups()[1:4]
        volts, amps, watts = (int(text) / 1000 for text in milli)
        # A value may become new while the firmware takes one after the other; beyond that it is another quantity.
        if abs(volts * amps - watts) > SLACK_W + REL_SLACK * watts:
            return "line whose V · I disagrees with W"
        return (Reading(volts, amps, watts, device_time_s=time_s, channel=str(self._channel)),)


def decoder(kind: str, options: Mapping[str, str]) -> SmartPower3Decoder:
    MeterSpec(kind, "", options).only("channel")
    return SmartPower3Decoder(round(MeterSpec(kind, "", options).number("channel", 0, 0, 1)))


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    spec.only("baud", "channel", "emulated", "first_reply_s")
    channel = round(spec.number("channel", 0, 0, 1))
    driver = SerialDriver(
        kind=spec.kind,
        make_decoder=lambda: SmartPower3Decoder(channel),
        baud=round(spec.number("baud", 115200, 9600, 921600)),
        rate_hz=200.0,
        update_s=0.0,
        limits=Limits(20.0, 3.0),
        first_reply_s=spec.number("first_reply_s", 3.0, 0.1, 120.0),
        reply_s=2.0,
    )
    return open_serial(driver, spec, clock)
