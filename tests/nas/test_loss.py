"""The losses: their formulas written out, their gradients checked numerically, and knobs that cannot be."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from nas.cost import CostTable
from nas.loss import LOSSES, Hanna, make_loss, normalised, preview
from protos.errors import BadInputError
from tests.hanna import hanna_lut, needs_tables

CE, LAT, ENER = 2.3, 0.25, 3.0
FORMULAS = [
    ("hanna", {"alpha": 0.4, "beta": 1.5, "gamma": 0.3, "delta": 0.6}, CE + 0.4 * LAT**1.5 + 0.3 * ENER**0.6),
    ("fbnet", {"alpha": 0.2, "beta": 0.6}, CE * 0.2 * math.log(250) ** 0.6),
    ("fbnet-additive", {"alpha": 0.2, "beta": 0.6}, CE + 0.2 * math.log(250) ** 0.6),
    ("proxyless", {"ref_latency_s": 0.2, "lam": 0.5}, CE + 0.5 * 0.25),
    ("proxyless-power", {"ref_latency_s": 0.2, "power": 0.1}, CE * 1.25**0.1),
    ("hinge", {"max_energy_j": 2.0, "lam": 0.7}, CE + 0.7),
    ("hinge", {"max_energy_j": 4.0, "lam": 0.7}, CE),
]


def scalars(*values: float, grad: bool = False) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(value, dtype=torch.float64, requires_grad=grad) for value in values)


@pytest.mark.parametrize(("name", "knobs", "value"), FORMULAS)
def test_formula_and_gradient(name: str, knobs: dict[str, float], value: float) -> None:
    loss = make_loss(name, knobs)
    assert float(loss(*scalars(CE, LAT, ENER))) == pytest.approx(value, rel=1e-12)
    assert gradcheck(loss, scalars(CE, LAT, ENER, grad=True))


def test_every_loss_has_a_formula_here() -> None:
    assert {name for name, _, _ in FORMULAS} == set(LOSSES)


@pytest.mark.parametrize("name", ["fbnet", "fbnet-additive"])
@pytest.mark.parametrize("latency_s", [0.001, 0.0005, 0.0, math.nan])
def test_fbnet_refuses_a_millisecond_and_less(name: str, latency_s: float) -> None:
    with pytest.raises(BadInputError, match="above 1 ms"):
        make_loss(name, {})(*scalars(CE, latency_s, ENER))


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("knob", ["alpha", "beta", "gamma", "delta"])
def test_bad_knobs_are_named(knob: str, value: float) -> None:
    with pytest.raises(BadInputError, match=f"{knob} is"):
        make_loss("hanna", {knob: value})


def test_names_that_do_not_exist_and_knobs_that_lack() -> None:
    with pytest.raises(BadInputError, match="did you mean 'hanna'"):
        make_loss("hana", {})
    with pytest.raises(BadInputError, match="knob of the loss hinge 'alpha'"):
        make_loss("hinge", {"alpha": 1.0})
    with pytest.raises(BadInputError, match="needs ref_latency_s"):
        make_loss("proxyless", {})
    with pytest.raises(BadInputError, match="max_energy_j is 0; it must be a finite number, above zero"):
        make_loss("hinge", {"max_energy_j": 0})


def test_normalised_terms_are_the_knobs_at_the_start() -> None:
    loss = normalised(Hanna(alpha=0.3, gamma=0.7), (LAT, ENER))
    latency, energy = loss.terms(*scalars(LAT, ENER))
    assert (float(latency), float(energy)) == pytest.approx((0.3, 0.7))


def test_preview_says_who_dominates() -> None:
    seen = preview(Hanna(1.0, 2.0, 2.0, 1.0), (0.5, 3.0))
    assert (seen.v_latency, seen.v_energy) == pytest.approx((0.25, 6.0))
    assert seen.energy_dominance == pytest.approx(24.0)
    assert seen.latency_dominance == pytest.approx(1 / 24)
    assert preview(Hanna(0.0, 1.0, 1.0, 1.0), (0.5, 3.0)).energy_dominance == math.inf
    assert math.isnan(preview(Hanna(0.0, 1.0, 0.0, 1.0), (0.5, 3.0)).latency_dominance)
    with pytest.raises(BadInputError, match="smaller powers"):
        preview(Hanna(delta=1000.0), (0.5, 300.0))


@needs_tables
def test_preview_on_the_authors_tables() -> None:
    seen = preview(Hanna(0.5, 1.5, 0.5, 0.5), CostTable.from_lut(hanna_lut()).uniform())
    assert seen.v_latency == pytest.approx(0.5 * 3.85271**1.5, rel=1e-5)
    assert seen.v_energy == pytest.approx(0.5 * 18.69947**0.5, rel=1e-5)
