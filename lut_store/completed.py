"""A LUT of a run that measured a part of its space, completed with operators that a LUT of another space holds.

A run of `coordinator profile --only-missing` measures what no LUT of the same configuration has yet. Operators that
were measured under the same conditions in another space are taken from there as they are, labelled; the whole networks
of the run then say how well the sums of the completed table predict, old numbers and new together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lut_store.lut import METRICS, Lut
from lut_store.metric import Metric
from protos.errors import BadInputError
from protos.types import FIXED_LAYER, SKIP, BlockSpec, CellRef

FLAG = "reused"
NOT_COMPARED = ("space",)  # of the conditions: that the spaces differ is the point

Entry = tuple[float, float, int]  # value, standard error, samples


def check_conditions(lut: Lut, source: Lut, allow: tuple[str, ...] = ()) -> None:
    """Raise BadInputError naming the first condition in which the two were not measured alike."""
    pairs = [(table.provenance.get("conditions") or {}) for table in (lut, source)]
    for name in sorted(pairs[0].keys() & pairs[1].keys() - {*NOT_COMPARED, *allow}):
        values = [list(pair[name]) for pair in pairs]
        if values[0] and values[1] and values[0] != values[1]:
            now, then = (" and ".join(map(str, value)) for value in values)
            raise BadInputError(
                f"the operators of {source.reference} cannot be reused: {name} is {now} now and was {then} then; "
                "profile without --only-missing"
            )


def completed(lut: Lut, source: Lut) -> Lut:
    """`lut`, not stored yet, with the operators that only `source` holds; itself when there are none.

    A metric that is completed has no correction: there was no whole table to fit one to. A metric that the run did not
    measure stays unmeasured. Operators that both have measured say how far the board has moved: the provenance, under
    "reused", has their median ratio, now ÷ then.
    """
    flags = dict(lut.flags)
    metrics: dict[str, Metric] = {}
    reused: dict[BlockSpec, None] = {}
    taken: set[CellRef] = set()
    ratios: dict[str, dict[str, float | int]] = {}
    for name in METRICS:
        own, theirs = getattr(lut, name), getattr(source, name)
        if own is None or theirs is None:
            continue
        entries = _entries(source, theirs)
        ratios[name] = _ratio(_entries(lut, own), entries)
        filled, cells = _filled(lut, own, entries)
        if cells:
            metrics[name] = filled
            taken |= cells.keys()
            reused |= dict.fromkeys(cells.values())
    if not taken:
        return lut
    for cell in taken:
        words = [word for word in flags.get(cell, ()) if not word.startswith("no ")]
        flags[cell] = (*words, FLAG)
    table = replace(lut, **metrics, flags=flags)  # type: ignore[arg-type]
    method = dict(lut.provenance.get("method") or {}) | {"reused": source.digest}
    record = {
        "reference": source.reference,
        "digest": source.digest,
        "metrics": list(metrics),
        "cells": len(taken),
        "operators": [spec.label() for spec in reused],
        "measured_again": ratios,
    }
    validation = dict(lut.validation)
    for name in metrics:
        if isinstance(validation.get(name), Mapping):
            validation[name] = _revalidated(table, name, validation[name])
    return replace(table, validation=validation, provenance=dict(lut.provenance) | {"method": method, "reused": record})


def reused_sentence(lut: Lut) -> str:
    """What a reader must hear of a completed LUT; empty for any other."""
    record = lut.provenance.get("reused")
    if not isinstance(record, Mapping):
        return ""
    again = [
        f"{found['operators']} operators measured again in {name}: {found['ratio'] - 1:+.1%}"
        for name, found in record["measured_again"].items()
        if found["operators"]
    ]
    what = f"{' and '.join(record['metrics'])} of {record['cells']} cells ({len(record['operators'])} operators)"
    return "; ".join([f"{what} are those of {record['reference']}, not measured again", *again])


def _entries(source: Lut, metric: Metric) -> dict[BlockSpec, Entry]:
    """Every measured operator of a LUT; the first cell of those that were measured separately."""
    found: dict[BlockSpec, Entry] = {}
    for layer, row in enumerate(source.space.layers):
        for op, cell in enumerate(row.cells):
            if cell.spec is not None and cell.spec.kind != SKIP and not np.isnan(metric.value[layer, op]):
                place = layer, op
                entry = float(metric.value[place]), float(metric.se[place]), int(metric.n[place])
                found.setdefault(cell.spec, entry)
    ends = (*source.space.stem, *source.space.head) if source.fixed_included else ()
    for index, spec in enumerate(ends):
        if not np.isnan(metric.fixed_value[index]):
            fixed = float(metric.fixed_value[index]), float(metric.fixed_se[index]), int(metric.fixed_n[index])
            found.setdefault(spec, fixed)
    return found


def _ratio(now: Mapping[BlockSpec, Entry], then: Mapping[BlockSpec, Entry]) -> dict[str, float | int]:
    """How many operators both hold, and the median of their costs now ÷ then."""
    both = [now[spec][0] / then[spec][0] for spec in now if spec in then and then[spec][0] > 0]
    return {"operators": len(both), "ratio": float(np.median(both)) if both else 1.0}


def _filled(lut: Lut, metric: Metric, entries: Mapping[BlockSpec, Entry]) -> tuple[Metric, dict[CellRef, BlockSpec]]:
    """The metric with the entries where it has no number, and the cells that they went to."""
    grid: tuple[Any, ...] = metric.value.copy(), metric.se.copy(), metric.n.copy()
    ends: tuple[Any, ...] = metric.fixed_value.copy(), metric.fixed_se.copy(), metric.fixed_n.copy()
    filled: dict[CellRef, BlockSpec] = {}
    places = [CellRef(int(layer), int(op)) for layer, op in np.argwhere(np.isnan(metric.value) & lut.allowed)]
    places += [CellRef(FIXED_LAYER, int(index)) for index in np.flatnonzero(np.isnan(metric.fixed_value))]
    for cell in places:
        spec = lut.space.spec(cell.layer, cell.op)
        if spec is None or spec not in entries:
            continue
        filled[cell] = spec
        for array, number in zip(ends if cell.layer == FIXED_LAYER else grid, entries[spec], strict=True):
            array[cell.op if cell.layer == FIXED_LAYER else (cell.layer, cell.op)] = number
    unknown = float("nan")
    return (
        replace(
            metric,
            value=grid[0],
            se=grid[1],
            n=grid[2],
            corrected=grid[0],
            fixed_value=ends[0],
            fixed_se=ends[1],
            fixed_n=ends[2],
            fixed_corrected=ends[0],
            correction={"method": "none", "networks": 0, "factor": 1.0},
            factor_rel_se=unknown,
            residual_rel_sd=unknown,
        ),
        filled,
    )


def _revalidated(lut: Lut, name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the sums of the whole table against the networks that the run measured."""
    column = METRICS.index(name)
    alone = replace(lut, energy=None) if name == "latency" else replace(lut, latency=None)
    networks = [dict(network) for network in record.get("networks") or ()]
    if not networks:
        return dict(record)
    metric: Metric = getattr(lut, name)
    choices = np.array([network["choices"] for network in networks])
    known = ~np.isnan(metric.corrected[np.arange(choices.shape[1]), choices]).any(axis=1)
    predicted = np.full(len(networks), np.nan)
    predicted[known] = alone.predict(choices[known])[:, column]
    measured = np.array([np.nan if n["measured"] is None else n["measured"] for n in networks])
    for network, value in zip(networks, predicted.tolist(), strict=True):
        network["predicted"] = network["predicted_uncorrected"] = value
    from lut_store.estimate.validation import errors  # scipy, which who only shows a LUT does not need

    found = errors(predicted, measured).document()
    kept = {key: record[key] for key in ("noise_floor_mape", "repeat_mape") if key in record}
    return {"uncorrected": found, "corrected": found, "networks": networks, **kept}
