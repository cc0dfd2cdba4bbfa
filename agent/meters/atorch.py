"""ATORCH: UD18, UC96, J7-C, DT3010, AT24, DL24, DL24M; one report a second over Bluetooth or serial.

Configuration to paste::

    edgelut-agent run --meter atorch:/dev/rfcomm0        # UD18, DL24, DT3010, AT24: the checksum must hold; J7-C
    edgelut-agent run --meter j7c:/dev/rfcomm0           # UC96: reports whose checksum is of no use
    edgelut-agent run --meter dl24m:/dev/rfcomm0         # DL24M: the same

Too coarse for small operators (USB types 10 mV and 10 mA, direct-current types 0.1 V and 1 mA): whole networks only.
Mains meters (type 01) are refused. Where the checksum is of no use a report counts only when its values are plausible
and its running time neither goes back nor jumps ahead by more than ten seconds (it stands still without a load). As
`atorch` such a DL24M is known when it idles: two reports in a row are the same but for their wrong checksums.

Report: FF 55 01, type, 36 bytes in all, big-endian (CursedHardware/atorch-console, syssi/esphome-atorch-dl24).
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.meters.base import OUTSIDE, Clock, FrameDecoder, Meter, Reading, Verdict
from agent.meters.sampling import Limits
from agent.meters.serial_meter import SerialDriver, open_serial
from agent.meters.spec import MeterSpec

HEADER = b"\xff\x55"
REPORT_BYTES, REPLY_BYTES, COMMAND_BYTES = 36, 8, 10
_SIZES = {0x01: REPORT_BYTES, 0x02: REPLY_BYTES, 0x11: COMMAND_BYTES}
_MAINS, _DIRECT, _USB = 0x01, 0x02, 0x03
LIMITS = {"atorch": Limits(200.0, 30.0), "j7c": Limits(30.0, 6.5), "dl24m": Limits(200.0, 30.0)}
STEADY_S = 10  # the running time of two reports that follow each other differs by no more


def checksum(frame: bytes) -> int:
    """Of all between the header and the last byte."""
    return sum(frame[2:-1]) & 0xFF ^ 0x44


class AtorchDecoder(FrameDecoder):
    """Reports of USB and direct-current types; replies to commands are skipped.

    A J7-C is known by the alarm limits in its reports, a DL24M by two reports that are the same but for two different
    wrong checksums (which no damage makes): the checksum is then of no use, as with the kinds that say so, unless a
    report before had a good one.
    """

    def __init__(self, kind: str = "atorch") -> None:
        super().__init__()
        self._kind = kind
        self._checksum_holds = False  # it was seen to be of use
        self._good_ones = 0  # one after the other
        self._useless = kind != "atorch"  # the checksum, as the kind says or as was seen
        self._last_running_s: int | None = None

    def reset(self) -> None:
        super().reset()
        self._last_running_s = None

    def _next(self, buffer: bytearray) -> Verdict | None:
        if not HEADER.startswith(bytes(buffer[:2])):
            at = buffer.find(HEADER[0], 1)
            return at if at > 0 else len(buffer), (), OUTSIDE
        if len(buffer) < 3:
            return None
        size = _SIZES.get(buffer[2])
        if size is None:
            return 1, (), OUTSIDE
        if len(buffer) < size:
            return None
        frame = bytes(buffer[:size])
        good = frame[-1] == checksum(frame)
        model = "J7-C" if is_j7c(frame) else ""
        if self._may_be_dl24m(frame, good):
            again = buffer[REPORT_BYTES : 2 * REPORT_BYTES]
            if frame[:-1].startswith(again[: REPORT_BYTES - 1]) and len(again) < REPORT_BYTES:
                return None
            self._useless = again[:-1] == frame[:-1] and again[-1] not in (frame[-1], checksum(frame))
        if size == REPORT_BYTES:
            self._watch_checksum(good, model)
        if not good and (self._checksum_holds or not (self._useless or model)):
            return 1, (), "report with a wrong checksum"
        if size != REPORT_BYTES:
            return size, (), ""
        return self._report(frame, model, good)

    def _may_be_dl24m(self, frame: bytes, good: bool) -> bool:
        """Whether the next report can show that the checksum is of no use."""
        unknown = not (good or self._good_ones or self._checksum_holds or self._useless)
        return unknown and len(frame) == REPORT_BYTES and frame[3] == _DIRECT

    def _watch_checksum(self, good: bool, model: str) -> None:
        """Of a useless checksum one in 256 is right; of three in a row none is by chance."""
        self._good_ones = self._good_ones + 1 if good else 0
        useless = model or self._useless
        self._checksum_holds = self._checksum_holds or self._good_ones >= (3 if useless else 1)

    def _report(self, frame: bytes, model: str, good: bool) -> Verdict:
        reading = decode(frame, model)
        if reading is None:
            what = "a mains meter (type 0x01)" if frame[3] == _MAINS else f"unknown type 0x{frame[3]:02X}"
            return REPORT_BYTES if good else 1, (), f"report of {what}"
        reason = "" if good else self._implausible(frame, reading)
        self._last_running_s = self._last_running_s if (now := _running_s(frame)) is None else now
        return (1, (), reason) if reason else (REPORT_BYTES, (reading,), "")

    def _implausible(self, frame: bytes, reading: Reading) -> str:
        as_kind = "j7c" if frame[3] == _USB else "dl24m"
        limits = LIMITS[self._kind if self._kind != "atorch" else as_kind]
        if reading.voltage_v > limits.voltage_v or reading.current_a > limits.current_a:
            return "report with values beyond the meter's range"
        last, now = self._last_running_s, _running_s(frame)
        if now is None:
            return "report whose running time is no time"
        return "" if last is None or 0 <= now - last <= STEADY_S else "report whose running time does not follow"


def is_j7c(frame: bytes) -> bool:
    """A USB report that ends with alarm limits, as the J7-C's do: voltage above and below, current, in hundredths."""
    if len(frame) != REPORT_BYTES or frame[3] != _USB:
        return False
    high, low, amps = (int.from_bytes(frame[at : at + 2], "big") for at in (28, 30, 32))
    return low < high and 400 <= high <= 4000 and 0 < amps <= 1200 and frame[34] == 0


