"""Prices of budgets: their bound against the linear relaxation as HiGHS solves it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.prices import best_prices, total

LAYERS, OPS = 6, 5


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    budgets=st.sampled_from([1, 2]),
    levels=st.sampled_from([0, 0, 3]),
    at=st.tuples(st.floats(0.05, 1.2), st.floats(0.05, 1.2)),
)
def test_the_bound_is_that_of_the_linear_relaxation(
    seed: int, budgets: int, levels: int, at: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    shape = (1 + budgets, LAYERS, OPS)
    objective, *usage = rng.integers(0, levels, shape).astype(float) if levels else rng.uniform(size=shape)
    allowed = rng.uniform(size=(LAYERS, OPS)) < 0.8
    allowed[:, 0] = True
    objective = np.where(allowed, objective - 0.5, np.inf)
    used = np.where(allowed, np.array(usage), 0.0)
    # From a little above the least use to beyond the most.
    caps = []
    for own, share in zip(used, at, strict=False):
        low = np.where(allowed, own, np.inf).min(1).sum()
        high = np.where(allowed, own, -np.inf).max(1).sum()
        caps.append(low + share * (high - low))
    rows, ops = np.nonzero(allowed)
    one_each = (np.arange(LAYERS)[:, None] == rows).astype(float)
    linear = scipy.optimize.linprog(
        objective[rows, ops], A_ub=used[:, rows, ops], b_ub=caps, A_eq=one_each, b_eq=np.ones(LAYERS), method="highs"
    )
    found = best_prices(objective, used, np.array(caps))
    if linear.status == 2:
        assert found is None
        return
    assert found is not None
    assert (found.prices >= 0).all()
    assert found.bound == pytest.approx(linear.fun, rel=1e-6, abs=1e-6)
    # It is the bound of these very prices, whatever they are.
    reduced = objective + np.tensordot(found.prices, used, 1)
    assert reduced.min(axis=1).sum() - found.prices @ caps == pytest.approx(found.bound, rel=1e-9, abs=1e-9)
    if found.known is not None:
        assert all(total(own, found.known) <= cap for own, cap in zip(used, caps, strict=True))
        assert total(objective, found.known) >= found.bound - 1e-9
