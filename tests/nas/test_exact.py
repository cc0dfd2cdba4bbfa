"""The exact search: against every architecture of small spaces, against HiGHS on large ones, and on HANNA's tables."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.budgets import Budgets, Costs, InfeasibleError
from nas.exact import minimise
from nas.milp import milp
from nas.pareto import pareto
from protos.errors import BadInputError
from tests.hanna import hanna_lut, needs_tables
from tests.lut_store.samples import fbnet, lut_of

LAYERS, OPS = 4, 9
EVERY = np.array(list(itertools.product(range(OPS), repeat=LAYERS)))  # (6561, 4)


def costs_of(seed: int, *, levels: int = 0, layers: int = LAYERS, fixed: float = 0.0) -> Costs:
    """Random costs; with `levels` they are few whole numbers, so that there are many ties. Zeros are skips."""
    rng = np.random.default_rng(seed)
    shape = (layers, OPS)
    latency, energy = (
        rng.integers(0, levels, shape).astype(float) if levels else rng.uniform(0, 1, shape) for _ in range(2)
    )
    allowed = rng.uniform(size=shape) < 0.9
    allowed[np.arange(layers), rng.integers(0, OPS, layers)] = True
    return Costs(latency, energy, allowed, fixed, 2 * fixed)


def enumerated(costs: Costs, objective: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latency, energy and objective of all architectures that are allowed, each (N,)."""
    rows = np.arange(LAYERS)
    every = EVERY[costs.allowed[rows, EVERY].all(axis=1)]
    latency, energy, value = (t[rows, every].sum(axis=1) for t in (costs.latency_s, costs.energy_j, objective))
    return latency + costs.fixed_latency_s, energy + costs.fixed_energy_j, value


def objective_of(kind: str, costs: Costs, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed + 1)
    return {
        "latency": costs.latency_s,
        "energy": costs.energy_j,
        "weighted": 0.3 * costs.latency_s + 0.7 * costs.energy_j,
        "score": -rng.normal(size=costs.latency_s.shape),
        "ties": -rng.integers(0, 3, costs.latency_s.shape).astype(float),
    }[kind]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    levels=st.sampled_from([0, 0, 2, 5]),
    kind=st.sampled_from(["latency", "energy", "weighted", "score", "ties"]),
    latency_at=st.none() | st.floats(0, 1),
    energy_at=st.none() | st.floats(0, 1),
    fixed=st.sampled_from([0.0, 0.5]),
)
def test_no_architecture_of_a_small_space_is_better(
    seed: int, levels: int, kind: str, latency_at: float | None, energy_at: float | None, fixed: float
) -> None:
    costs = costs_of(seed, levels=levels, fixed=fixed)
    objective = objective_of(kind, costs, seed)
    latency, energy, value = enumerated(costs, objective)
    # Budgets at quantiles, so that they often are exactly the cost of an architecture; and sometimes below all.
    caps = [
        None if at is None else float(np.quantile(v, at, method="lower") * (0.9 if at < 0.02 else 1.0))
        for at, v in ((latency_at, latency), (energy_at, energy))
    ]
    if any(cap is not None and cap <= 0 for cap in caps):
        return
    within = np.ones(len(value), bool)
    for cap, numbers in zip(caps, (latency, energy), strict=True):
        within &= True if cap is None else numbers <= cap * (1 + 1e-12)
    budgets = Budgets(*caps)
    if not within.any():
        with pytest.raises(InfeasibleError):
            minimise(objective, costs, budgets)
        return
    found = minimise(objective, costs, budgets)
    assert found.objective == pytest.approx(value[within].min(), rel=1e-9, abs=1e-9)
    assert costs.allowed[np.arange(LAYERS), found.choices].all()
    assert (found.latency_s, found.energy_j) == costs.of(found.choices)
    for cap, spent in zip(caps, (found.latency_s, found.energy_j), strict=True):
        assert cap is None or spent <= cap * (1 + 1e-11)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.sampled_from([0, 2, 6]), fixed=st.sampled_from([0.0, 0.5]))
