"""What a validate run says of single operators: which of them no longer cost what the LUT says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from lut_store.estimate.latency import MEDIAN_SE, LatencyEstimate
from lut_store.lut import Lut
from lut_store.metric import Array
from protos.types import FIXED_LAYER, PlanItem

PROCESS_REL_SE = 0.003  # of the level: one process is one draw of placements (lut_store.estimate.correction)
FDR = 0.05  # of the operators that are called changed
OPERATOR_CHANGE = 0.05  # beside the common shift: smaller ones are not worth a new profile


def operator_report(lut: Lut, items: Sequence[PlanItem], latency: LatencyEstimate) -> dict[str, Any] | None:
    """How the operators of a run compare with the entries of the LUT, both as measured, without correction.

    shift is the median over the operators; changed are those that differ from it beyond the uncertainty of both
    (Benjamini and Hochberg at FDR) and by more than OPERATOR_CHANGE. None when no
    operator has an uncertainty in both.
    """
    if lut.latency is None:
        return None
    then_s, then_se_s = _entries(lut, items)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.log(latency.item_s / then_s)  # (I,)
        se = np.hypot(latency.item_se_s / latency.item_s, then_se_s / then_s)
    known = np.isfinite(change) & np.isfinite(se) & (se > 0)
    if not known.any():
        return None
    shift = float(np.median(change[known]))
    z = np.abs(change[known] - shift) / se[known]
    q = stats.false_discovery_control(2 * stats.norm.sf(z), method="bh")
    beside = np.expm1(change[known] - shift)
    changed = (q <= FDR) & (np.abs(beside) > OPERATOR_CHANGE)
    indices = np.flatnonzero(known)
    order = np.argsort(-np.abs(beside))
    return {
        "tested": int(known.sum()),
        "changed": int(changed.sum()),
        "fdr": FDR,
        "shift": float(np.expm1(shift)),
        "changes": [
            {
                "label": items[indices[i]].spec.label(),
                "layer": items[indices[i]].cells[0].layer,
                "op": items[indices[i]].cells[0].op,
                "then_s": float(then_s[indices[i]]),
                "now_s": float(latency.item_s[indices[i]]),
                "beside_shift": float(beside[i]),
            }
            for i in order
            if changed[i]
        ],
    }


def _entries(lut: Lut, items: Sequence[PlanItem]) -> tuple[Array, Array]:
    """(I,) latency and standard error of the LUT's entries for the items."""
    assert lut.latency is not None
    metric, cells = lut.latency, [item.cells[0] for item in items]
    value = [metric.fixed_value[c.op] if c.layer == FIXED_LAYER else metric.value[c.layer, c.op] for c in cells]
    se = [metric.fixed_se[c.op] if c.layer == FIXED_LAYER else metric.se[c.layer, c.op] for c in cells]
    return np.array(value, np.float64), np.array(se, np.float64)


def anchor_se(rel_se: Array) -> float:
    """Relative standard error of the anchors' median shift. rel_se (n,): of their latencies now; then it was alike."""
    known = rel_se[np.isfinite(rel_se)]
    own = MEDIAN_SE * float(np.sqrt(2 * np.mean(known**2) / len(known))) if len(known) else 0.0
    return float(np.hypot(own, np.sqrt(2) * PROCESS_REL_SE))