def _running_s(frame: bytes) -> int | None:
    at = 23 if frame[3] == _USB else 26
    hours, minutes, seconds = int.from_bytes(frame[at : at + 2], "big"), frame[at + 2], frame[at + 3]
    return hours * 3600 + minutes * 60 + seconds if minutes < 60 and seconds < 60 else None


def decode(frame: bytes, model: str = "") -> Reading | None:
    """A 36-byte report; None when it is neither of a USB nor of a direct-current meter.

    The energy of direct-current types is left out: sources disagree about its scale.
    """

    def number(at: int, size: int) -> int:
        return int.from_bytes(frame[at : at + size], "big")

    if frame[3] == _USB:
        voltage_v, current_a = number(4, 3) / 100, number(7, 3) / 100
        return Reading(
            voltage_v,
            current_a,
            voltage_v * current_a,
            temp_c=float(number(21, 2)),
            charge_c=number(10, 3) * 3.6,
            energy_j=number(13, 4) * 36.0,
            data_minus_v=number(17, 2) / 100,
            data_plus_v=number(19, 2) / 100,
            model=model or "USB",
        )
    if frame[3] == _DIRECT:
        voltage_v, current_a = number(4, 3) / 10, number(7, 3) / 1000
        return Reading(
            voltage_v,
            current_a,
            voltage_v * current_a,
            temp_c=float(number(24, 2)),
            charge_c=number(10, 3) * 36.0,
            model="DC",
        )
    return None


def decoder(kind: str, options: Mapping[str, str]) -> AtorchDecoder:
    MeterSpec(kind, "", options).only()
    return AtorchDecoder(kind)


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    spec.only("emulated", "first_reply_s")
    driver = SerialDriver(
        kind=spec.kind,
        make_decoder=lambda: AtorchDecoder(spec.kind),
        baud=9600,
        rate_hz=1.0,
        update_s=0.0,
        limits=LIMITS[spec.kind],
        first_reply_s=spec.number("first_reply_s", 10.0, 0.1, 120.0),
        reply_s=4.0,
    )
    return open_serial(driver, spec, clock)
