"""RuiDeng TC66 and TC66C over USB.

Configuration to paste (plug the micro-USB socket at the side into the computer; the inline sockets carry no data)::

    edgelut-agent run --meter tc66c:/dev/ttyACM0

Options: `rate_hz` (4; up to 10, but the meter has only about 2 new values a second), `update_s` (0.5). The meter takes
its own supply from the measured line unless its side socket supplies it: keep one of the two for a whole campaign.
Current is unsigned.

Reply: 192 bytes, three packets of 64, AES-256-ECB with a public key, each packet with a CRC-16/MODBUS (rd-usb,
libsigrok rdtech-tc, TheHWcave/TC66). Resistance has 0.1 Ω steps: V / A of real replies agrees with it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from agent.meters.base import OUTSIDE, Clock, FrameDecoder, Meter, Reading, Verdict
from agent.meters.sampling import Limits
from agent.meters.serial_meter import SerialDriver, open_serial
from agent.meters.spec import MeterSpec

REPLY_BYTES = 192
REQUEST = b"getva"
KEY = bytes.fromhex("5821fa5601b2f02687ff1204622a4fb086f40260816f9a0ba7f106619ab87288")
CIPHER = Cipher(AES(KEY), ECB())  # the meter's format, not a protection
_TAGS = (b"pac1", b"pac2", b"pac3")
_PACKET_BYTES = 64
_BLOCK_BYTES = 16  # of AES
SCANNED_BYTES = 1024  # at once, in search of a beginning


def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value


_CRC_TABLE = tuple(map(_crc_of_byte, range(256)))


def crc16(data: bytes) -> int:
    """CRC-16/MODBUS."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc


class Tc66cDecoder(FrameDecoder):
    """Replies, found by the tag of their first packet wherever they begin."""

    def __init__(self) -> None:
        super().__init__()
        self._decrypt = CIPHER.decryptor().update  # ECB: every block stands for itself

    def _next(self, buffer: bytearray) -> Verdict | None:
        if len(buffer) < _BLOCK_BYTES:
            return None
        before = self._before_tag(bytes(buffer[:SCANNED_BYTES]))
        if before:
            return before, (), OUTSIDE
        if len(buffer) < REPLY_BYTES:
            return None
        plain = self._decrypt(bytes(buffer[:REPLY_BYTES]))
        reason = fault(plain)
        return (1, (), reason) if reason else (REPLY_BYTES, (decode(plain),), "")

    def _before_tag(self, data: bytes) -> int:
        """How many bytes cannot begin a reply."""
        if self._decrypt(data[:_BLOCK_BYTES])[:4] == _TAGS[0]:
            return 0
        places = len(data) - _BLOCK_BYTES + 1
        first = places
        for offset in range(min(_BLOCK_BYTES, places)):  # one call decrypts the blocks from every 16th place on
            whole = (len(data) - offset) // _BLOCK_BYTES * _BLOCK_BYTES
            plain = self._decrypt(data[offset : offset + whole])
            found = plain.find(_TAGS[0])
            while found > 0 and found % _BLOCK_BYTES:
                found = plain.find(_TAGS[0], found + 1)
            if found >= 0:
                first = min(first, offset + found)
        return first


def fault(plain: bytes) -> str:
    """Why a decrypted reply is refused; empty when it is good."""
    for index, tag in enumerate(_TAGS):
        packet = plain[index * _PACKET_BYTES : (index + 1) * _PACKET_BYTES]
        if packet[:4] != tag:
            return f"reply without its packet {tag.decode()}"
        if int.from_bytes(packet[60:], "little") != crc16(packet[:60]):
            return f"reply with a wrong CRC in {tag.decode()}"
    if not plain[4:8].startswith(b"TC66"):
        return f"unknown model 0x{plain[4:8].hex()}"
    volts, amps, watts = struct.unpack_from("<III", plain, 48)
    power_w = watts * 1e-4
    if abs(volts * 1e-4 * amps * 1e-5 - power_w) > 0.002 + 0.001 * power_w:
        return "reply whose V · I disagrees with W"
    return ""


def decode(plain: bytes) -> Reading:
    """A decrypted reply that was found good; counters are those of group 0."""
    serial_number = struct.unpack_from("<I", plain, 12)[0]
    volts, amps, watts = struct.unpack_from("<III", plain, 48)
    resistance, milliamp_hours, milliwatt_hours = struct.unpack_from("<III", plain, 68)
    negative, temp_c, data_plus, data_minus = struct.unpack_from("<IIII", plain, 88)
    return Reading(
        volts / 1e4,
        amps / 1e5,
        watts / 1e4,
        temp_c=float(-temp_c if negative == 1 else temp_c),
        charge_c=milliamp_hours * 3.6,
        energy_j=milliwatt_hours * 3.6,
        group=0,
        resistance_ohm=resistance / 10,
        data_plus_v=data_plus / 100,
        data_minus_v=data_minus / 100,
        model="TC66",
        serial=str(serial_number),
        firmware=plain[8:12].decode("ascii", "replace").strip("\0 "),
    )


def decoder(kind: str, options: Mapping[str, str]) -> Tc66cDecoder:
    MeterSpec(kind, "", options).only()
    return Tc66cDecoder()


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    spec.only("rate_hz", "update_s", "emulated", "first_reply_s")
    rate_hz = spec.number("rate_hz", 4.0, 0.1, 1000.0)
    driver = SerialDriver(
        kind=spec.kind,
        make_decoder=Tc66cDecoder,
        baud=115200,
        rate_hz=rate_hz,
        update_s=spec.number("update_s", 0.5 if rate_hz <= 10 else 1 / rate_hz, 0.0, 10.0),
        limits=Limits(30.0, 5.0),
        request=REQUEST,
        reply_bytes=REPLY_BYTES,
        first_reply_s=spec.number("first_reply_s", 3.0, 0.1, 120.0),
        reply_s=1.0,
    )
    return open_serial(driver, spec, clock)
