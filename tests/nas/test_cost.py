"""Costs of architectures and of distributions over them: the same numbers as the LUT's own prediction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lut_store.lut import MissingCellError
from nas.cost import CostTable
from nas.theta import argmax_choices, read_theta
from protos.errors import BadInputError
from tests.hanna import FOLDER, hanna_lut, needs_tables
from tests.lut_store.samples import lut_of, random_choices, space_of

SPACE = space_of(((1, 16, 1), (3, 24, 2)))
LUT = lut_of(SPACE)
TABLE = CostTable.from_lut(LUT)


def test_exact_is_the_luts_prediction() -> None:
    for choices in random_choices(SPACE, 20):
        assert TABLE.exact(choices.tolist()) == pytest.approx(LUT.predict([choices])[0], rel=1e-12)


def test_a_certain_architecture_is_expected_to_cost_what_it_costs() -> None:
    choices = random_choices(SPACE, 1)[0]
    one_hot = torch.nn.functional.one_hot(torch.tensor(choices), 9).double()
    latency, energy = TABLE.expected(one_hot)
    assert (float(latency), float(energy)) == pytest.approx(TABLE.exact(choices.tolist()), rel=1e-12)


def test_expected_is_the_mean_over_architectures() -> None:
    theta = torch.randn(SPACE.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = TABLE.probabilities(theta)
    rng = np.random.default_rng(0)
    sampled = np.stack([rng.choice(9, 20000, p=row / row.sum()) for row in weights.numpy()], axis=1)
    latency, energy = TABLE.expected(weights)
    assert LUT.predict(sampled).mean(axis=0) == pytest.approx([float(latency), float(energy)], rel=0.01)


def test_cells_that_are_not_allowed_weigh_nothing() -> None:
    theta = torch.zeros(SPACE.shape, dtype=torch.float64)
    theta[0, 8] = 1e9
    weights = TABLE.probabilities(theta)
    assert float(weights[0, 8]) == 0.0
    assert weights.sum(dim=-1).numpy() == pytest.approx(1.0)
    assert float(TABLE.expected(torch.zeros_like(theta).index_fill(1, torch.tensor(8), 1.0))[0]) == pytest.approx(
        TABLE.fixed_latency_s
    )


def test_a_batch_of_mixtures() -> None:
    theta = torch.randn(5, *SPACE.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    latency, energy = TABLE.expected(TABLE.probabilities(theta))
    assert latency.shape == energy.shape == (5,)
    assert float(latency[3]) == pytest.approx(float(TABLE.expected(TABLE.probabilities(theta[3]))[0]))


def test_gradients_of_the_expected_cost() -> None:
    theta = torch.randn(SPACE.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    theta.requires_grad_()
    assert gradcheck(lambda t: TABLE.expected(TABLE.probabilities(t)), (theta,))
    latency, _ = TABLE.expected(TABLE.probabilities(theta))
    (gradient,) = torch.autograd.grad(latency, theta)
    assert torch.isfinite(gradient).all()
    assert (gradient[~TABLE.allowed] == 0).all()


def test_a_choice_that_is_not_allowed_is_named() -> None:
    with pytest.raises(BadInputError, match="layer 0: skip is not allowed"):
        TABLE.exact([8, 0, 0, 0])
    with pytest.raises(BadInputError, match="3 choices for 4 layers"):
        TABLE.exact([0, 0, 0])


def test_a_lut_with_a_hole_or_without_energy_is_refused() -> None:
    with pytest.raises(BadInputError, match="holds no energy"):
        CostTable.from_lut(lut_of(SPACE, energy=False))
    assert LUT.latency is not None
    value = LUT.latency.value.copy()
    value[2, 3] = np.nan
    holed = replace(LUT, latency=replace(LUT.latency, value=value, corrected=value))
    with pytest.raises(MissingCellError, match=r"layer 2, k3_e6 has no latency \(1 cells"):
        CostTable.from_lut(holed)
    fixed = LUT.latency.fixed_value.copy()
    fixed[1] = np.nan
    headless = replace(LUT, latency=replace(LUT.latency, fixed_value=fixed, fixed_corrected=fixed))
    with pytest.raises(MissingCellError, match="head0 has no latency"):
        CostTable.from_lut(headless)


@needs_tables
def test_the_papers_figures_on_the_authors_tables() -> None:
    lut = hanna_lut()
    table = CostTable.from_lut(lut)
    assert table.uniform() == pytest.approx((3.85271, 18.69947), abs=5e-6)
    theta = read_theta(FOLDER / "theta_model29.txt", lut.space)
    assert table.exact(argmax_choices(theta, lut.space)) == pytest.approx((2.7080, 2.8503), abs=5e-5)
