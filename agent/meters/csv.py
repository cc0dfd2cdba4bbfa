"""Your own meter: an Arduino, ESP32 or Pico with an INA219, INA226 or INA260 that prints lines of numbers, or of JSON.

Configuration to paste (a sketch that prints `t_ms,V,A`; columns in any order, units by name, `_` for one to ignore)::

    edgelut-agent run --meter "csv:/dev/ttyUSB0?columns=t_ms,V,mA"
    edgelut-agent run --meter "csv:/dev/ttyUSB0?columns=ts:t_us,bus:V,load:mA&baud=921600"

Options: `columns` (t_ms,V,A), `baud` (115200), `rate_hz` (100; what to expect, for the lint of the trace), `update_s`
(0: every line is a new value). A column is UNIT or NAME:UNIT; NAME is the key in lines of JSON and in a header. Units:
t_s t_ms t_us; V mV; A mA uA; W mW uW; C (temperature). Without W, power is V · A; with W, lines where they disagree
are dropped.

Separators: comma, semicolon, blank or tab; quotes around a value are taken off. Comments (#) are skipped; so is a line
whose time runs backwards. A header with the names (or units) of all configured columns says their order; under one of
other units no line is read. Times wrap at 2^32. Opening resets an Arduino: it then needs about two seconds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.meters.base import Clock, FrameClock, LineDecoder, Meter, Reading
from agent.meters.sampling import Limits
from agent.meters.serial_meter import SerialDriver, open_serial
from agent.meters.spec import MeterSpec
from protos.errors import BadInputError

DEFAULT_COLUMNS = "t_ms,V,A"
MAX_VOLTAGE_V = 36.0  # of the INA226 and INA260
_UNITS = {
    "t_s": ("time_s", 1.0),
    "t_ms": ("time_s", 1e-3),
    "t_us": ("time_s", 1e-6),
    "V": ("voltage_v", 1.0),
    "mV": ("voltage_v", 1e-3),
    "A": ("current_a", 1.0),
    "mA": ("current_a", 1e-3),
    "uA": ("current_a", 1e-6),
    "W": ("power_w", 1.0),
    "mW": ("power_w", 1e-3),
    "uW": ("power_w", 1e-6),
    "C": ("temp_c", 1.0),
}
_WRAPS = {"t_ms": (1 << 32) * 1e-3, "t_us": (1 << 32) * 1e-6}
_SEPARATOR = re.compile(r"[,;\s]+")
_HARD_SEPARATOR = re.compile(r"[,;\t]")  # of a header that has one: its words are no sentence
HEADER_CHARS = 60  # of a header that does not fit, as it is told


@dataclass(frozen=True)
class Column:
    name: str  # key in JSON and in a header
    unit: str  # "_" to ignore

    @property
    def quantity(self) -> str:
        return _UNITS[self.unit][0] if self.unit != "_" else ""


def parse_columns(text: str) -> tuple[Column, ...]:
    """`ts:t_ms,V,_` → columns; BadInputError names an unknown unit or what is missing."""
    columns = []
    for part in text.split(","):
        name, _, unit = part.strip().rpartition(":")
        if unit not in _UNITS and unit != "_":
            raise BadInputError(f"columns={text}: there is no unit {unit!r}; units are {', '.join(_UNITS)} and _.")
        columns.append(Column(name or unit, unit))
    quantities = [column.quantity for column in columns if column.quantity]
    for needed in ("voltage_v", "current_a"):
        if needed not in quantities:
            raise BadInputError(f"columns={text}: no column gives {needed.replace('_', ' in ').upper()}.")
    if len(set(quantities)) < len(quantities):
        raise BadInputError(f"columns={text}: two columns give the same quantity.")
    return tuple(columns)


def ordered(columns: tuple[Column, ...], header: str) -> tuple[Column, ...] | None:
    """The columns in the header's order, where it has each by name or by unit once; None when it does not say that."""
    words = _words(columns, header)
    if len(words) != len(columns):
        return None
    needed = [column for column in columns if column.quantity]
    found: list[Column] = []
    for word in words:
        named = [column for column in needed if word == column.name] or [c for c in needed if word == c.unit]
        found.append(named[0] if named else Column(word, "_"))
    return tuple(found) if sorted(c.name for c in found if c.quantity) == sorted(c.name for c in needed) else None


def contradicts(columns: tuple[Column, ...], header: str, *, cut: bool = False) -> bool:
    """Whether a header puts a known word where the columns have another. Two words at least, and all but one, must be
    known for a header. Of one that was `cut` the first word may be a rest, and the others are the last columns.
    """
    words, known = _words(columns, header), _known(columns)
    if sum(word not in known for word in words) > 1 or sum(word in known for word in words) < 2:
        return False
    if cut:
        words, columns = words[1:], columns[1 - len(words) :]
    pairs = zip(words, columns, strict=False)
    fits = all(word in (column.name, column.unit) or column.unit == "_" or word not in known for word, column in pairs)
    return not fits or len(words) > len(columns)


def _known(columns: tuple[Column, ...]) -> set[str]:
    return {*_UNITS, *(column.name for column in columns)}


