"""A LUT whose missing cells are filled with guesses from the measured operators, labelled as what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lut_store import regressor
from lut_store.features import shape_of
from lut_store.lut import METRICS, Lut
from lut_store.metric import Array, Metric
from protos.errors import BadInputError
from protos.types import FIXED_LAYER, SKIP, BlockSpec, CellRef

FLAG = "estimated"


@dataclass(frozen=True)
class Known:
    """A measured operator: median over its cells of the cost, and of its relative standard error."""

    cost: float
    rel_se: float


def estimated(lut: Lut) -> Lut:
    """`lut` with a guess in every missing cell that can be guessed; `lut` itself when nothing is missing.

    Each kind of operator is guessed from measured ones of the same kind (lut_store.regressor). A guess has the flag
    "estimated", no samples, and the cross-validated root mean square error as its standard error; its corrected number
    stands to it as in the cells of the same candidate. A missing skip costs what other skips do, else nothing. The
    provenance, under "estimates", holds how well left-out operators were predicted, and which operators stay missing
    because too few of their kind were measured. Raises BadInputError when nothing can be guessed.
    """
    cells = {name: _missing(lut, metric) for name, metric in _metrics(lut).items()}
    if not any(cells.values()):
        return lut
    filled: dict[str, Metric] = {}
    records: dict[str, Any] = {}
    flags = dict(lut.flags)
    for name, metric in _metrics(lut).items():
        guesses, record = _guesses(lut, metric, cells[name])
        filled[name] = _with(metric, guesses)
        records[name] = record
        for cell in guesses:
            flags[cell] = (*(word for word in flags.get(cell, ()) if word != FLAG), FLAG)
    if not any(record["cells"] for record in records.values()):
        reasons = "; ".join(
            dict.fromkeys(why for record in records.values() for why in record["left_missing"].values())
        )
        raise BadInputError(f"{lut.reference}: no missing cell can be estimated: {reasons}")
    method = lut.provenance.get("method")
    ways = {name: {kind: cv["method"] for kind, cv in record["kinds"].items()} for name, record in records.items()}
    return replace(
        lut,
        **filled,  # type: ignore[arg-type]
        flags=flags,
        provenance=dict(lut.provenance)
        | {
            "method": (dict(method) if isinstance(method, Mapping) else {}) | {"estimates": ways},
            "estimates": {"of": lut.digest, "reference": lut.reference, **records},
        },
        version=0,
        created_wall_s=0.0,
    )


def _metrics(lut: Lut) -> dict[str, Metric]:
    return {name: metric for name in METRICS if (metric := getattr(lut, name)) is not None}


def _missing(lut: Lut, metric: Metric) -> list[CellRef]:
    """Allowed cells, and operators of stem and head that the LUT includes, without a number."""
    found = [CellRef(int(layer), int(op)) for layer, op in np.argwhere(np.isnan(metric.value) & lut.allowed)]
    ends = np.flatnonzero(np.isnan(metric.fixed_value)).tolist() if lut.fixed_included else []
    return found + [CellRef(FIXED_LAYER, index) for index in ends]


def measured_operators(lut: Lut, metric: Metric) -> dict[BlockSpec, Known]:
    """Every operator with a positive number; a cost at or below zero is noise, and has no logarithm."""
    seen: dict[BlockSpec, list[tuple[float, float]]] = {}
    ends = (*lut.space.stem, *lut.space.head) if lut.fixed_included else ()
    pairs = [(spec, metric.fixed_value[i], metric.fixed_se[i]) for i, spec in enumerate(ends)]
    for layer, row in enumerate(lut.space.layers):
        for op, cell in enumerate(row.cells):
            if cell.spec is not None:
                pairs.append((cell.spec, metric.value[layer, op], metric.se[layer, op]))
    for spec, value, se in pairs:
        if value > 0:
            seen.setdefault(spec, []).append((float(value), float(se / value)))
    return {spec: Known(*(float(v) for v in np.median(np.array(own), axis=0))) for spec, own in seen.items()}


def _guesses(
    lut: Lut, metric: Metric, missing: list[CellRef]
) -> tuple[dict[CellRef, tuple[float, float]], dict[str, Any]]:
    """Value and standard error of each missing cell that can be guessed, and the record of it."""
    measured = measured_operators(lut, metric)
    wanted: dict[BlockSpec, list[CellRef]] = {}
    for cell in missing:
        spec = lut.space.spec(cell.layer, cell.op)
        assert spec is not None  # it is allowed
        wanted.setdefault(spec, []).append(cell)
    guesses: dict[CellRef, tuple[float, float]] = {}
    kinds: dict[str, Any] = {}
    left: dict[str, str] = {}
    for kind in dict.fromkeys(spec.kind for spec in wanted):
        specs = [spec for spec in wanted if spec.kind == kind]
        if kind == SKIP:
            own = [known.cost for spec, known in measured.items() if spec.kind == SKIP]
            cost = float(np.median(own)) if own else 0.0
            found = [(cost, float("nan") if own else 0.0)] * len(specs)
        else:
            sources = [spec for spec in measured if spec.kind == kind]
            try:
                found, kinds[kind] = _regressed(sources, [measured[spec] for spec in sources], specs)
            except BadInputError as error:
                left |= {spec.label(): str(error) for spec in specs}
                continue
        guesses |= {cell: guess for spec, guess in zip(specs, found, strict=True) for cell in wanted[spec]}
    record = {
        "cells": len(guesses),
        "operators": len(wanted) - len(left),
        "measured_operators": sum(spec.kind != SKIP for spec in measured),
        "kinds": kinds,
        "left_missing": left,
    }
    return guesses, record


def _regressed(
    sources: list[BlockSpec], known: list[Known], wanted: list[BlockSpec]
) -> tuple[list[tuple[float, float]], dict[str, Any]]:
    shapes = set(map(shape_of, sources))
    by_shape = any(shape_of(spec) not in shapes for spec in wanted)
    cost, rel_se = np.array([k.cost for k in known]), np.array([k.rel_se for k in known])
    fitted = regressor.fit(sources, cost, rel_se, by_shape=by_shape)
    values: Array = fitted.predict(wanted)
    se = values * fitted.validation.rel_rms
    return list(zip(values.tolist(), se.tolist(), strict=True)), fitted.validation.document()


def _with(metric: Metric, guesses: Mapping[CellRef, tuple[float, float]]) -> Metric:
    """The metric with the guesses in their places."""
    ratio = correction_ratios(metric)
    value, se, corrected = metric.value.copy(), metric.se.copy(), metric.corrected.copy()
    n = metric.n.copy()
    fixed = {name: getattr(metric, f"fixed_{name}").copy() for name in ("value", "se", "n", "corrected")}
    for cell, (cost, error) in guesses.items():
        if cell.layer == FIXED_LAYER:
            at = cell.op
            fixed["value"][at], fixed["se"][at], fixed["n"][at] = cost, error, 0
            fixed["corrected"][at] = cost * float(np.median(ratio))
        else:
            place = cell.layer, cell.op
            value[place], se[place], n[place] = cost, error, 0
            corrected[place] = cost * ratio[cell.op]
    return replace(
        metric,
        value=value,
        se=se,
        n=n,
        corrected=corrected,
        **{f"fixed_{name}": array for name, array in fixed.items()},
    )


def correction_ratios(metric: Metric) -> Array:
    """(K,) corrected ÷ measured of each candidate, median over its cells; over all cells where it has none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(metric.value > 0, metric.corrected / metric.value, np.nan)
    overall = float(np.nanmedian(ratio)) if not np.isnan(ratio).all() else 1.0
    by_candidate = [np.nanmedian(column) if not np.isnan(column).all() else overall for column in ratio.T]
    return np.array(by_candidate, np.float64)
