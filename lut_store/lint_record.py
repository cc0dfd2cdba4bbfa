"""Rules about how a LUT was measured: its record (provenance, flags, corrections), not its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lut_store.lut import METRICS, Lut
from protos.types import Finding

DISTURBED_SHARE = 0.3  # of the executions: beyond it the machine was not at rest
CORRECTION_WARNING, CORRECTION_ERROR = 0.05, 0.25  # of the median entry: sums that miss whole networks by as much
DRIFT_WARNING, DRIFT_ERROR = 0.03, 0.10  # of latency, between the first and the last third of a run
DRIFT_Z = 3.0
IDLE_WANDER = 0.1  # of the idle power, standard deviation
CALIBRATION_AGE_S = 365 * 86400.0
_DAY_S = 86400.0
# What `vcgencmd get_throttled` says of the moment in which it is asked.
THROTTLE_BITS = ((0, "under-voltage"), (1, "capped frequency"), (2, "throttling"), (3, "soft temperature limit"))
TROUBLE = ("throttled", "hot", "disturbed", "frequency")  # flags of measurements and of cells


def flagged(lut: Lut) -> list[Finding]:
    """Hot, throttled or disturbed samples are left out, or said."""
    found, p = [], lut.provenance
    count, left_out = _number(p.get("rounds_flagged")), _number(p.get("rounds_left_out"))
    if count and left_out == 0:
        sentence = (
            f"{count:.0f} rounds were hot, throttled or disturbed while they ran, and are in these numbers all the same"
        )
        found.append(Finding("flagged-samples", "error", f"{sentence}, for want of enough others"))
    disturbed = _number(p.get("disturbed_share"))
    if disturbed is not None and disturbed > DISTURBED_SHARE:
        sentence = (
            f"{disturbed:.0%} of the executions ran in unusual moments of the machine "
            f"(usual is below {DISTURBED_SHARE:.0%})"
        )
        found.append(Finding("flagged-samples", "warning", sentence))
    host = p.get("host")
    bits = _number(host.get("throttled_bits")) if isinstance(host, Mapping) else None
    said = [words for bit, words in THROTTLE_BITS if bits is not None and int(bits) >> bit & 1]
    if said:
        sentence = f"the board reported {' and '.join(said)} while it measured; use a better supply or cooling"
        found.append(Finding("flagged-samples", "warning", sentence))
    troubled = [cell for cell, words in lut.flags.items() if set(words) & set(TROUBLE)]
    cells = tuple(sorted(troubled, key=lambda cell: (cell.layer, cell.op)))
    if cells:
        words = sorted({word for own in lut.flags.values() for word in own} & set(TROUBLE))
        sentence = f"{len(cells)} cells rest on samples that were {' or '.join(words)}"
        found.append(Finding("flagged-samples", "warning", sentence, cells=cells))
    return found


def correction(lut: Lut) -> list[Finding]:
    """Entries that are true need little correction to sum up to whole networks."""
    found = []
    for name in METRICS:
        metric = getattr(lut, name)
        if metric is None:
            continue
        own = metric.value > 0
        if not own.any():
            continue
        factor = float(np.median(metric.corrected[own] / metric.value[own]))
        if abs(factor - 1) > CORRECTION_WARNING:
            severity = "error" if abs(factor - 1) > CORRECTION_ERROR else "warning"
            sentence = (
                f"the correction changes the median entry by {factor - 1:+.1%}: sums of what was measured miss whole "
                "networks by about as much"
            )
            found.append(Finding("correction", severity, sentence, name))
    return found


def drift(lut: Lut) -> list[Finding]:
    """A board that changes while it is measured gives a table of no moment at all."""
    found = []
    record = lut.provenance.get("drift")
    change = _number(record.get("latency")) if isinstance(record, Mapping) else None
    se = _number(record.get("latency_se")) if isinstance(record, Mapping) else None
    if change is not None and abs(change) > max(DRIFT_WARNING, DRIFT_Z * (se or 0.0)):
        severity = "error" if abs(change) > DRIFT_ERROR else "warning"
        sentence = f"the networks took {change:+.1%} time in the last third of the run against the first"
        found.append(Finding("drift", severity, sentence, "latency"))
    power = lut.provenance.get("power")
    if isinstance(power, Mapping):
        idle, wander = _number(power.get("idle_power_w")), _number(power.get("idle_power_sd_w"))
        if idle and wander is not None and wander > IDLE_WANDER * idle:
            sentence = (
                f"the idle power wandered by {wander / idle:.0%} of its {idle:.2f} W (standard deviation) in the run"
            )
            found.append(Finding("drift", "warning", sentence, "energy"))
    return found


def calibration(lut: Lut) -> list[Finding]:
    """A meter's lag and its offset at idle come from its calibration; those of an emulated one are known."""
    if lut.energy is None:
        return []
    meters = lut.provenance.get("meters") or [lut.provenance.get("meter")]
    return [
        Finding("calibration", "warning", said, "energy")
        for meter in meters
        if isinstance(meter, Mapping)
        and not meter.get("emulated")
        and (said := _uncalibrated(meter, lut.created_wall_s))
    ]


def _uncalibrated(meter: Mapping[str, Any], now_wall_s: float) -> str:
    """What is wrong with the calibration of a real meter, "" when nothing is."""
    name = " ".join(str(meter[key]) for key in ("model", "serial") if meter.get(key)) or str(meter.get("kind"))
    record = meter.get("calibration")
    if not isinstance(record, Mapping):
        return f"{name} has no calibration; its lag and its offset at idle are guesses: run edgelut-agent calibrate"
    if record.get("firmware", meter.get("firmware")) != meter.get("firmware"):
        return (
            f"the calibration of {name} is of its firmware {record['firmware'] or 'unknown'}, not of "
            f"{meter.get('firmware') or 'unknown'}: run edgelut-agent calibrate again"
        )
    measured_wall_s = _number(record.get("measured_wall_s"))
    age_s = now_wall_s - measured_wall_s if measured_wall_s and now_wall_s else 0.0
    if age_s <= CALIBRATION_AGE_S:
        return ""
    return f"the calibration of {name} was {age_s / _DAY_S:.0f} days old: run edgelut-agent calibrate again"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
