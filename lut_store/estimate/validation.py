"""How true a table is: its predictions against whole networks that it has not been fitted to."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import spearmanr

from lut_store.estimate.executions import Array

LEAST_FOR_RANKS = 3


@dataclass(frozen=True)
class Errors:
    """Relative errors of predictions, predicted ÷ measured − 1; None where it cannot be said."""

    n: int
    bias: float | None
    mape: float | None
    max: float | None
    spearman: float | None

    def document(self) -> dict[str, object]:
        return asdict(self)


def errors(predicted: Array, measured: Array) -> Errors:
    """predicted (M,), measured (M,); networks for which either is not finite are left out."""
    both = np.isfinite(predicted) & np.isfinite(measured)
    predicted, measured = predicted[both], measured[both]
    if not len(measured):
        return Errors(0, None, None, None, None)
    relative = predicted / measured - 1
    rho = float(spearmanr(predicted, measured).statistic) if len(measured) >= LEAST_FOR_RANKS else float("nan")
    return Errors(
        n=len(measured),
        bias=float(relative.mean()),
        mape=float(np.abs(relative).mean()),
        max=float(np.abs(relative).max()),
        spearman=rho if np.isfinite(rho) else None,
    )


def noise_floor(half: Array) -> tuple[float | None, float | None]:
    """half (2, M), the same networks measured twice: how far the two differ, mean relative, and the floor for a
    prediction.

    Each half holds half of the executions, so the error of both together is about half of their difference: no
    prediction can come closer to these measurements than that.
    """
    both = np.isfinite(half).all(axis=0)
    if not both.any():
        return None, None
    repeat = float(np.abs(half[0, both] / half[1, both] - 1).mean())
    return repeat, repeat / 2
