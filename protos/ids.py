"""Names that nobody else makes."""

from __future__ import annotations

import secrets
import time

_TIME_BITS, _RANDOM_BITS = 48, 80


def new_id() -> str:
    """A UUID of version 7 (RFC 9562), 32 hexadecimal digits: the milliseconds since 1970, then 74 random bits.

    Those that are made one after the other stand side by side in an index, which keeps the database as quick with a
    million rows as with none. A clock that is wrong harms nothing but that.
    """
    milliseconds = time.time_ns() // 1_000_000 & (1 << _TIME_BITS) - 1
    value = milliseconds << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    value = value & ~(0xF << 76) | 0x7 << 76  # the version
    value = value & ~(0x3 << 62) | 0x2 << 62  # the variant
    return f"{value:032x}"
