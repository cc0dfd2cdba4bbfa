"""Which versions may be `stable`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lut_store.lut import Lut
from lut_store.stable import objections
from protos.types import CellRef, Configuration, Finding
from tests.lut_store.samples import lut_of

VALIDATED = {name: {"corrected": {"mape": 0.01}} for name in ("latency", "energy")}


def fit() -> Lut:
    return lut_of(validation=VALIDATED, flags={})


def said(lut: Lut, findings: tuple[Finding, ...] = (), max_mape: float = 0.05) -> str:
    return "; ".join(objections(lut, findings, max_mape))


def test_a_table_without_faults_may_be_stable() -> None:
    assert objections(fit(), ()) == ()
    assert objections(fit(), (Finding("drift", "warning", "a little"),)) == ()
    assert objections(replace(fit(), energy=None), ()) == ()  # latency alone is whole in itself


def test_every_reason_is_said_at_once() -> None:
    lut = replace(fit(), validation={}, configuration=Configuration("rpi3b", "sample", emulation="device"))
    found = objections(lut, (Finding("drift", "error", "it ran away"),))
    assert found == (
        "its data are from an emulated device, not from hardware",
        "its latency was never validated against measured networks",
        "its energy was never validated against measured networks",
        "lint, drift: it ran away",
    )
    assert said(replace(fit(), latency=None, energy=None)) == "it holds no numbers"


def test_a_validation_worse_than_the_policy() -> None:
    poor = replace(fit(), validation={**VALIDATED, "energy": {"corrected": {"mape": 0.061}}})
    assert said(poor) == "its energy misses measured networks by 6.1% (MAPE), more than 5.0%"
    assert said(poor, max_mape=0.07) == ""


def test_holes_and_estimates_are_not_coverage() -> None:
    lut = fit()
    assert lut.latency is not None
    allowed = int(lut.allowed.sum())
    value = lut.latency.value.copy()
    value[1, 2] = np.nan
    holed = replace(lut, latency=replace(lut.latency, value=value, corrected=value))
    assert said(holed) == f"its latency covers {allowed - 1} of {allowed} cells"
    guessed = replace(lut, flags={CellRef(0, 1): ("estimated",), CellRef(-1, 0): ("estimated",)}, energy=None)
    assert said(guessed) == f"its latency covers {allowed - 1} of {allowed} cells"
    ends = np.full_like(lut.latency.fixed_value, np.nan)
    headless = replace(lut, latency=replace(lut.latency, fixed_value=ends, fixed_corrected=ends))
    assert said(headless) == "3 of the 3 operators of stem and head have no latency"
