"""Latency and energy per operator → the tables of a LUT, and what whole networks say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coordinator.plan import PRESETS
from lut_store.estimate.boards import Boards
from lut_store.estimate.correction import Correction, counts, fit_correction, kinds_of
from lut_store.estimate.energy import PowerEstimate
from lut_store.estimate.energy_form import drawn
from lut_store.estimate.executions import Array, slot_items
from lut_store.estimate.latency import Z95, LatencyEstimate
from lut_store.estimate.settings import DEFAULT, Settings
from lut_store.estimate.validation import errors, noise_floor
from lut_store.metric import Metric
from protos.types import CONTEXTS, CellRef, RunSpec


class Tables:
    """Latency and energy per item with their corrections, and what the networks say of them.

    `boards`: how several boards differ, by metric; empty for one board.
    """

    def __init__(
        self,
        spec: RunSpec,
        latency: LatencyEstimate,
        power: PowerEstimate | None,
        settings: Settings = DEFAULT,
        boards: Mapping[str, Boards] | None = None,
    ) -> None:
        self.spec, self.latency, self.power, self.boards = spec, latency, power, boards or {}
        cells, fixed = slot_items(spec)
        self.count = counts(spec, [n.choices for n in spec.networks], cells, fixed)  # (M, I)
        self.role = np.array([n.role for n in spec.networks])
        fit = self.role == "fit"
        kind = kinds_of(spec)
        rel_se = latency.network_se_s / latency.network_s
        self.latency_correction = fit_correction(
            latency.item_s, self.count[fit], kind, latency.network_s[fit], rel_se[fit], apply=settings.correction
        )
        if power is None:
            return
        self.item_j, self.item_se_j = item_energy(latency, power, settings)
        shown = drawn(power, settings.energy_form)
        self.network_j = latency.network_s * shown.network_w
        self.network_se_j = np.hypot(latency.network_se_s * shown.network_w, latency.network_s * shown.network_se_w)
        # The latency's correction is the energy's too; what is left is how the power of a network differs from its
        # blocks'.
        corrected_j = self.latency_correction.corrected * shown.item_w
        rel_se = self.network_se_j / self.network_j
        self.energy_correction = fit_correction(
            corrected_j, self.count[fit], kind, self.network_j[fit], rel_se[fit], apply=settings.correction
        )

    def latency_metric(self) -> Metric:
        return self._metric(
            "latency", self.latency.item_s, self.latency.item_se_s, self.latency.item_n, self.latency_correction
        )

    def energy_metric(self) -> Metric | None:
        if self.power is None:
            return None
        return self._metric("energy", self.item_j, self.item_se_j, self.power.item_samples, self.energy_correction)

    def _metric(self, name: str, value: Array, se: Array, n: Any, correction: Correction) -> Metric:
        unknown = ~np.isfinite(value)
        factor_rel_se = correction.factor_rel_se
        apart = self.boards.get(name)
        if apart is not None and np.isfinite(apart.rel_sd):
            se = apart.combined_se(value, se)
            factor_rel_se = apart.prediction_rel_se(factor_rel_se)
        return Metric.from_items(
            self.spec.space,
            self.spec.items,
            value,
            np.where(unknown, np.nan, se),
            n,
            np.where(unknown, np.nan, correction.corrected),
            correction=correction.parameters(),
            factor_rel_se=factor_rel_se,
            residual_rel_sd=correction.residual_rel_sd,
        )

    def flags(self) -> dict[CellRef, tuple[str, ...]]:
        """Words about single cells: what a reader must know before trusting the number."""
        words: dict[CellRef, tuple[str, ...]] = {}
        target = self.spec.plan.target_rel_halfwidth
        asked = PRESETS.get(self.spec.preset, PRESETS["standard"]).meter_samples
        halfwidth = Z95 * self.latency.item_se_s / self.latency.item_s
        for index, item in enumerate(self.spec.items):
            own = []
            if not np.isfinite(self.latency.item_s[index]):
                own.append("no latency")
            elif not halfwidth[index] <= target:
                own.append("wider than asked")
            if self.power is not None and not np.isfinite(self.power.item_power_w[index]):
                own.append("no energy")
            elif self.power is not None and self.power.item_samples[index] < asked:
                own.append("few meter samples")
            if own:
                words.update(dict.fromkeys(item.cells, tuple(own)))
        return words

    def validation(self) -> dict[str, Any]:
        """Predicted against measured networks that were not fitted to, uncorrected first; the noise floor beside."""
        held_out = self.role == "validation"
        record: dict[str, Any] = {
            "latency": self._errors(
                held_out,
                self.latency.item_s,
                self.latency_correction,
                self.latency.network_s,
                self.latency.network_se_s,
            )
        }
        repeat, floor = noise_floor(self.latency.network_half_s[:, held_out])
        record["latency"] |= {"repeat_mape": repeat, "noise_floor_mape": floor}
        if self.spec.plan.method == "paths":
            record["latency"] |= self._hot_loops(held_out)
        if self.power is not None:
            record["energy"] = self._errors(
                held_out, self.item_j, self.energy_correction, self.network_j, self.network_se_j
            )
            relative = (self.network_se_j / self.network_j)[held_out]
            # A folded normal: the mean absolute error that the measurement of the networks alone would make.
            finite = relative[np.isfinite(relative)]
            floor = float(np.sqrt(2 / np.pi) * np.sqrt(np.mean(finite**2))) if len(finite) else None
            record["energy"] |= {"repeat_mape": None, "noise_floor_mape": floor}
        other = errors(self.latency.other_context_s[held_out], self.latency.network_s[held_out])
        if other.n:
            ratio = np.nanmedian((self.latency.other_context_s / self.latency.network_s)[held_out])
            record["contexts"] = {
                "other": next(c for c in CONTEXTS if c != self.spec.plan.context),
                "ratio": float(ratio),
                "spearman": other.spearman,
                "n": other.n,
            }
        record["anchors"] = [
            {
                "choices": list(network.choices),
                "latency_s": known(self.latency.network_s[index]),
                "energy_j": None if self.power is None else known(self.network_j[index]),
            }
            for index, network in enumerate(self.spec.networks)
            if network.role == "anchor"
        ]
        return record

    def _hot_loops(self, held_out: np.ndarray[Any, Any]) -> dict[str, Any]:
        """What a table of hot loops, the one that other tools publish, would have predicted for the same networks."""
        hot_s, truth = self.latency.hot_item_s, self.latency.network_s
        if not np.isfinite(hot_s).all():
            return {}
        total, fit = self.count @ hot_s, self.role == "fit"
        known = fit & np.isfinite(truth)
        factor = float(np.median(truth[known] / total[known])) if known.any() else float("nan")
        return {
            "isolated": errors(total[held_out], truth[held_out]).document(),
            "isolated_with_factor": errors(factor * total[held_out], truth[held_out]).document(),
        }

    def _errors(
        self, chosen: np.ndarray[Any, Any], cost: Array, correction: Correction, truth: Array, truth_se: Array
    ) -> dict[str, Any]:
        uncorrected, corrected = self.count @ cost, self.count @ correction.corrected
        return {
            "uncorrected": errors(uncorrected[chosen], truth[chosen]).document(),
            "corrected": errors(corrected[chosen], truth[chosen]).document(),
            "networks": [
                {
                    "choices": list(self.spec.networks[index].choices),
                    "measured": known(truth[index]),
                    "measured_se": known(truth_se[index]),
                    "predicted_uncorrected": known(uncorrected[index]),
                    "predicted": known(corrected[index]),
                }
                for index in np.flatnonzero(chosen)
            ],
        }


def item_energy(latency: LatencyEstimate, power: PowerEstimate, settings: Settings) -> tuple[Array, Array]:
    """(I,) joules above idle per inference, and their standard errors."""
    shown = drawn(power, settings.energy_form)
    error_j = np.hypot(latency.item_se_s * shown.item_w, latency.item_s * shown.item_se_w)
    return latency.item_s * shown.item_w, error_j


def known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
