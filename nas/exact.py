"""The provably best architecture under budgets, and the whole latency-energy front.

Costs add up over layers, so this is a multiple-choice knapsack, solved by dynamic programming over partial
architectures. Three rules keep few of them alive, and each is safe:

- dominance: of two partial architectures over the same layers, one that is not better in any number that matters is
  dropped;
- budgets: what cannot stay within one even with the cheapest rest is dropped;
- a Lagrangian bound: budgets priced into the objective give a lower bound of any completion; what lies above an
  architecture that is already known is dropped. Any prices that are not negative are valid; good ones come from the
  linear relaxation.

`milp` states the same problem for HiGHS, as a reference to check against.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Context

import numpy as np
import scipy.optimize
import scipy.sparse

from lut_store.metric import Array
from nas.budgets import Budgets, Costs, InfeasibleError, Solution
from nas.nondominated import Step, architectures, by_width, front
from nas.problem import SLACK, Problem, make_problem

FIRST_GAP = 1 / 256  # of the gap between bound and known architecture: what is searched first, and how it grows
GAP_GROWTH = 4.0
_NINE_DIGITS = Context(prec=9, rounding=ROUND_CEILING)


def minimise(objective: Array, costs: Costs, budgets: Budgets | None = None) -> Solution:
    """The architecture of the least sum of `objective` (L, K) within the budgets.

    The objective is any additive number: latency, energy, a weighted sum, the negative of a score. Raises
    InfeasibleError, which names the nearest budget that can be met.
    """
    budgets = budgets or Budgets()
    check_feasible(costs, budgets)
    choices = _solve(make_problem(objective, costs, budgets))
    if choices is None:
        raise jointly_infeasible(costs, budgets)
    rows = np.arange(len(choices))
    return Solution(tuple(choices), *costs.of(choices), float(objective[rows, choices].sum()))


def check_feasible(costs: Costs, budgets: Budgets) -> None:
    for name, unit, values, fixed, cap in (
        ("latency", "s", costs.latency_s, costs.fixed_latency_s, budgets.max_latency_s),
        ("energy", "J", costs.energy_j, costs.fixed_energy_j, budgets.max_energy_j),
    ):
        least = float(np.where(costs.allowed, values, np.inf).min(axis=1).sum()) + fixed
        if cap is not None and least > cap + SLACK * abs(cap):
            raise InfeasibleError(
                f"no architecture stays within {cap:.9g} {unit}: the least possible {name} is {_up(least)} {unit}"
            )


def _up(value: float) -> str:
    """Nine digits, not below `value`, so that a budget of what is printed can be met."""
    return f"{_NINE_DIGITS.create_decimal(value).normalize():f}"


def jointly_infeasible(costs: Costs, budgets: Budgets) -> InfeasibleError:
    energy = minimise(costs.energy_j, costs, Budgets(max_latency_s=budgets.max_latency_s)).energy_j
    latency = minimise(costs.latency_s, costs, Budgets(max_energy_j=budgets.max_energy_j)).latency_s
    return InfeasibleError(
        f"no architecture stays within {budgets.max_latency_s:.9g} s and {budgets.max_energy_j:.9g} J together: with "
        f"that latency the least energy is {_up(energy)} J, with that energy the least latency is {_up(latency)} s"
    )


# ---- dynamic programming ---------------------------------------------------------------------------------------------


def _solve(problem: Problem) -> list[int] | None:
    """The choices of the least objective; None when nothing stays within the caps.

    What is enumerated has a Lagrangian bound of at most `limit`. The best of it is proven when its objective is within
    the limit too: everything else has a bound, and so an objective, above it. Else it only lowers what is known.
    """
    if not len(problem.caps):
        return _chosen(problem.objective)
    prices, best = _hull_prices(problem) if len(problem.caps) == 1 else _dual_prices(problem)
    if best is None or (len(problem.caps) == 2 and np.array_equal(problem.objective, problem.usage[1])):
        return best
    reduced = problem.objective + np.tensordot(prices, _finite(problem.usage), 1)  # (L, K)
    bound = float(reduced.min(axis=1).sum() - prices @ problem.caps)
    known = _total(problem.objective, best)
    # Of two numbers that matter few partial architectures survive anyway; of three, a narrow search must come first.
    gap = (known - bound) * (1.0 if len(problem.dominance) < 3 else FIRST_GAP)
    while True:
        limit = min(bound + gap, known)
        limit += SLACK * max(abs(bound), abs(known))
        found = _search(problem, reduced, prices, limit)
        value = np.inf if found is None else _total(problem.objective, found)
        if found is not None and value < known:
            best, known = found, value
        if known <= limit:
            return best
        gap = max(GAP_GROWTH * gap, SLACK * max(abs(bound), abs(known)))


def _chosen(table: Array) -> list[int]:
    """The least candidate of every layer of `table` (L, K)."""
    return [int(op) for op in table.argmin(axis=1)]


def _total(table: Array, choices: list[int]) -> float:
    return float(table[np.arange(len(choices)), choices].sum())


def _finite(usage: Array) -> Array:
    """Cells that are not allowed are kept out by the objective; 0 · inf would be NaN."""
    return np.where(np.isinf(usage), 0.0, usage)


def _hull_prices(problem: Problem) -> tuple[Array, list[int] | None]:
    """The best price of one budget, and an architecture within it (None when there is none).

    Both come from the lower hull of (usage, objective), followed from its two ends to where it crosses the cap.
    """
    objective, usage, cap = problem.objective, problem.usage[0], float(problem.caps[0])
    over = _chosen(objective)
    if _total(usage, over) <= cap:
        return np.zeros(1), over
    least = usage == usage.min(axis=1, keepdims=True)  # among equals the best objective
    under = _chosen(np.where(least, objective, np.inf))
    if _total(usage, under) > cap:
        return np.zeros(1), None
    while True:
        rise = _total(objective, under) - _total(objective, over)
        price = max(rise / (_total(usage, over) - _total(usage, under)), 0.0)
        table = objective + price * _finite(usage)
        between = _chosen(table)
        gain = _total(table, under) - _total(table, between)
        if gain <= SLACK * abs(_total(table, under)) or between == over:
            return np.array([price]), under
        if _total(usage, between) <= cap:
            under = between
        else:
            over = between


def _dual_prices(problem: Problem) -> tuple[Array, list[int] | None]:
    """Prices of two budgets, the dual values of the linear relaxation, and an architecture within both (or None).

    That architecture is the one of least use of the second budget within the first.
    """
    first, second = problem.usage
    best = _solve(Problem(second, first[None], problem.caps[:1], problem.usage))
    if best is None or _total(second, best) > problem.caps[1]:
        return np.zeros(2), None
    cells = np.argwhere(np.isfinite(problem.objective))
    rows, ops = cells.T
    one_each = scipy.sparse.csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))))
    usage = problem.usage[:, rows, ops]  # (B, cells)
    scale = np.maximum(np.abs(problem.caps), np.finfo(float).tiny)
    result = scipy.optimize.linprog(
        problem.objective[rows, ops],
        A_ub=usage / scale[:, None],
        b_ub=problem.caps / scale,
        A_eq=one_each.toarray(),
        b_eq=np.ones(len(problem.objective)),
        method="highs",
    )
    if result.status != 0:  # numerically difficult: no price is a valid price too
        return np.zeros(2), best
    return np.maximum(-np.asarray(result.ineqlin.marginals, np.float64) / scale, 0.0), best


def _search(problem: Problem, reduced: Array, prices: Array, limit: float) -> list[int] | None:
    """The best architecture whose Lagrangian bound is at most `limit`; None when there is none within the caps."""
    order = by_width(problem.dominance)
    numbers = np.concatenate([problem.objective[None], reduced[None], problem.usage, problem.dominance])  # (N, L, K)
    budgets = slice(2, 2 + len(problem.caps))
    rest = np.array([[table[layer].min() for layer in order] for table in numbers[1 : budgets.stop]])  # (1 + B, L)
    rest = np.concatenate([np.cumsum(rest[:, ::-1], axis=1)[:, ::-1], np.zeros((len(rest), 1))], axis=1)
    tops = np.concatenate([[limit + prices @ problem.caps], problem.caps])  # (1 + B,)
    tops = tops + SLACK * np.abs(tops)
    sums, steps = np.zeros((len(numbers), 1)), []
    for position, layer in enumerate(order):
        ops = np.flatnonzero(np.isfinite(problem.objective[layer]))
        ops = ops[front(numbers[budgets.stop :, layer, ops])]
        wide = (sums[:, :, None] + numbers[:, layer, ops][:, None, :]).reshape(len(numbers), -1)
        alive = np.flatnonzero((wide[1 : budgets.stop] + rest[:, position + 1, None] <= tops[:, None]).all(axis=0))
        if not alive.size:
            return None
        if alive.size > 1:
            alive = alive[front(wide[budgets.stop :, alive])]
        sums = wide[:, alive]
        steps.append(Step(layer, alive // len(ops), ops[alive % len(ops)]))
    return [int(op) for op in architectures(steps, np.array([sums[0].argmin()]))[0]]
