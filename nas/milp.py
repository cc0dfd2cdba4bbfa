"""The same optimisation for HiGHS through SciPy: the reference that nas/exact.py is checked against."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse

from lut_store.metric import Array
from nas.budgets import Budgets, Costs, Solution
from nas.exact import check_feasible, jointly_infeasible
from nas.problem import make_problem


def milp(objective: Array, costs: Costs, budgets: Budgets | None = None) -> Solution:
    """The same as nas.exact.minimise with a zero gap; its budgets hold to about 1e-6 of their size."""
    budgets = budgets or Budgets()
    check_feasible(costs, budgets)
    problem = make_problem(objective, costs, budgets)
    rows, ops = np.argwhere(costs.allowed).T
    one_each = scipy.sparse.csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))))
    constraints: list[Any] = [scipy.optimize.LinearConstraint(one_each, 1, 1)]
    if len(problem.caps):
        scale = np.maximum(np.abs(problem.caps), np.finfo(float).tiny)
        usage = problem.usage[:, rows, ops] / scale[:, None]
        constraints.append(scipy.optimize.LinearConstraint(usage, -np.inf, problem.caps / scale))
    result = scipy.optimize.milp(
        problem.objective[rows, ops],
        integrality=np.ones(len(rows), np.int64),
        bounds=scipy.optimize.Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    if result.status == 2:
        raise jointly_infeasible(costs, budgets)
    if result.status != 0:
        raise RuntimeError(f"HiGHS stopped without an answer: {result.message}")
    chosen = np.flatnonzero(np.asarray(result.x) > 0.5)
    choices = tuple(int(op) for op in ops[chosen])
    return Solution(choices, *costs.of(choices), float(objective[rows[chosen], ops[chosen]].sum()))
