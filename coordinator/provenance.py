"""Where a LUT comes from: everything that is needed to repeat or to recompute it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from coordinator.evidence import Evidence
from coordinator.tables import known
from lut_store.estimate.energy import PowerEstimate
from lut_store.estimate.latency import LatencyEstimate, device_seconds
from protos.types import Device, RunSpec


def provenance(
    spec: RunSpec,
    evidence: Evidence,
    devices: Sequence[Device],
    run_id: str,
    latency: LatencyEstimate,
    power: PowerEstimate | None,
) -> dict[str, Any]:
    rounds = [r for stream in evidence.streams for r in stream]
    return {
        "evidence": {"measurements": len(evidence.used), "sha256": evidence.digest},
        "method": {
            "latency": spec.plan.method,
            "latency_statistic": "median per operator, common mode of the machine taken out",
            "energy": None if power is None else "one least-squares fit of the trace, (P_load - P_idle) x t",
            "dedupe": spec.dedupe,
        },
        "runs": [run_id],
        "preset": spec.preset,
        "plan": asdict(spec.plan),
        "seed": spec.seed,
        "sweep_bytes": sorted({r.sweep_bytes for r in rounds}),
        "rounds": len(rounds),
        "rounds_flagged": evidence.flagged,
        "rounds_left_out": evidence.left_out,
        "disturbed_share": latency.disturbed_share,
        "spread": known(latency.spread),
        "latency_device_s": device_seconds(evidence.streams),
        "energy_device_s": _energy_device_s(evidence),
        "devices": [asdict(device) | {"host": None} for device in devices],
        "host": _host_range(evidence),
        "meter": None if evidence.meter is None else asdict(evidence.meter),
        "meter_losses": sum(len(t.losses) for segment in evidence.segments for t in segment),
        "power": None if power is None else power.document(),
    }


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