def test_the_front_is_every_architecture_that_none_beats(seed: int, levels: int, fixed: float) -> None:
    costs = costs_of(seed, levels=levels, fixed=fixed)
    latency, energy, _ = enumerated(costs, costs.latency_s)
    order = np.lexsort((energy, latency))
    expected: list[tuple[float, float]] = []
    for index in order:
        if not expected or energy[index] < expected[-1][1] - 1e-12:
            expected.append((latency[index], energy[index]))
    front = pareto(costs)
    found = np.stack((front.latency_s, front.energy_j), axis=1)
    assert found == pytest.approx(np.array(expected), rel=1e-9, abs=1e-12)
    for point, choices in zip(found, front.choices, strict=True):
        assert costs.of(choices) == pytest.approx(tuple(point), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_highs_agrees_on_a_large_space(seed: int) -> None:
    costs = costs_of(seed, layers=22)
    front = pareto(costs)
    middle = len(front.latency_s) // 2
    latency, energy = float(front.latency_s[middle]) * 1.1, float(front.energy_j[middle]) * 1.1
    score = objective_of("score", costs, seed)
    for objective, budgets in (
        (costs.energy_j, Budgets(max_latency_s=latency)),
        (score, Budgets(max_latency_s=latency)),
        (score, Budgets(latency, energy)),
    ):
        ours, theirs = minimise(objective, costs, budgets), milp(objective, costs, budgets)
        assert ours.objective == pytest.approx(theirs.objective, rel=1e-6, abs=1e-6)


def test_ties_everywhere_do_not_explode() -> None:
    costs = Costs(np.ones((22, 9)), np.ones((22, 9)), np.ones((22, 9), bool))
    assert minimise(-np.ones((22, 9)), costs, Budgets(22.0, 22.0)).objective == -22
    assert len(pareto(costs).latency_s) == 1


def test_a_front_that_is_too_large_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.pareto.FRONT_MAX", 20)
    with pytest.raises(BadInputError, match="ask for single points with `nas optimise"):
        pareto(costs_of(0, layers=22))


def test_what_is_infeasible_names_a_budget_that_is_not() -> None:
    costs = costs_of(3, fixed=0.25)
    with pytest.raises(InfeasibleError, match="the least possible latency is") as caught:
        minimise(costs.energy_j, costs, Budgets(max_latency_s=0.1))
    nearest = float(str(caught.value).split(" is ")[-1].removesuffix(" s"))
    assert minimise(costs.energy_j, costs, Budgets(max_latency_s=nearest)).latency_s <= nearest
    with pytest.raises(InfeasibleError):
        minimise(costs.energy_j, costs, Budgets(max_latency_s=nearest * (1 - 1e-7)))


def test_budgets_that_only_together_are_infeasible() -> None:
    costs = costs_of(5)
    front = pareto(costs)
    latency, energy = float(front.latency_s[0]) * 1.0001, float(front.energy_j[-1]) * 1.0001
    for solve in (minimise, milp):
        with pytest.raises(InfeasibleError, match="together: with that latency the least energy is"):
            solve(costs.latency_s, costs, Budgets(latency, energy))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_budgets_that_are_none(value: float) -> None:
    with pytest.raises(BadInputError, match="the energy budget is"):
        Budgets(max_energy_j=value)


def test_costs_are_those_of_the_luts_prediction() -> None:
    lut = lut_of(fbnet())
    found = minimise(Costs.from_lut(lut).latency_s, Costs.from_lut(lut))
    assert (found.latency_s, found.energy_j) == pytest.approx(lut.predict([found.choices])[0], rel=1e-12)


@needs_tables
def test_the_figures_of_the_authors_tables() -> None:
    costs = Costs.from_lut(hanna_lut())
    assert minimise(costs.latency_s, costs).latency_s == pytest.approx(2.489818, abs=5e-7)
    assert minimise(costs.energy_j, costs).energy_j == pytest.approx(1.844036, abs=5e-7)
    for solve in (minimise, milp):
        found = solve(costs.energy_j, costs, Budgets(max_latency_s=2.54))
        assert (found.latency_s, found.energy_j) == pytest.approx((2.536360, 2.017374), abs=5e-7)
    front = pareto(costs)
    assert front.latency_s[0] == pytest.approx(2.489818, abs=5e-7)
    assert front.energy_j[-1] == pytest.approx(1.844036, abs=5e-7)
