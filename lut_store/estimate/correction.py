"""From the sum of operators to a whole network: a correction that keeps the table additive.

Fitted on the networks of role "fit", never on those that validate. A common factor is applied when it differs from 1
by more than twice its standard error: below that it would add its own noise to a table that needs none. With enough
networks, every kind (the candidate's column) may deviate from the factor and every operator may gain a constant,
shrunk by ridge regression with a strength chosen by leave-one-out, when that clearly lowers the leave-one-out error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lut_store.estimate.executions import Array, IntArray
from lut_store.estimate.latency import MEDIAN_SE
from protos.types import FIXED_LAYER, RunSpec

PENALTIES = tuple(10.0**e for e in np.arange(-3, 4.1, 0.5))  # of the ridge, relative to one network
LEAST_FOR_FACTOR = 3  # networks
LEAST_FOR_RIDGE = 12
WORTHWHILE = 0.9  # the ridge must bring the leave-one-out error below this share of the simpler one's
PROCESS_REL_SE = 0.003  # of the level: one process is one draw of placements, and cannot see that
SIGNIFICANT = 2.0  # standard errors that the factor must be away from 1


@dataclass(frozen=True)
class Correction:
    """corrected (items,): cost per operator that predict() sums, NaN where the item is unknown.

    method: "none", "factor" or "ridge"; networks: how many it was fitted on; factor: the common factor; constant: per
    operator, in the unit of the cost; residual_rel_sd: spread of networks around the corrected sum beyond their own
    measurement noise; factor_rel_se: standard error of the level; loo_rel_rms: leave-one-out error.
    """

    method: str
    networks: int
    factor: float
    constant: float
    corrected: Array
    residual_rel_sd: float
    factor_rel_se: float
    loo_rel_rms: float

    def parameters(self) -> dict[str, object]:
        """What a LUT keeps of it, ready for JSON; a number that is not known is None."""

        def known(value: float) -> float | None:
            return value if np.isfinite(value) else None

        return {
            "method": self.method,
            "networks": self.networks,
            "factor": self.factor,
            "constant_per_operator": self.constant,
            "loo_rel_rms": known(self.loo_rel_rms),
        }


def counts(spec: RunSpec, architectures: Sequence[Sequence[int]], cells: IntArray, fixed: IntArray) -> Array:
    """(architectures, items): how often each operator stands in each network, stem and head included, skips not."""
    result = np.zeros((len(architectures), len(spec.items)))
    for row, choices in enumerate(architectures):
        for item in (*cells[np.arange(len(choices)), list(choices)], *fixed):
            if item >= 0:
                result[row, item] += 1
    return result


def kinds_of(spec: RunSpec) -> IntArray:
    """(items,) the candidate's column, or -1 for stem and head."""
    return np.array([-1 if i.cells[0].layer == FIXED_LAYER else i.cells[0].op for i in spec.items], np.int64)


def no_correction(cost: Array) -> Correction:
    return Correction("none", 0, 1.0, 0.0, cost, float("nan"), float("nan"), float("nan"))


def fit_correction(
    cost: Array, count: Array, kind: IntArray, truth: Array, truth_rel_se: Array, *, apply: bool = True
) -> Correction:
    """cost (I,), count (M, I), kind (I,), truth (M,) measured networks of role "fit" and their relative standard
    errors. Without `apply` nothing is corrected, and the networks say only how far the plain sums are off."""
    usable = np.isfinite(truth) & ~(count[:, ~np.isfinite(cost)] > 0).any(axis=1)
    count, truth, truth_rel_se = count[usable], truth[usable], np.nan_to_num(truth_rel_se[usable])
    if len(truth) < LEAST_FOR_FACTOR:
        return no_correction(cost)
    known = np.nan_to_num(cost)
    ratio = truth / (count @ known)
    factor = float(np.median(ratio))
    spread = 1.4826 * float(np.median(np.abs(ratio - factor)))
    if not apply or abs(factor - 1) <= SIGNIFICANT * MEDIAN_SE * spread / np.sqrt(len(ratio)):
        plain_rms = float(np.sqrt(np.mean((1 / ratio - 1) ** 2)))
        result = _finish("none", 1.0, 0.0, cost, truth, truth_rel_se, plain_rms)
    else:
        result = _finish("factor", factor, 0.0, factor * cost, truth, truth_rel_se, _loo_rms_of_factor(ratio))
    if apply and len(truth) >= LEAST_FOR_RIDGE:
        ridge = _ridge(cost, count, kind, truth, truth_rel_se, factor)
        if ridge.loo_rel_rms < WORTHWHILE * result.loo_rel_rms:
            return ridge
    return result


def _loo_rms_of_factor(ratio: Array) -> float:
    left_out = [np.median(np.delete(ratio, i)) for i in range(len(ratio))]
    return float(np.sqrt(np.mean((left_out / ratio - 1) ** 2)))


def _ridge(cost: Array, count: Array, kind: IntArray, truth: Array, truth_rel_se: Array, factor: float) -> Correction:
    known = np.nan_to_num(cost)
    columns = [kind == k for k in np.unique(kind)]
    typical = float(np.median(known[known > 0]))
    features = np.column_stack(
        [count @ (known * own) for own in columns] + [count.sum(axis=1) * typical]
    )  # (M, kinds + 1)
    design = features / truth[:, None]
    target = 1 - factor * (count @ known) / truth
    level = design.sum(axis=1, keepdims=True)  # the common factor itself is not shrunk
    best: tuple[float, Array] | None = None
    for penalty in PENALTIES:
        full = np.column_stack([level, design])
        shrink = np.diag([1e-9] + [penalty] * design.shape[1])
        inverse = np.linalg.inv(full.T @ full + shrink)
        hat = full @ inverse @ full.T
        left_out = (target - hat @ target) / np.clip(1 - np.diag(hat), 1e-3, None)
        rms = float(np.sqrt(np.mean(left_out**2)))
        if best is None or rms < best[0]:
            best = (rms, inverse @ full.T @ target)
    assert best is not None
    rms, coefficients = best
    by_kind, constant = coefficients[0] + coefficients[1:-1], (coefficients[0] + coefficients[-1]) * typical
    multiplier = factor + np.select(columns, list(by_kind))
    return _finish("ridge", factor, float(constant), multiplier * cost + constant, truth, truth_rel_se, rms)


def _finish(
    method: str,
    factor: float,
    constant: float,
    corrected: Array,
    truth: Array,
    truth_rel_se: Array,
    loo_rel_rms: float,
) -> Correction:
    noise = float(np.mean(truth_rel_se**2))
    residual = float(np.sqrt(max(loo_rel_rms**2 - noise, 0.0)))
    level_se = np.hypot(loo_rel_rms / np.sqrt(len(truth)), PROCESS_REL_SE)
    return Correction(method, len(truth), factor, constant, corrected, residual, float(level_se), loo_rel_rms)
