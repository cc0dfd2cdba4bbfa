"""A LUT against networks that were measured later: without and with the anchors' rescaling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coordinator.evidence import gather
from coordinator.tables import known
from lut_store.estimate.latency import estimate_latency
from lut_store.estimate.validation import errors, noise_floor
from lut_store.lut import Lut
from lut_store.store import Store
from protos.errors import BadInputError


def validation_report(store: Store, run_id: str) -> dict[str, Any]:
    """Compare the LUT that a validate run names with the networks that it measured, without and with the anchors'
    rescaling.

    The anchors were measured with the LUT and again now: the median of their ratios says how far the board has moved.
    """
    spec = store.run(run_id).spec
    lut = store.lut_by_digest(spec.lut_digest)
    evidence = gather([*store.measurements(run_id, "latency"), *store.measurements(run_id, "power")])
    if not evidence.streams:
        raise BadInputError(f"run {run_id} has no latency measurement; there is nothing to compare")
    latency = estimate_latency(spec, evidence.streams, seed=evidence.seed)
    role = np.array([n.role for n in spec.networks])
    held_out = role == "validation"
    choices = np.array([n.choices for n in spec.networks])
    predicted = lut.predict(choices)[:, 0]  # (M,)
    ratios = anchor_ratios(
        lut, {n.choices: known(latency.network_s[i]) for i, n in enumerate(spec.networks) if n.role == "anchor"}
    )
    factor = float(np.median(ratios)) if ratios else None
    repeat, floor = noise_floor(latency.network_half_s[:, held_out])
    report: dict[str, Any] = {
        "lut": lut.reference,
        "digest": lut.digest,
        "run": run_id,
        "anchors": len(ratios),
        "anchor_factor": factor,
        "latency": {
            "plain": errors(predicted[held_out], latency.network_s[held_out]).document(),
            "repeat_mape": repeat,
            "noise_floor_mape": floor,
        },
    }
    if factor is not None:
        report["latency"]["rescaled"] = errors(factor * predicted[held_out], latency.network_s[held_out]).document()
    return report


def anchor_shift(lut: Lut, previous: Lut) -> float | None:
    """How far the anchors, the same networks in every run, have moved since the previous version; None if they say
    nothing.
    """
    ratios = anchor_ratios(previous, {tuple(a["choices"]): a["latency_s"] for a in lut.validation["anchors"]})
    return float(np.median(ratios)) - 1 if ratios else None


def anchor_ratios(lut: Lut, now_s: Mapping[tuple[int, ...], float | None]) -> list[float]:
    """Latency now ÷ latency with the LUT of every anchor network that both know."""
    then = {tuple(a["choices"]): a["latency_s"] for a in lut.validation.get("anchors", [])}
    return [now / then[choices] for choices, now in now_s.items() if now and then.get(choices)]
