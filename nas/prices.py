"""Prices of budgets: the Lagrangian relaxation of one optimisation, with the architectures that it comes across.

With prices λ ≥ 0 on what is used, Σ min(objective + λ · usage) − λ · caps is a lower bound of every architecture within
the budgets, whatever the prices; the best ones are the dual values of the linear relaxation. For one budget they come
from the lower hull of (usage, objective), followed from its two ends to where it crosses the cap. For two, the bound is
concave in the first price when the second is the best one for it, and two tangents meet above its top.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lut_store.metric import Array
from nas.nondominated import IntArray
from nas.problem import SLACK

DOUBLINGS = 40  # at looking for a price that is too high; each is a factor of 4
TANGENTS = 30
CLOSE = 1e-9  # relative, of a bound to the best one


@dataclass(frozen=True, eq=False)
class Prices:
    """bound: of the objective of every architecture within the caps; known: one of them, None when none was met."""

    prices: Array  # (B,)
    bound: float
    known: IntArray | None  # (L,)


@dataclass(frozen=True, eq=False)
class _Hull:
    """The two corners of the hull beside the cap: `under` within it, `over` beyond (or `under` again)."""

    price: float
    under: IntArray
    over: IntArray
    used_under: float
    used_over: float


def total(table: Array, choices: IntArray) -> float:
    """Sum over layers of `table` (L, K)."""
    return float(table[np.arange(len(choices)), choices].sum())


def best_prices(objective: Array, usage: Array, caps: Array) -> Prices | None:
    """objective (L, K), inf where not allowed; usage (B, L, K), finite; caps (B,); B is 1 or 2.

    None when no mixture of architectures stays within the caps, or none was found to.
    """
    if len(caps) == 2:
        return _Two(objective, usage, caps).prices()
    hull = _hull(objective, usage[0], float(caps[0]))
    if hull is None:
        return None
    bound = total(objective, hull.under) + hull.price * (hull.used_under - float(caps[0]))
    return Prices(np.array([hull.price]), bound, hull.under)


def _hull(objective: Array, usage: Array, cap: float) -> _Hull | None:
    """None when even the least use is beyond the cap."""
    over = objective.argmin(axis=1)
    used_over = total(usage, over)
    if used_over <= cap:
        return _Hull(0.0, over, over, used_over, used_over)
    allowed = np.where(np.isfinite(objective), usage, np.inf)
    least = allowed == allowed.min(axis=1, keepdims=True)  # among equals the best objective
    under = np.where(least, objective, np.inf).argmin(axis=1)
    used_under = total(usage, under)
    if used_under > cap:
        return None
    value_over, value_under = total(objective, over), total(objective, under)
    while True:
        price = max((value_under - value_over) / (used_over - used_under), 0.0)
        between = (objective + price * usage).argmin(axis=1)
        used, value = total(usage, between), total(objective, between)
        level = value_under + price * used_under
        if not level - (value + price * used) > SLACK * abs(level):
            return _Hull(price, under, over, used_under, used_over)
        if used <= cap:
            under, used_under, value_under = between, used, value
        else:
            over, used_over, value_over = between, used, value


@dataclass(frozen=True)
class _Tangent:
    """The bound at a first price, its slope there, and the best second price."""

    bound: float
    slope: float
    first: float
    second: float

    def at(self, first: float) -> float:
        return self.bound + self.slope * (first - self.first)


class _Two:
    """The prices of two budgets."""

    def __init__(self, objective: Array, usage: Array, caps: Array) -> None:
        self._objective, (self._first, self._second) = objective, usage
        self._cap, self._second_cap = map(float, caps)
        self._known: IntArray | None = None
        self._value = np.inf

    def prices(self) -> Prices | None:
        low = self._tangent(0.0)
        if low is None:
            return None
        if low.slope <= 0:
            return self._found(low)
        # A price in the units of the two: how far the objective reaches over how much of the budget is used.
        finite = self._objective[np.isfinite(self._objective)]
        high_price = max(float(np.ptp(finite)) / max(abs(self._cap), float(np.abs(self._first).max())), CLOSE)
        for _ in range(DOUBLINGS):
            high = self._tangent(high_price)
            if high is None:
                return None
            if high.slope <= 0:
                return self._found(self._between(low, high))
            low, high_price = high, 4 * high_price
        return None

    def _between(self, low: _Tangent, high: _Tangent) -> _Tangent:
        """The top between a rising and a falling tangent: where they meet, again and again."""
        best = max(low, high, key=lambda tangent: tangent.bound)
        for _ in range(TANGENTS):
            rise = low.slope - high.slope
            first = (high.at(0.0) - low.at(0.0)) / rise if rise > 0 else low.first
            found = self._tangent(first) if low.first < first < high.first else None
            if found is None:
                break
            best = max(best, found, key=lambda tangent: tangent.bound)
            if low.at(first) - found.bound <= CLOSE * abs(found.bound):
                break
            low, high = (found, high) if found.slope > 0 else (low, found)
        return best

    def _tangent(self, first: float) -> _Tangent | None:
        priced = self._objective + first * self._first
        hull = _hull(priced, self._second, self._second_cap)
        if hull is None:
            return None
        used = total(self._first, hull.under)
        if used <= self._cap:
            value = total(self._objective, hull.under)
            if value < self._value:
                self._known, self._value = hull.under, value
        if hull.over is not hull.under:  # the mixture of the two that uses the second budget up
            share = (self._second_cap - hull.used_under) / (hull.used_over - hull.used_under)
            slope = share * total(self._first, hull.over) + (1 - share) * used - self._cap
        else:
            slope = used - self._cap
        bound = total(priced, hull.under) + hull.price * (hull.used_under - self._second_cap) - first * self._cap
        return _Tangent(bound, slope, first, hull.price)

    def _found(self, tangent: _Tangent) -> Prices:
        return Prices(np.array([tangent.first, tangent.second]), tangent.bound, self._known)
