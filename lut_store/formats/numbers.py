"""Numbers in the texts of others."""

from __future__ import annotations

import math

LARGEST = 1e9  # s or J; an operator that takes 30 years is a mistake


def is_plain(word: str) -> bool:
    """Whether Python's own liberties are not taken: 1_000, and digits of other scripts."""
    return word.isascii() and "_" not in word


def read(word: str) -> float | None:
    """None for what is no decimal number; NaN and infinities are read, so that they can be named as such."""
    try:
        return float(word) if is_plain(word) else None
    except ValueError:
        return None


def is_sane(value: float) -> bool:
    """Whether a finite number can be the cost of an operator."""
    return math.isfinite(value) and abs(value) <= LARGEST
