"""Numbers for people: one fitting unit for a set of values, percentages, durations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

_PREFIXES = ((1.0, ""), (1e3, "m"), (1e6, "µ"), (1e9, "n"))
_BASE = {"latency": "s", "energy": "J"}
NOT_KNOWN = "–"


@dataclass(frozen=True)
class Scale:
    """A unit for a set of values: value in SI × per_unit is the number to show."""

    unit: str
    per_unit: float

    def number(self, shown: float, digits: int = 3) -> str:
        """`shown`, already in this unit, with so many significant digits and no exponent."""
        if not math.isfinite(shown):
            return NOT_KNOWN
        if shown == 0:
            return "0"
        decimals = max(digits - 1 - math.floor(math.log10(abs(shown))), 0)
        return f"{shown:.{decimals}f}"

    def text(self, value: float | None, digits: int = 3) -> str:
        """An SI value in this unit, without the unit's name."""
        return NOT_KNOWN if value is None else self.number(value * self.per_unit, digits)


def scale_for(metric: str, values: Any) -> Scale:
    """Seconds, ms or µs (J, mJ or µJ) so that the median of the positive `values` is at least 0.3 of the unit."""
    array = np.abs(np.asarray(values, np.float64)).ravel()
    array = array[np.isfinite(array) & (array > 0)]
    typical = float(np.median(array)) if len(array) else 1.0
    per_unit, prefix = next((p for p in _PREFIXES if typical * p[0] >= 0.3), _PREFIXES[-1])
    return Scale(prefix + _BASE[metric], per_unit)


def decimals_for(shown: Any) -> int:
    """Decimals for a table of numbers so that a typical one shows three significant digits (at most 4)."""
    array = np.asarray(shown, np.float64)
    positive = array[np.isfinite(array) & (array > 0)]
    typical = float(np.median(positive)) if len(positive) else 1.0
    return min(max(2 - math.floor(math.log10(typical)), 0), 4)


def percent(value: float | None, *, sign: bool = True, digits: int = 2) -> str:
    """0.0123 → +1.23 %; None → –."""
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    number = round(100 * value, digits) or 0.0  # no negative zero
    return f"{number:{'+' if sign and number else ''}.{digits}f} %".replace("-", "−")


def duration(seconds: float | None) -> str:
    """75 → 1:15; 3700 → 1:01:40; None → –."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_KNOWN
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def bytes_text(count: float | None) -> str:
    """Binary prefixes with three digits: 933 MiB."""
    if count is None:
        return NOT_KNOWN
    size, prefix = float(count), ""
    for prefix in ("", "Ki", "Mi", "Gi", "Ti"):
        if size < 1000 or prefix == "Ti":
            break
        size /= 1024
    return f"{size:.3g} {prefix}B"
