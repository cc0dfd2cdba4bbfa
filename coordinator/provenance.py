"""Where a LUT comes from: what a reader needs to trust it, and a maintainer to recompute it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from coordinator.evidence import Evidence
from coordinator.software import software
from coordinator.sources import Board
from coordinator.tables import Tables, item_energy, known
from lut_store.estimate.boards import Boards
from lut_store.estimate.latency import device_seconds
from lut_store.estimate.run_drift import latency_drift
from lut_store.estimate.settings import ENERGY_FORMS, HANNA_VOLTAGE_V, Settings, energy_words, latency_words
from protos.types import RunSpec


@dataclass(frozen=True)
class Origin:
    """What a LUT was built from and how, beside its evidence; records of plain values."""

    run_ids: tuple[str, ...]
    boards: tuple[Board, ...]
    settings: Settings
    conditions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    differing: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    excluded_devices: tuple[str, ...] = ()


def provenance(spec: RunSpec, evidence: Evidence, origin: Origin, tables: Tables) -> dict[str, Any]:
    """The record that docs/lut-format.md describes."""
    rounds = [r for stream in evidence.streams for r in stream]
    power = tables.power
    meters = [{"device": device, **asdict(meter)} for device, meter in evidence.meters]
    return {
        "evidence": {"measurements": len(evidence.used), "sha256": evidence.digest},
        "method": _method(spec, origin.settings, energy=power is not None),
        "settings": origin.settings.document(),
        "runs": list(origin.run_ids),
        "preset": spec.preset,
        "plan": asdict(spec.plan),
        "seed": spec.seed,
        "sweep_bytes": sorted({r.sweep_bytes for r in rounds}),
        "rounds": len(rounds),
        "rounds_flagged": evidence.flagged,
        "rounds_left_out": evidence.left_out,
        "disturbed_share": tables.latency.disturbed_share,
        "spread": known(tables.latency.spread),
        "drift": latency_drift(evidence.streams),
        "latency_device_s": device_seconds(evidence.streams),
        "energy_device_s": _energy_device_s(evidence),
        "devices": [dict(board) for board in origin.boards],
        "excluded_devices": list(origin.excluded_devices),
        "conditions": origin.conditions,
        "differing": origin.differing,
        "host": _host_range(evidence),
        "meter": None if evidence.meter is None else asdict(evidence.meter),
        "meters": meters,
        "meter_losses": sum(len(t.losses) for segment in evidence.segments for t in segment),
        "power": None if power is None else power.document(),
        "energy_forms": _energy_forms(tables, origin.settings),
        "boards": _boards(spec, tables.boards),
        "software": software(),
    }


def _method(spec: RunSpec, settings: Settings, *, energy: bool) -> dict[str, Any]:
    """Part of the digest: the same words for the same method, for ever."""
    method = {
        "latency": spec.plan.method,
        "latency_statistic": latency_words(settings),
        "energy": energy_words(settings) if energy else None,
        "dedupe": spec.dedupe,
    }
    return method if settings.correction else method | {"correction": "none"}


def _energy_forms(tables: Tables, settings: Settings) -> dict[str, Any] | None:
    """The energy of every operator by each formula, in joules: a version is built from one and keeps both."""
    if tables.power is None:
        return None
    record: dict[str, Any] = {"hanna_voltage_v": HANNA_VOLTAGE_V, "operators": operators(tables.spec)}
    for form in ENERGY_FORMS:
        own = Settings(settings.latency, settings.energy, form, settings.correction)
        record[f"{form}_j"] = [known(value) for value in item_energy(tables.latency, tables.power, own)[0]]
    return record


def operators(spec: RunSpec) -> list[str]:
    """The ids of the operators, in the order of the records that hold a number for each."""
    return [item.spec.operator_id for item in spec.items]


def _boards(spec: RunSpec, boards: Mapping[str, Boards]) -> dict[str, Any] | None:
    """How several boards differ; None for one board."""
    if not boards:
        return None
    record: dict[str, Any] = {
        "operators": operators(spec),
        "cells": [[item.cells[0].layer, item.cells[0].op] for item in spec.items],
    }
    for name, apart in boards.items():
        unit = {"latency": "s", "energy": "j"}[name]
        record[name] = {
            "between_rel_sd": known(apart.rel_sd),
            "level_rel_sd": known(apart.level_rel_sd),
            "operator_rel_sd": known(apart.operator_rel_sd),
            "outside": list(apart.outside),
            "devices": [
                {
                    "name": device,
                    "ratio": known(apart.ratio[index]),
                    "robust_z": known(apart.robust_z[index]),
                    f"value_{unit}": [known(value) for value in apart.value[index]],
                    f"se_{unit}": [known(value) for value in apart.se[index]],
                }
                for index, device in enumerate(apart.names)
            ],
        }
    return record


def _energy_device_s(evidence: Evidence) -> float:
    spans = [
        max(w.ended_ns for t in segment for w in t.windows) - min(w.started_ns for t in segment for w in t.windows)
        for segment in evidence.segments
        if any(t.windows for t in segment)
    ]
    return sum(spans) * 1e-9


def _host_range(evidence: Evidence) -> dict[str, Any]:
    """The least and greatest of what the board said of itself; None where it could not be read."""
    states = [state for m in evidence.used for state in (m.before, m.after)]
    record: dict[str, Any] = {}
    for name in ("temp_c", "frequency_hz", "load_1m", "other_cpu_share"):
        values = [v for s in states if (v := getattr(s, name)) is not None]
        record[name] = [min(values), max(values)] if values else None
    record["governor"] = sorted({s.governor for s in states if s.governor is not None})
    bits = [s.throttled_bits for s in states if s.throttled_bits is not None]
    record["throttled_bits"] = int(np.bitwise_or.reduce(bits)) if bits else None
    return record
