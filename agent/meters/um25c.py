"""RuiDeng UM24C, UM25C, UM34C and clones (A3-B answers as a UM24C), over Bluetooth or the wired TTL pads.

Configuration to paste (bind the meter once: `sudo rfcomm bind 0 AA:BB:CC:DD:EE:FF`; PIN 1234; the A3-B needs channel
2)::

    edgelut-agent run --meter um25c:/dev/rfcomm0

Kinds: `um24c`, `um25c`, `um34c`. The scale comes from the model number in each frame, never from the kind that was
asked for. Options: `rate_hz` (2.5; a real meter takes at most 3 requests a second and has about 2 new values),
`update_s` (0.5). Current and power are unsigned: the direction of flow is lost. UM25C resolves 1 mV and 0.1 mA; the
others 10 mV and 1 mA.

Frame: 130 bytes, big-endian (sigrok wiki "RDTech UM series", libsigrok rdtech-um, rd-usb, rdserialtool). The UM34C's
checksum does not cover the current, and the others have none, so a frame counts only when V · I agrees with W and °C
with °F.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from agent.meters.base import OUTSIDE, Clock, FrameDecoder, Meter, Reading, Verdict
from agent.meters.sampling import Limits
from agent.meters.serial_meter import SerialDriver, open_serial
from agent.meters.spec import MeterSpec

FRAME_BYTES = 130
REQUEST = b"\xf0"
TAIL = b"\xff\xf1"
_CHECKED = (
    *(1, 3, 7, 9, 15, 17, 19, 23, 31, 39, 41, 45, 49, 53, 55, 57, 59, 63, 67, 69, 73, 79, 83, 89, 97, 99, 109),
    *(111, 113, 119, 121, 127),
)
_HEAD = struct.Struct(">HHHIHHH")


@dataclass(frozen=True)
class Model:
    name: str
    voltage_step_v: float
    current_step_a: float
    limits: Limits


MODELS: Mapping[int, Model] = {
    0x0963: Model("UM24C", 0.01, 0.001, Limits(24.0, 3.0)),
    0x09C9: Model("UM25C", 0.001, 0.0001, Limits(24.0, 5.0)),
    0x0D4C: Model("UM34C", 0.01, 0.001, Limits(24.0, 4.0)),
}
KINDS = tuple(model.name.lower() for model in MODELS.values())
_NUMBERS = tuple(number.to_bytes(2, "big") for number in MODELS)


def checksum(frame: bytes) -> int:
    """The UM34C's: XOR of some of the odd offsets; the current's low byte (5) is not among them."""
    value = 0
    for offset in _CHECKED:
        value ^= frame[offset]
    return value


def power_agrees(voltage_v: float, current_a: float, power_w: float, model: Model) -> bool:
    """V · I is W within one step of each and a milliwatt. What was seen of real meters (sigrok, rdserialtool,
    umxxc-parser) agrees to the last digit; a clone may round on its own.
    """
    slack_w = voltage_v * model.current_step_a + current_a * model.voltage_step_v + 0.0015
    return abs(voltage_v * current_a - power_w) <= slack_w


class UmDecoder(FrameDecoder):
    """Frames of all three models, told apart by their model number."""

    def _next(self, buffer: bytearray) -> Verdict | None:
        if len(buffer) < 2:
            return None
        number = int.from_bytes(buffer[:2], "big")
        model = MODELS.get(number)
        if len(buffer) < FRAME_BYTES:  # a frame of an unknown model may begin here; only its tail can tell
            return None
        if model is None and self._is_foreign(buffer):
            return FRAME_BYTES, (), f"unknown model number 0x{number:04X}"
        if model is None:
            return self._next_beginning(buffer), (), OUTSIDE
        frame = bytes(buffer[:FRAME_BYTES])
        reason = self._fault(frame, model)
        return (1, (), reason) if reason else (FRAME_BYTES, (decode(frame, model),), "")

    @staticmethod
    def _next_beginning(buffer: bytearray) -> int:
        """Where a frame may begin next, of a known model or by the tail that would end it; else where it is open."""
        end = len(buffer) - FRAME_BYTES + 1
        places = [buffer.find(number, 1, end + 1) for number in _NUMBERS]
        places.append(buffer.find(TAIL, FRAME_BYTES - 1, end + FRAME_BYTES - 1) - FRAME_BYTES + 2)
        return min((place for place in places if place > 0), default=end)

    @staticmethod
    def _is_foreign(buffer: bytearray) -> bool:
        frame = bytes(buffer[:FRAME_BYTES])
        known_inside = any(number in frame for number in _NUMBERS)
        _, volts, _, _, temp_c, temp_f, _ = _HEAD.unpack_from(frame)
        return frame[128:] == TAIL and not known_inside and volts > 0 and _temperature_agrees(temp_c, temp_f)

    @staticmethod
    def _fault(frame: bytes, model: Model) -> str:
        if model.name == "UM34C":
            if frame[129] != checksum(frame):
                return "frame with a wrong checksum"
        elif frame[128:] != TAIL:
            return "frame without its end"
        _, volts, amps, milliwatts, temp_c, temp_f, group = _HEAD.unpack_from(frame)
        voltage_v, current_a = volts * model.voltage_step_v, amps * model.current_step_a
        if not power_agrees(voltage_v, current_a, milliwatts / 1000, model):
            return "frame whose V · I disagrees with W"
        if not _temperature_agrees(temp_c, temp_f):
            return "frame whose °C disagree with °F"
        return "" if group <= 9 else "frame that names a group beyond 9"


def _temperature_agrees(temp_c: int, temp_f: int) -> bool:
    return abs(temp_c * 1.8 + 32 - temp_f) <= 3  # both are rounded on their own


def decode(frame: bytes, model: Model) -> Reading:
    """A frame that was found good; counters are those of the selected group."""
    _, volts, amps, milliwatts, temp_c, _, group = _HEAD.unpack_from(frame)
    milliamp_hours, milliwatt_hours = struct.unpack_from(">II", frame, 16 + 8 * group)
    data_plus, data_minus = struct.unpack_from(">HH", frame, 96)
    (resistance,) = struct.unpack_from(">I", frame, 122)
    return Reading(
        round(volts * model.voltage_step_v, 3),
        round(amps * model.current_step_a, 4),
        milliwatts / 1000,
        temp_c=float(temp_c),
        charge_c=milliamp_hours * 3.6,
        energy_j=milliwatt_hours * 3.6,
        group=group,
        resistance_ohm=resistance / 10,
        data_plus_v=data_plus / 100,
        data_minus_v=data_minus / 100,
        model=model.name,
    )


def decoder(kind: str, options: Mapping[str, str]) -> UmDecoder:
    MeterSpec(kind, "", options).only()
    return UmDecoder()


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    spec.only("rate_hz", "update_s", "emulated", "first_reply_s")
    rate_hz = spec.number("rate_hz", 2.5, 0.1, 1000.0)
    model = next(model for model in MODELS.values() if model.name.lower() == spec.kind)
    driver = SerialDriver(
        kind=spec.kind,
        make_decoder=UmDecoder,
        baud=9600,
        rate_hz=rate_hz,
        update_s=spec.number("update_s", 0.5 if rate_hz <= 3 else 1 / rate_hz, 0.0, 10.0),
        limits=model.limits,
        request=REQUEST,
        reply_bytes=FRAME_BYTES,
        first_reply_s=spec.number("first_reply_s", 10.0, 0.1, 120.0),
        other_kind=partial(_other_kind, spec.kind),
    )
    return open_serial(driver, spec, clock)


def _other_kind(wanted: str, reading: Reading) -> str:
    kind = reading.model.lower()
    return "" if kind == wanted else kind
