"""Whether a LUT still holds: which run asks, what it compares, and the verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordinator.cli.drift import type_of
from coordinator.drift import judge, reference_run
from coordinator.operator_changes import anchor_se, operator_report
from lut_store.estimate.latency import LatencyEstimate
from lut_store.lut import Lut
from protos.errors import BadInputError, NotFoundError
from protos.types import FIXED_LAYER, Device, PlanItem
from tests.coordinator.luts import validated_lut
from tests.lut_store.samples import fbnet, items_of

ITEMS = items_of(fbnet())


def estimate_of(lut: Lut, factor: Any = 1.0, rel_se: float = 0.01) -> LatencyEstimate:
    """The operators as the LUT has them, times `factor`, with noise."""
    assert lut.latency is not None
    cells = [item.cells[0] for item in ITEMS]
    metric = lut.latency
    then = [metric.fixed_value[c.op] if c.layer == FIXED_LAYER else metric.value[c.layer, c.op] for c in cells]
    now = np.array(then) * factor * (1 + rel_se * np.random.default_rng(1).standard_normal(len(then)))
    none, nothing = np.zeros(0), np.zeros(0, np.int64)
    return LatencyEstimate(
        item_s=now, item_se_s=rel_se * now, item_n=np.full(len(now), 20), hot_item_s=now, network_s=none,
        network_se_s=none, network_n=nothing, network_half_s=np.zeros((2, 0)), other_context_s=none,
        disturbed_share=0.0, spread=0.05,
    )  # fmt: skip


def report(shift: float = 0.0, **changes: Any) -> dict[str, Any]:
    operators = {"tested": 100, "changed": 0, "shift": shift, "fdr": 0.05, "changes": []}
    return {"run": "r", "anchors": 5, "anchor_factor": 1 + shift, "anchor_se": 0.004, "operators": operators} | changes


def test_the_run_measures_the_anchors_as_the_lut_says() -> None:
    lut = validated_lut(fbnet())
    spec = reference_run(lut, "pi-01", budget_s=30.0, seed=3)
    assert (spec.purpose, spec.lut_digest, spec.device) == ("validate", lut.digest, "pi-01")
    assert [n.role for n in spec.networks] == ["anchor"] * 3
    assert [list(n.choices) for n in spec.networks] == [a["choices"] for a in lut.validation["anchors"]]
    plan = spec.plan
    assert (plan.latency_budget_s, plan.energy_budget_s, plan.context, plan.threads) == (30.0, 0.0, "cold", 1)
    steady = replace(lut, configuration=replace(lut.configuration, context="steady", threads=4))
    plan = reference_run(steady, "pi-01").plan
    assert (plan.context, plan.threads, plan.networks_per_round) == ("steady", 4, 0)


def test_a_table_without_anchors_cannot_be_asked_about() -> None:
    for lut in (replace(validated_lut(), validation={}), replace(validated_lut(), latency=None)):
        with pytest.raises(BadInputError, match="has no anchor networks"):
            reference_run(lut, "pi-01")


def test_operators_that_changed_beside_a_common_shift_are_found() -> None:
    lut = validated_lut(fbnet())
    same = operator_report(lut, ITEMS, estimate_of(lut, 1.04))
    assert same is not None
    assert (same["tested"], same["changed"]) == (len(ITEMS), 0)
    assert same["shift"] == pytest.approx(0.04, abs=0.01)
    factor = np.ones(len(ITEMS))
    factor[[7, 30]] = 1.4, 0.7
    found = operator_report(lut, ITEMS, estimate_of(lut, factor))
    assert found is not None
    assert found["changed"] == 2
    assert [change["label"] for change in found["changes"]] == [ITEMS[7].spec.label(), ITEMS[30].spec.label()]
    assert found["changes"][0]["beside_shift"] == pytest.approx(0.4, abs=0.06)


def test_operators_that_cannot_be_compared() -> None:
    lut = validated_lut(fbnet())
    assert lut.latency is not None
    unknown = replace(lut.latency, se=np.full_like(lut.latency.se, np.nan), fixed_se=np.full(3, np.nan))
    assert operator_report(replace(lut, latency=unknown), ITEMS, estimate_of(lut)) is None
    assert operator_report(replace(lut, latency=None, validation={}), ITEMS, estimate_of(lut)) is None
    none: tuple[PlanItem, ...] = ()
    empty = replace(estimate_of(lut), item_s=np.zeros(0), item_se_s=np.zeros(0))
    assert operator_report(lut, none, empty) is None


def test_more_anchors_are_a_surer_shift() -> None:
    few, many = anchor_se(np.full(3, 0.01)), anchor_se(np.full(30, 0.01))
    assert 0.0042 < many < few < 0.012
    assert anchor_se(np.array([np.nan])) == pytest.approx(0.0042, abs=1e-3)  # one process against another is left


def test_the_verdict() -> None:
    assert judge(report(0.004)).holds
    assert judge(report(-0.019)).holds
    drifted = judge(report(0.05))
    assert not drifted.holds
    assert drifted.reasons == ("the anchor networks take +5.0% (± 0.8%), more than 2.0%",)
    assert judge(report(0.05), tolerance=0.06).holds
    unsure = judge(report(0.05, anchor_se=0.04))
    assert unsure.holds  # it may have moved, but this measurement does not show it
    assert unsure.halfwidth > 0.05
    assert judge(report(operators=None)).holds
    with pytest.raises(BadInputError, match="measured no anchor network"):
        judge(report(anchor_factor=None))


def test_operators_alone_can_speak_against_a_lut() -> None:
    worst = {"label": "mbconv 16→24 k3", "beside_shift": 0.31}
    operators = {"tested": 100, "changed": 5, "shift": 0.0, "fdr": 0.05, "changes": [worst]}
    assert judge(report(operators=operators)).holds  # so many may be bad luck
    verdict = judge(report(operators=operators | {"changed": 6}))
    assert "6 of 100 operators changed by more than 5%" in verdict.reasons[0]
    assert "the most mbconv 16→24 k3 with +31%" in verdict.reasons[0]
    assert verdict.document()["holds"] is False


def test_the_type_of_what_is_named() -> None:
    devices = [Device("pi-01", "rpi3b"), Device("emu-0", "rpi3b", "device"), Device("emu-1", "rpi4", "device")]
    assert type_of("pi-01", devices) == ("rpi3b", False)
    assert type_of("emu-0", devices) == ("rpi3b", True)
    assert type_of("rpi3b", devices) == ("rpi3b", False)  # a real board wins in a run, too
    assert type_of("rpi4", devices) == ("rpi4", True)
    assert type_of("local", []) == ("local", False)
    with pytest.raises(
        NotFoundError, match=r"unknown device 'pi-1' \(known: emu-0, emu-1, pi-01\); did you mean 'pi-01'"
    ):
        type_of("pi-1", devices)
