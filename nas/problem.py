"""One optimisation as the two solvers take it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lut_store.metric import Array
from nas.budgets import Budgets, Costs

SLACK = 1e-12  # relative; sums in another order differ by less, and a budget given as such a sum must not be missed


@dataclass(frozen=True, eq=False)
class Problem:
    """Minimise the sum of `objective` such that each sum of `usage` stays within its cap; inf where not allowed."""

    objective: Array  # (L, K)
    usage: Array  # (B, L, K)
    caps: Array  # (B,)


def make_problem(objective: Array, costs: Costs, budgets: Budgets) -> Problem:
    """An objective that is itself budgeted stands last among the usages."""

    def masked(values: Array) -> Array:
        return np.where(costs.allowed, values, np.inf)

    priced, limits = masked(objective), []
    for values, fixed, cap in (
        (costs.latency_s, costs.fixed_latency_s, budgets.max_latency_s),
        (costs.energy_j, costs.fixed_energy_j, budgets.max_energy_j),
    ):
        if cap is not None:
            used = masked(values)
            limits.append((np.array_equal(used, priced), cap - fixed + SLACK * abs(cap), used))
    limits.sort(key=lambda limit: limit[0])
    usage = [used for _, _, used in limits]
    return Problem(
        priced,
        np.array(usage).reshape(len(usage), *objective.shape),
        np.array([cap for _, cap, _ in limits]),
    )
