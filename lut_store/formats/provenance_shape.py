"""The shapes of those parts of a LUT's provenance that readers use, so that they may trust what was loaded.

Keys that nobody reads, and keys that are missing, are no fault: files of other versions have them. In a shape, a name
of _WORDS stands for a single value, [shape] for a list, (shape, shape) for a list of so many, {"*": shape} for an
object with any keys, and another object for those keys: "!key" must be there and not be null, "+key" must be there.
Other keys may be null; items of a list may only with a "?".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lut_store.lut import LATEST_WALL_S
from protos.types import FIXED_LAYER, SearchSpace

Shape = Any


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_WORDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "text": ("text", lambda value: isinstance(value, str)),
    "number": ("a number", _is_number),
    "count": ("a whole number from 0", lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 53),
    "place": ("a whole number from -1", lambda v: isinstance(v, int) and not isinstance(v, bool) and -1 <= v < 1 << 20),
    "time": ("seconds since 1970", lambda value: _is_number(value) and 0 <= value <= LATEST_WALL_S),
    "text or object": ("text or an object", lambda value: isinstance(value, (str, dict))),
    "object": ("an object", lambda value: isinstance(value, dict)),
}
_METER: Shape = {
    "rate_hz": "number",
    "calibration": {"measured_wall_s": "time", "lag_s": "number"},
}
_BOARD_METRIC: Shape = {
    "+between_rel_sd": "number",
    "+level_rel_sd": "number",
    "+operator_rel_sd": "number",
    "!outside": ["text"],
    "!devices": [
        {
            "!name": "text",
            "+ratio": "number",
            "+robust_z": "number",
            **{f"{column}_{unit}": ["number?"] for column in ("value", "se") for unit in ("s", "j")},
        }
    ],
}
_ESTIMATES: Shape = {
    "!cells": "count",
    "!operators": "count",
    "!measured_operators": "count",
    "!left_missing": {"*": "text"},
    "!kinds": {
        "*": {"!method": "text", "!mape": "number", "!max": "number", "!left_out": "text", "!folds": "count"},
    },
}
SHAPE: Shape = {
    "method": "text or object",
    "settings": {"latency": "text", "energy": "text", "energy_form": "text"},
    "runs": ["text"],
    "excluded_devices": ["text"],
    "devices": [{"!name": "text", "facts": "object"}],
    "conditions": {"*": ["text"]},
    "differing": {"*": "object"},
    "host": {
        "temp_c": ("number", "number"),
        "frequency_hz": ("number", "number"),
        "governor": ["text"],
        "throttled_bits": "count",
    },
    "meter": _METER,
    "meters": [_METER],
    "meter_losses": "count",
    "rounds": "count",
    "rounds_flagged": "count",
    "rounds_left_out": "count",
    "disturbed_share": "number",
    "latency_device_s": "number",
    "energy_device_s": "number",
    "sweep_bytes": ["number"],
    "origin": {"files": "object"},
    "boards": {
        "!cells": [("place", "count")],
        "!operators": ["text"],
        "latency": _BOARD_METRIC,
        "energy": _BOARD_METRIC,
    },
    "reused": {
        "!reference": "text",
        "!metrics": ["text"],
        "!cells": "count",
        "!operators": ["text"],
        "!measured_again": {"*": {"!operators": "count", "!ratio": "number"}},
    },
    "estimates": {"latency": _ESTIMATES, "energy": _ESTIMATES},
}


def fault(value: Any, shape: Shape = SHAPE, where: str = "provenance") -> str:
    """The first part that is not of its shape, and what it must be; empty when there is none."""
    if isinstance(shape, str):
        words, fits = _WORDS[shape.removesuffix("?")]
        return "" if fits(value) or (value is None and shape.endswith("?")) else f"{where} must be {words}"
    if isinstance(shape, dict):
        return _fault_of_object(value, shape, where)
    if not isinstance(value, list) or (isinstance(shape, tuple) and len(value) != len(shape)):
        return f"{where} must be a list" + (f" of {len(shape)}" if isinstance(shape, tuple) else "")
    shapes = shape if isinstance(shape, tuple) else shape * len(value)
    parts = (fault(part, own, f"{where}[{i}]") for i, (part, own) in enumerate(zip(value, shapes, strict=True)))
    return next(filter(None, parts), "")


def _fault_of_object(value: Any, shape: Mapping[str, Shape], where: str) -> str:
    if not isinstance(value, dict):
        return f"{where} must be an object"
    for name, own in shape.items():
        for key in value if name == "*" else (name.lstrip("!+"),):
            if name[0] in "!+" and key not in value:
                return f"{where} has no field {key!r}"
            part = value.get(key)
            if (part is not None or name[0] in "!*") and (said := fault(part, own, f"{where}.{key}")):
                return said
    return ""


def fault_of_boards(boards: Any, space: SearchSpace) -> str:
    """What of provenance.boards, which has its shape, does not fit the space or itself; empty when all does."""
    if boards is None:
        return ""
    layers, ops = space.shape
    fixed, count = len(space.stem) + len(space.head), len(boards["cells"])
    if not all(layer < layers and op < (fixed if layer == FIXED_LAYER else ops) for layer, op in boards["cells"]):
        return "provenance.boards.cells names a cell that the space does not have"
    if len(boards["operators"]) != count:
        return f"provenance.boards.operators must be {count}, as many as there are cells"
    for name, unit in (("latency", "s"), ("energy", "j")):
        for device in (boards.get(name) or {"devices": []})["devices"]:
            for column in (f"value_{unit}", f"se_{unit}"):
                if len(device.get(column) or ()) != count:
                    return f"provenance.boards.{name}: {column} of {device['name']} must be {count} numbers"
    return ""
