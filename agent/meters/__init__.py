"""Power meters. `decoder(kind)` parses bytes without a port; `open_meter("KIND:PORT", clock)` samples a real meter.

One module for each family, whose docstring is the configuration to paste; it is loaded when its kind is asked for.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from types import ModuleType

from agent.meters.base import Clock, Decoder, Meter, Reading
from agent.meters.spec import parse_spec
from protos.errors import BadInputError

__all__ = ["KINDS", "Clock", "Decoder", "Meter", "Reading", "decoder", "identify", "kinds", "open_meter"]

# kind → module of agent.meters that drives it
KINDS = {
    "atorch": "atorch",
    "auto": "discover",
    "avhzy": "avhzy",
    "csv": "csv",
    "dl24m": "atorch",
    "emulated": "emulated",
    "hwmon": "hwmon",
    "j7c": "atorch",
    "pi5-pmic": "pi5_pmic",
    "ppk2": "ppk2",
    "rapl": "rapl",
    "replay": "replay",
    "smartpower2": "smartpower2",
    "smartpower3": "smartpower3",
    "tc66c": "tc66c",
    "um24c": "um25c",
    "um25c": "um25c",
    "um34c": "um25c",
}
_TELLTALE = ("um25c", "avhzy", "smartpower3", "atorch", "tc66c")  # kinds whose frames cannot be mistaken


def kinds() -> tuple[str, ...]:
    """Every kind that `open_meter` knows."""
    return tuple(sorted(KINDS))


def _driver(kind: str) -> ModuleType:
    module = KINDS.get(kind)
    if module is None:
        near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.4)
        hint = f" Nearest: {near[0]}." if near else ""
        raise BadInputError(f"There is no meter kind {kind!r}. Kinds: {', '.join(kinds())}.{hint}")
    return import_module(f"agent.meters.{module}")


def decoder(kind: str) -> Decoder:
    """A new decoder of a kind, with its options where it has any: `decoder("csv?columns=t_ms,V,A")`.

    BadInputError: unknown kind (the nearest is named), unknown option, or a kind that has nothing to decode.
    """
    name, _, query = kind.partition("?")
    spec = parse_spec(f"{name}:?{query}")
    found: Decoder = _driver(spec.kind).decoder(spec.kind, spec.options)
    return found


def open_meter(spec: str, clock: Clock) -> Meter:
    """Open the meter of a spec `KIND:PORT?options`; it stays quiet until `start`.

    BadInputError: unknown kind or option, port missing, busy or forbidden, no answer, another meter there.
    """
    parsed = parse_spec(spec)
    meter: Meter = _driver(parsed.kind).open_meter(parsed, clock)
    return meter


def identify(data: bytes) -> str:
    """The kind whose frames are in `data`; empty when none is."""
    for kind in _TELLTALE:
        readings = decoder(kind).feed(data)
        if readings:
            model = readings[-1].model.lower()
            return model if model in KINDS else kind
    return ""
