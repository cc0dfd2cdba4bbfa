"""What daemon and worker say to each other over the worker's pipes: a JSON head and a body of bytes, both with their
length.
"""

from __future__ import annotations

import json
import struct
from asyncio import StreamReader
from collections.abc import Mapping
from typing import Any, BinaryIO

_LENGTHS = struct.Struct("<II")
MAX_BYTES = 1 << 28  # a longer frame can only be something else that was written to the pipe

Frame = tuple[dict[str, Any], bytes]


def pack(head: Mapping[str, object], body: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return _LENGTHS.pack(len(text), len(body)) + text + body


def read(stream: BinaryIO) -> Frame | None:
    """The next frame; None at the end of the stream. Raises ValueError when it is not a frame."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head_length, body_length = _checked(lengths)
    return json.loads(stream.read(head_length)), stream.read(body_length)


async def read_async(stream: StreamReader) -> Frame:
    """The next frame. IncompleteReadError: the stream ended. ValueError: it is not a frame."""
    head_length, body_length = _checked(await stream.readexactly(_LENGTHS.size))
    return json.loads(await stream.readexactly(head_length)), await stream.readexactly(body_length)


def _checked(lengths: bytes) -> tuple[int, int]:
    head_length, body_length = _LENGTHS.unpack(lengths)
    if max(head_length, body_length) > MAX_BYTES:
        raise ValueError(f"the pipe holds no frame: lengths {head_length} and {body_length}")
    return head_length, body_length
