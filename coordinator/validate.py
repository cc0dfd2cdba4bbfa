"""A LUT against networks that were measured later: without and with the anchors' rescaling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coordinator.evidence import gather
from coordinator.operator_changes import anchor_se, operator_report
from coordinator.tables import known
from lut_store.estimate.energy import estimate_power
from lut_store.estimate.energy_form import Drawn, drawn
from lut_store.estimate.executions import Array
from lut_store.estimate.latency import LatencyEstimate, estimate_latency
from lut_store.estimate.settings import Settings
from lut_store.estimate.validation import errors, noise_floor
from lut_store.lut import Lut
from lut_store.store import Store
from protos.errors import BadInputError
from protos.types import RunSpec


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
    settings = Settings.of(lut.provenance.get("settings"))  # as the LUT itself was built
    latency = estimate_latency(spec, evidence.streams, seed=evidence.seed, statistic=settings.latency)
    role = np.array([n.role for n in spec.networks])
    held_out = role == "validation"
    choices = np.array([n.choices for n in spec.networks])
    predicted, predicted_j = lut.predict(choices).T  # (M,) each
    power = estimate_power(spec, evidence.segments, settings.energy) if evidence.segments else None
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
        "anchor_se": anchor_se((latency.network_se_s / latency.network_s)[role == "anchor"]),
        "operators": operator_report(lut, spec.items, latency),
        "latency": {
            "plain": errors(predicted[held_out], latency.network_s[held_out]).document(),
            "repeat_mape": repeat,
            "noise_floor_mape": floor,
        },
    }
    if factor is not None:
        report["latency"]["rescaled"] = errors(factor * predicted[held_out], latency.network_s[held_out]).document()
    shown = None if power is None else drawn(power, settings.energy_form)
    if shown is not None:
        network_j = latency.network_s * shown.network_w
        report["energy"] = {"plain": errors(predicted_j[held_out], network_j[held_out]).document()}
    report["networks"] = _networks(spec, latency, shown, predicted, predicted_j)
    return report


def _networks(
    spec: RunSpec, latency: LatencyEstimate, power: Drawn | None, predicted_s: Array, predicted_j: Array
) -> list[dict[str, Any]]:
    """Every network of the run: measured and predicted, in s and J; None where it is not known."""
    unknown = np.full(len(spec.networks), np.nan)
    power_w = unknown if power is None else power.network_w
    power_se_w = unknown if power is None else power.network_se_w
    energy_j = latency.network_s * power_w
    energy_se_j = np.hypot(latency.network_se_s * power_w, latency.network_s * power_se_w)
    columns = {
        "latency_s": latency.network_s,
        "latency_se_s": latency.network_se_s,
        "energy_j": energy_j,
        "energy_se_j": energy_se_j,
        "predicted_latency_s": predicted_s,
        "predicted_energy_j": predicted_j,
    }
    return [
        {
            "role": network.role,
            "choices": list(network.choices),
            **{name: known(column[index]) for name, column in columns.items()},
        }
        for index, network in enumerate(spec.networks)
    ]


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
