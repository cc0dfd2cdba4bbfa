"""The provably best architecture under budgets, and the whole latency-energy front.

Costs add up over layers, so this is a multiple-choice knapsack, solved by enumerating partial
architectures. Everything that leaves some out is safe:

- a Lagrangian bound (nas/prices.py): budgets priced into the objective say how much worse than the bound an
  architecture gets with each cell. What together gets worse than an architecture that is already known is dropped;
  single cells alone are, so that most layers have one candidate left. The known one is improved first by changing two
  layers at a time;
- budgets: what cannot stay within one even with the cheapest rest is dropped;
- dominance, where many are alive: of two partial architectures over the same layers, one that is not better in any
  number is dropped.

`milp` states the same problem for HiGHS, as a reference to check against.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Context

import numpy as np

from lut_store.metric import Array
from nas.budgets import Budgets, Costs, InfeasibleError, Solution
from nas.nondominated import IntArray, Step, architectures, front
from nas.prices import Prices, best_prices, total
from nas.problem import SLACK, Problem, make_problem

EXCHANGED = 150  # cells that are tried in pairs at most, those that cost least against the bound
DOMINATE_ABOVE = 400  # partial architectures alive, from which on it pays to compare them
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
    chosen = tuple(choices.tolist())
    return Solution(chosen, *costs.of(chosen), total(objective, choices))


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


# ---- from a bound to the best ----------------------------------------------------------------------------------------


def _solve(problem: Problem) -> IntArray | None:
    """The choices (L,) of the least objective; None when nothing stays within the caps."""
    objective, caps = problem.objective, problem.caps
    if not len(caps):
        least: IntArray = objective.argmin(axis=1)
        return least
    if len(caps) == 2 and np.array_equal(objective, problem.usage[1]):  # a budget on the objective itself
        return _least_second(problem)
    usage = np.where(np.isinf(problem.usage), 0.0, problem.usage)  # the objective keeps out what is not allowed
    found = best_prices(objective, usage, caps)
    if found is None and len(caps) == 1:
        return None
    known = None if found is None else found.known
    if known is None:
        known = _least_second(problem)
    if known is None:
        return None
    if found is None:  # numerically difficult: no price is a valid price too
        found = Prices(np.zeros(len(caps)), float(objective.min(axis=1).sum()), known)
    reduced = objective + np.tensordot(found.prices, usage, 1)
    excess = reduced - reduced.min(axis=1, keepdims=True)  # (L, K) above the bound
    # The bound is a difference of sums that may be larger than it is.
    margin = SLACK * (abs(found.bound) + abs(total(objective, known)) + float(found.prices @ np.abs(caps)))
    known = _improved(objective, usage, caps, known, excess, found.bound - margin)
    limit = total(objective, known) - found.bound + margin
    best = _enumerated(objective, usage, caps, excess, limit)
    return best if best is not None and total(objective, best) < total(objective, known) else known


def _least_second(problem: Problem) -> IntArray | None:
    """Of two budgets: the architecture of least use of the second within the first; None beyond the second."""
    first, second = problem.usage
    found = _solve(Problem(second, first[None], problem.caps[:1]))
    return None if found is None or total(second, found) > problem.caps[1] else found


def _improved(objective: Array, usage: Array, caps: Array, known: IntArray, excess: Array, bound: float) -> IntArray:
    """`known` after the best changes of one or two layers, until none helps."""
    rows = np.arange(len(known))
    while True:
        value = total(objective, known)
        layer, op = np.nonzero(excess <= value - bound)
        if len(layer) > EXCHANGED:
            least = np.argpartition(excess[layer, op], EXCHANGED)[:EXCHANGED]
            layer, op = layer[least], op[least]
        gain = objective[layer, op] - objective[layer, known[layer]]  # (n,), negative when better
        more = usage[:, layer, op] - usage[:, layer, known[layer]]  # (B, n)
        free = caps - usage[:, rows, known].sum(axis=1)  # (B,)
        both = gain[:, None] + gain  # (n, n); a cell that is chosen already changes nothing
        possible = layer[:, None] != layer
        for needed, left in zip(more, free, strict=True):
            possible &= needed[:, None] + needed <= left
        both = np.where(possible, both, 0.0)
        best = int(both.argmin()) if both.size else 0
        if not both.size or both.flat[best] >= -SLACK * abs(value):
            return known
        known = known.copy()
        for cell in divmod(best, len(layer)):
            known[layer[cell]] = op[cell]


def _enumerated(objective: Array, usage: Array, caps: Array, excess: Array, limit: float) -> IntArray | None:
    """The best architecture whose cells exceed the bound by `limit` in sum at most; None without one in the caps."""
    kept = excess <= limit
    order = np.argsort(kept.sum(axis=1), kind="stable")  # while few are alive, everything is cheap
    numbers = np.concatenate([objective[None], usage, excess[None]])  # (2 + B, L, K)
    least = np.where(kept, numbers[1:], np.inf).min(axis=2)[:, order]  # (1 + B, L)
    rest = np.concatenate([np.cumsum(least[:, ::-1], axis=1)[:, ::-1], np.zeros((len(least), 1))], axis=1)
    tops = np.append(caps, limit)
    tops = tops + SLACK * np.abs(tops)
    sums, steps = np.zeros((len(numbers), 1)), []
    for position, layer in enumerate(order.tolist()):
        ops = np.flatnonzero(kept[layer])
        wide = (sums[:, :, None] + numbers[:, layer, ops][:, None, :]).reshape(len(numbers), -1)
        alive = np.flatnonzero((wide[1:] + rest[:, position + 1, None] <= tops[:, None]).all(axis=0))
        if not alive.size:
            return None
        if alive.size > DOMINATE_ABOVE:
            alive = alive[front(wide[:-1, alive])]
        sums = wide[:, alive]
        steps.append(Step(layer, alive // len(ops), ops[alive % len(ops)]))
    (best,) = architectures(steps, np.array([sums[0].argmin()]))
    return np.asarray(best)