def _words(columns: tuple[Column, ...], header: str) -> list[str]:
    """Of a header; none of a sentence."""
    if _HARD_SEPARATOR.search(header):
        return [_unquoted(word) for word in _HARD_SEPARATOR.split(header)]
    words = [_unquoted(word) for word in header.split()]
    return words if all(word in _known(columns) for word in words) else []


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'")


class CsvDecoder(LineDecoder):
    """Lines by the columns that were configured, in the order of a header where one with their names comes."""

    def __init__(self, columns: str = DEFAULT_COLUMNS) -> None:
        super().__init__()
        self._columns = parse_columns(columns)
        self._text = columns
        self._order = self._columns  # of what comes
        self._header = ""  # the first line without any number that is no header of these columns
        self._contrary = ""  # the header, when it contradicts the columns
        wrap_s = next((_WRAPS[c.unit] for c in self._columns if c.unit in _WRAPS), math.inf)
        self._clock = FrameClock(wrap_s=wrap_s)

    def _line(self, line: str) -> Sequence[Reading] | str:
        line = line.strip()
        if not line or line.startswith("#"):
            return ()
        values = self._json(line) if line.startswith("{") else self._fields(line)
        if isinstance(values, str):
            return values
        if not values:
            return ()
        if not all(map(math.isfinite, values.values())):
            return "line with a value that is not finite"
        if "time_s" in values:
            time_s = self._clock.follow(values["time_s"], line)
            if time_s is None:
                return "line whose time does not follow"
            values["time_s"] = time_s
        return self._reading(values)

    def _fields(self, line: str) -> dict[str, float] | str:
        """Quantities of a line; empty for a header."""
        texts = [_unquoted(text) for text in _SEPARATOR.split(line)]
        if len(texts) > 1 and not any(map(_is_number, texts)):
            return self._heading(line)
        if len(texts) != len(self._order):
            return f"line with {len(texts)} columns instead of {len(self._order)} ({self._text})"
        if self._contrary:
            return f"line under the header {self._contrary}, which contradicts columns={self._text}"
        return self._numbers(dict(zip(self._order, texts, strict=True)))

    def _heading(self, line: str) -> dict[str, float] | str:
        """Follow a header; why it is refused, or nothing."""
        order = ordered(self._columns, line)
        if order is not None:
            self._order, self._contrary = order, ""
            return {}
        if contradicts(self._columns, line):
            self._contrary = line[:HEADER_CHARS]
        self._header = self._header or line[:HEADER_CHARS]
        return f"header or text that does not fit columns={self._text}, first: {self._header}"

    def _first_line(self, raw: bytes) -> None:
        """It may be a header, and an order that it says is whole: columns before would show in the number of values."""
        line = raw.decode("ascii", "replace").strip()
        order = ordered(self._columns, line)
        if order is not None:
            self._order, self._contrary = order, ""
        elif contradicts(self._columns, line, cut=True):
            self._contrary = line[:HEADER_CHARS]

    def _json(self, line: str) -> dict[str, float] | str:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return "line that is not JSON"
        missing = [column.name for column in self._columns if column.name not in found and column.unit != "_"]
        if missing:
            return f"line without {', '.join(missing)} ({self._text})"
        return self._numbers({column: found[column.name] for column in self._columns if column.unit != "_"})

    @staticmethod
    def _numbers(texts: Mapping[Column, object]) -> dict[str, float] | str:
        values: dict[str, float] = {}
        for column, text in texts.items():
            if column.unit == "_":
                continue
            quantity, scale = _UNITS[column.unit]
            if isinstance(text, bool) or not isinstance(text, (str, int, float)) or "_" in str(text):
                return "line with a value that is no number"
            try:
                values[quantity] = float(text) * scale
            except (ValueError, OverflowError):
                return "line with a value that is no number"
        return values

    def _reading(self, values: dict[str, float]) -> Sequence[Reading] | str:
        voltage_v, current_a = values["voltage_v"], values["current_a"]
        product_w = voltage_v * current_a
        power_w = values.get("power_w", product_w)
        if abs(product_w - power_w) > 0.03 + 0.02 * abs(power_w):
            return "line whose V · I disagrees with W"
        return (Reading(voltage_v, current_a, power_w, values.get("temp_c"), values.get("time_s")),)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def decoder(kind: str, options: Mapping[str, str]) -> CsvDecoder:
    MeterSpec(kind, "", options).only("columns")
    return CsvDecoder(options.get("columns", DEFAULT_COLUMNS))


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    spec.only("columns", "baud", "rate_hz", "update_s", "max_current_a", "emulated", "first_reply_s")
    columns = spec.options.get("columns", DEFAULT_COLUMNS)
    parse_columns(columns)
    driver = SerialDriver(
        kind=spec.kind,
        make_decoder=lambda: CsvDecoder(columns),
        baud=round(spec.number("baud", 115200, 300, 4_000_000)),
        rate_hz=spec.number("rate_hz", 100.0, 0.1, 10_000.0),
        update_s=spec.number("update_s", 0.0, 0.0, 10.0),
        limits=Limits(MAX_VOLTAGE_V, spec.number("max_current_a", 3.2, 0.001, 1000.0)),
        first_reply_s=spec.number("first_reply_s", 8.0, 0.1, 120.0),
        reply_s=2.0,
    )
    return open_serial(driver, spec, clock)
