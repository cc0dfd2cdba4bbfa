"""An agent's message together with the bytes that it came in.

The store keeps a measurement as its bytes. Taking them out of the message that they came in is free; making them anew
costs as much as reading them.
"""

from __future__ import annotations

from typing import NamedTuple

from lut_store.records import Encoded
from protos import raw_pb2

_LENGTH_DELIMITED = 2
_TAG = raw_pb2.AgentMessage.MEASUREMENT_FIELD_NUMBER << 3 | _LENGTH_DELIMITED


class Received(NamedTuple):
    message: raw_pb2.AgentMessage
    raw: bytes

    def measurement(self) -> Encoded:
        """The measurement with its own bytes, which are the rest of the message's when it holds nothing else."""
        measurement = self.message.measurement
        if self.raw[0] == _TAG:
            length, start = _varint(self.raw, 1)
            if start + length == len(self.raw):
                return Encoded(measurement, self.raw[start:])
        return Encoded(measurement, measurement.SerializeToString())


def receive(raw: bytes) -> Received:
    """The deserialiser of the stream; raises DecodeError for what is no message."""
    return Received(raw_pb2.AgentMessage.FromString(raw), raw)


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """The number at `start`, seven bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while data[start] & 0x80:
        value |= (data[start] & 0x7F) << shift
        shift, start = shift + 7, start + 1
    return value | data[start] << shift, start + 1
