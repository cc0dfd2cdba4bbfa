"""ODROID SmartPower2: one line of text a second while its output is on.

Configuration to paste (the same lines also come over its network, port 23)::

    edgelut-agent run --meter smartpower2:/dev/ttyUSB0
    edgelut-agent run --meter smartpower2:socket://192.168.4.1:23

Line: `V,A,W,Wh` with three decimals, without a checksum (hardkernel/smartpower2): V · I must agree with W.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from agent.meters.base import Clock, LineDecoder, Meter, Reading
from agent.meters.sampling import Limits
from agent.meters.serial_meter import SerialDriver, open_serial
from agent.meters.spec import MeterSpec

LIMITS = Limits(20.0, 5.0)
_LINE = re.compile(r"(\d{1,2}\.\d{3}),(\d{1,2}\.\d{3}),(\d{1,3}\.\d{3}),(\d{1,6}\.\d{3})")


class SmartPower2Decoder(LineDecoder):
    """Lines of four numbers; the text that the device prints when it starts is skipped."""

    def _line(self, line: str) -> Sequence[Reading] | str:
        match = _LINE.fullmatch(line.strip())
        if match is None:
            return "line of another form"
        voltage_v, current_a, power_w, watt_hours = map(float, match.groups())
        if abs(voltage_v * current_a - power_w) > 0.03 + 0.01 * power_w:
            return "line whose V · I disagrees with W"
        return (Reading(voltage_v, current_a, power_w, energy_j=watt_hours * 3600.0),)


def decoder(kind: str, options: Mapping[str, str]) -> SmartPower2Decoder:
    MeterSpec(kind, "", options).only()
    return SmartPower2Decoder()


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    spec.only("emulated", "first_reply_s")
    driver = SerialDriver(
        kind=spec.kind,
        make_decoder=SmartPower2Decoder,
        baud=115200,
        rate_hz=1.0,
        update_s=0.0,
        limits=LIMITS,
        first_reply_s=spec.number("first_reply_s", 5.0, 0.1, 120.0),
        reply_s=4.0,
    )
    return open_serial(driver, spec, clock)
