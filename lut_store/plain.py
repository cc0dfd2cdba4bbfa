"""Values that JSON can hold exactly: what a LUT keeps as free-form records (correction, validation, provenance)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MAX_DEPTH = 32


def plain(where: str, value: object, depth: int = 0) -> Any:
    """A copy of `value` made of dict, list, str, bool, int, float and None.

    NaN and infinity become None (JSON's null): "not known". Raises ValueError naming `where` for anything that JSON
    cannot hold, for keys that are not text, and for nesting beyond MAX_DEPTH.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"{where} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        return _text(where, value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, np.ndarray):
        return plain(where, value.tolist(), depth)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError(f"{where} holds a key that is not text")
        return {_text(where, key): plain(f"{where}.{key}", part, depth + 1) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [plain(f"{where}[{index}]", part, depth + 1) for index, part in enumerate(value)]
    raise ValueError(f"{where} is a {type(value).__name__}, which a LUT file cannot hold")


def _text(where: str, value: str) -> str:
    if not value.isascii() and any(0xD800 <= ord(letter) < 0xE000 for letter in value):
        raise ValueError(f"{where} holds half a surrogate pair, which is no text")
    return value


def plain_mapping(where: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """`plain` of a mapping."""
    copy = plain(where, value)
    if not isinstance(copy, dict):
        raise ValueError(f"{where} must be a mapping, not a {type(value).__name__}")
    return copy
