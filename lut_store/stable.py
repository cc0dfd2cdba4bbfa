"""Which versions may be tagged `stable`: a pure policy over a LUT and what lint found in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lut_store.lut import METRICS, Lut
from protos.types import Finding

MAX_MAPE = 0.05  # of predictions of whole networks; beyond it sums mislead a search more than they help it
ESTIMATED = "estimated"  # the flag of a cell that a regressor has filled in


def objections(lut: Lut, findings: Sequence[Finding], max_mape: float = MAX_MAPE) -> tuple[str, ...]:
    """Why the LUT should not be `stable`, in sentences; none when it may be.

    max_mape: the largest mean absolute relative error of corrected sums against held-out networks, for every metric
    that the LUT holds.
    """
    said = []
    if lut.configuration.emulation != "none":
        said.append(f"its data are from an emulated {lut.configuration.emulation}, not from hardware")
    metrics = [name for name in METRICS if getattr(lut, name) is not None]
    if not metrics:
        said.append("it holds no numbers")
    for name in metrics:
        said += [*_gaps(lut, name), *_validation(lut, name, max_mape)]
    said += [f"lint, {finding.rule}: {finding.sentence}" for finding in findings if finding.severity == "error"]
    return tuple(said)


def _gaps(lut: Lut, name: str) -> list[str]:
    metric = getattr(lut, name)
    said = []
    estimated = np.zeros(lut.space.shape, bool)
    for cell, words in lut.flags.items():
        if ESTIMATED in words and cell.layer >= 0:
            estimated[cell.layer, cell.op] = True
    measured = int((lut.allowed & ~np.isnan(metric.value) & ~estimated).sum())
    allowed = int(lut.allowed.sum())
    if measured < allowed:
        said.append(f"its {name} covers {measured} of {allowed} cells")
    holes = int(np.isnan(metric.fixed_value).sum())
    if lut.fixed_included and holes:
        said.append(f"{holes} of the {metric.fixed_value.size} operators of stem and head have no {name}")
    return said


def _validation(lut: Lut, name: str, max_mape: float) -> list[str]:
    mape = validation_mape(lut, name)
    if mape is None:
        return [f"its {name} was never validated against measured networks"]
    return [f"its {name} misses measured networks by {mape:.1%} (MAPE), more than {max_mape:.1%}"] * (mape > max_mape)


def validation_mape(lut: Lut, metric: str) -> float | None:
    """Mean absolute relative error of the corrected predictions (docs/architecture.md), None when it is not known."""
    value: Any = lut.validation
    for key in (metric, "corrected", "mape"):
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, (int, float)) else None
