"""Pictures of characters: a plot of braille dots. Pure functions, standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence

DOT_ROWS, DOT_COLUMNS = 4, 2  # of a character
BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bit of each dot, by row and column
LEAST_SPAN = 0.02  # of the greatest value: a flat line must not look like a storm


def bounds(values: Sequence[float], least: float) -> tuple[float, float]:
    """Round limits around all values, at least `least` apart."""
    low, high = min(values), max(values)
    span = max(high - low, least, LEAST_SPAN * max(abs(low), abs(high)))
    middle = (low + high) / 2
    step = _round_step(span / 4)
    below, above = math.floor((middle - span / 2) / step) * step, math.ceil((middle + span / 2) / step) * step
    return min(below, low), max(above, high)  # rounding must not cut a value off


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= step * (1 - 1e-9))


def plot(
    times: Sequence[float],
    values: Sequence[float],
    span: tuple[float, float],
    limits: tuple[float, float],
    size: tuple[int, int],
) -> list[str]:
    """`size` = (columns, rows) of characters; `span` the times of the left and the right edge, `limits` of the lower
    and the upper one. A value holds until the next; of many in one column all between the least and the greatest is
    drawn.
    """
    columns, rows = size[0] * DOT_COLUMNS, size[1] * DOT_ROWS
    reach: list[tuple[float, float] | None] = [None] * columns
    last: float | None = None
    column = 0
    for time, value in zip(times, values, strict=True):
        at = math.floor((time - span[0]) / (span[1] - span[0]) * columns)
        if last is not None:
            for held in range(max(column + 1, 0), min(at, columns)):
                reach[held] = (last, last)
        if 0 <= at < columns:
            low, high = reach[at] or (value, value)
            near = (value, value if last is None else last)  # joined to the value before
            reach[at] = (min(low, *near), max(high, *near))
        last, column = value, at
    cells = [[BLANK] * size[0] for _ in range(size[1])]
    for column, pair in enumerate(reach):
        if pair is None:
            continue
        first, second = (_row(value, limits, rows) for value in pair)
        for row in range(min(first, second), max(first, second) + 1):
            cells[row // DOT_ROWS][column // DOT_COLUMNS] |= _DOTS[row % DOT_ROWS][column % DOT_COLUMNS]
    return ["".join(map(chr, line)) for line in cells]


def _row(value: float, limits: tuple[float, float], rows: int) -> int:
    """Counted from the top."""
    share = (value - limits[0]) / (limits[1] - limits[0])
    return min(rows - 1, max(0, round((1 - share) * (rows - 1))))


def framed(lines: Sequence[str], limits: tuple[float, float], unit: str, left: str, right: str) -> list[str]:
    """The plot with round numbers at its left and the times of its edges below."""
    step = _round_step((limits[1] - limits[0]) / 4)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    labels = [""] * len(lines)
    for number in range(math.ceil(limits[0] / step - 1e-6), math.floor(limits[1] / step + 1e-6) + 1):
        row = _row(number * step, limits, len(lines))
        labels[row] = labels[row] or f"{number * step:.{digits}f} {unit}"
    width = max(map(len, labels))
    out = [f"{label:>{width}} {'┤' if label else '│'}{line}" for label, line in zip(labels, lines, strict=True)]
    space = len(lines[0]) - len(left) - len(right)
    return [*out, f"{'':>{width}} └{left}{'─' * max(space, 1)}{right}"]
