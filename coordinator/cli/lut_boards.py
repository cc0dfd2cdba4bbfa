"""`coordinator lut show REF --by-device`: what each board measured, and how far boards of the type are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.units import NOT_KNOWN, decimals_for, percent, scale_for
from lut_store.lut import METRICS
from lut_store.metric import Metric
from protos.errors import BadInputError
from protos.types import FIXED_LAYER

if TYPE_CHECKING:
    from lut_store.lut import Lut

UNITS = {"latency": "s", "energy": "j"}


def record(lut: Lut) -> dict[str, Any]:
    """The boards for JSON: how each stands to the others, and every operator on each. Raises BadInputError for a LUT
    that does not say which boards it is from.
    """
    boards = lut.provenance.get("boards") or _alone(lut)
    measured = [name for name in METRICS if name in boards]
    devices: dict[str, dict[str, Any]] = {}
    for name in measured:
        for device in boards[name]["devices"]:
            own = devices.setdefault(device["name"], {"name": device["name"]})
            own[f"{name}_ratio"], own[f"{name}_robust_z"] = device["ratio"], device["robust_z"]
            own[f"{name}_outside"] = device["name"] in boards[name]["outside"]
    between = {
        name: {key: boards[name][key] for key in ("between_rel_sd", "level_rel_sd", "operator_rel_sd", "outside")}
        for name in measured
    }
    return {
        "reference": lut.reference,
        "devices": list(devices.values()),
        "between": between,
        "operators": [_operator(lut, boards, measured, index) for index in range(len(boards["cells"]))],
    }


def _operator(lut: Lut, boards: Mapping[str, Any], measured: list[str], index: int) -> dict[str, Any]:
    layer, op = boards["cells"][index]
    spec = lut.space.spec(layer, op)
    row: dict[str, Any] = {
        "layer": layer,
        "op": lut.fixed_name(op) if layer == FIXED_LAYER else lut.space.op_names[op],
        "operator_id": boards["operators"][index],
        "label": spec.label() if spec else "",
    }
    for name in measured:
        unit = UNITS[name]
        for key, column in ((f"{name}_{unit}", f"value_{unit}"), (f"{name}_se_{unit}", f"se_{unit}")):
            row[key] = {device["name"]: device[column][index] for device in boards[name]["devices"]}
    return row


def _alone(lut: Lut) -> dict[str, Any]:
    """The same record for a LUT of one board: its own numbers."""
    devices = [device["name"] for device in lut.provenance.get("devices") or ()]
    if len(devices) != 1:
        raise BadInputError(f"{lut.reference} does not say what single boards measured; it was imported, or is too old")
    cells = [
        (layer, op)
        for layer in range(FIXED_LAYER, len(lut.space.layers))
        for op in (range(len(lut.space.stem + lut.space.head)) if layer == FIXED_LAYER else lut.space.allowed(layer))
    ]
    specs = [lut.space.spec(layer, op) for layer, op in cells]
    first = {
        spec: index for index, spec in reversed(list(enumerate(specs))) if spec is not None and spec.kind != "skip"
    }
    chosen = sorted(first.values())
    found: dict[str, Any] = {
        "operators": [specs[index].operator_id for index in chosen],  # type: ignore[union-attr]
        "cells": [list(cells[index]) for index in chosen],
    }
    for name in METRICS:
        metric: Metric | None = getattr(lut, name)
        if metric is not None:
            unit = UNITS[name]
            columns = {
                f"{column}_{unit}": [_cell(metric, column, *cells[index]) for index in chosen]
                for column in ("value", "se")
            }
            single = {"name": devices[0], "ratio": 1.0, "robust_z": None, **columns}
            spreads = dict.fromkeys(("between_rel_sd", "level_rel_sd", "operator_rel_sd"))
            found[name] = {**spreads, "outside": [], "devices": [single]}
    return found


def _cell(metric: Metric, column: str, layer: int, op: int) -> float | None:
    array = getattr(metric, f"fixed_{column}") if layer == FIXED_LAYER else getattr(metric, column)[layer]
    value = float(array[op])
    return value if math.isfinite(value) else None


# ---- for people ----


def tables(lut: Lut) -> list[RenderableType]:
    """How the boards stand to each other, then every operator on each."""
    found = record(lut)
    parts: list[RenderableType] = [_summary(found)]
    for name, spread in found["between"].items():
        if spread["between_rel_sd"] is not None:
            parts.append(Text(_spread_text(name, spread), style="dim"))
    return [*parts, *(_operators(found, name) for name in found["between"])]


def _spread_text(name: str, spread: Mapping[str, Any]) -> str:
    parts = ", ".join(
        f"{words} {percent(spread[key], sign=False)}"
        for key, words in (("level_rel_sd", "boards as a whole"), ("operator_rel_sd", "single operators beyond that"))
    )
    return f"{name} between boards: standard deviation {percent(spread['between_rel_sd'], sign=False)} ({parts})"


def _summary(found: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("board", no_wrap=True)
    for name in found["between"]:
        table.add_column(f"{name} against the middle", justify="right", no_wrap=True)
        table.add_column("robust z", justify="right", no_wrap=True)
    table.add_column("")
    for device in found["devices"]:
        numbers = []
        for name in found["between"]:
            ratio, z = device.get(f"{name}_ratio"), device.get(f"{name}_robust_z")
            numbers += [percent(None if ratio is None else ratio - 1), NOT_KNOWN if z is None else f"{z:+.1f}"]
        outside = any(device.get(f"{name}_outside") for name in found["between"])
        table.add_row(device["name"], *numbers, Text("outside the others", style="yellow") if outside else "")
    return table


def _operators(found: Mapping[str, Any], name: str) -> Table:
    key = f"{name}_{UNITS[name]}"
    names = [device["name"] for device in found["devices"]]
    rows = found["operators"]
    values = np.array([[row[key].get(n) if row[key].get(n) is not None else np.nan for n in names] for row in rows])
    scale = scale_for(name, values)
    decimals = decimals_for(values * scale.per_unit) + 1
    title = f"{name}, {scale.unit}, of each board alone (without correction)"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    table.add_column("layer", justify="right", style="dim")
    table.add_column("op", no_wrap=True)
    table.add_column("operator", no_wrap=True, style="dim")
    for device in names:
        table.add_column(device, justify="right", no_wrap=True)
    for row, own in zip(rows, values, strict=True):
        layer = str(row["layer"]) if row["layer"] >= 0 else ""
        shown = (f"{v * scale.per_unit:.{decimals}f}" if math.isfinite(v) else NOT_KNOWN for v in own)
        table.add_row(layer, row["op"], row["label"], *shown)
    return table
