"""The schedule of an energy segment: which load runs when, a pure function of plan and seed.

Short windows of many operators in random order, with idle and whole networks between them, and one fit of the whole
trace, beat one settled window per operator by far for the same device time
(docs/decisions/0004-energy-from-one-fit.md).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from protos.types import MeasurementPlan

OPENING_IDLE_S = 8.0  # the baseline before the first load; at most a twentieth of the segment
CLOSING_IDLE_S = 6.0  # the meter's answer to the last load is still to come; at most a fortieth of the segment
GAP_S = 0.05  # set-up before each load, assumed here and measured by the runner: 0.1 ms on a server, 0.15 s on a Pi
IDLES = 5  # at least so many idle windows in a segment: the baseline drifts
JITTER = 0.3  # a window is up to 30 % longer or shorter, so that switches meet every phase of the meter's clock
SURE = 0.93  # of the time for loads is counted on when windows must shrink: they vary, and segments end unevenly
MIN_WINDOW_S = 0.1
MIN_NETWORK_WINDOW_S = 1.0


@dataclass(frozen=True)
class Step:
    """One window to perform: subject is "idle", "item" or "network"; `index` into RunSpec.items or RunSpec.networks."""

    subject: str
    index: int
    duration_s: float


def schedule(plan: MeasurementPlan, items: int, networks: int, seed: int, segment: int = 0) -> Iterator[Step]:
    """The steps of segment number `segment` of a run: idle first, then loads and idles in random order, idle last.

    `items` and `networks` are how many there are to visit. `seed` is the run's: all segments are cut from one endless
    stream, so that over a whole run every item is visited before any is visited once more, whichever boards do the
    segments. Idle windows (the first and the last among them) fill `idle_share` of the time, networks
    `network_share`, items the rest. Where the run's energy budget is too short to visit everything once, the windows
    shrink. Raises ValueError where nothing can be scheduled.
    """
    if segment < 0:
        raise ValueError(f"segment is {segment}; segments count from 0")
    stream = _Stream(plan, items, networks, seed)
    for _ in range(segment):
        for _ in stream.segment():
            pass
    yield from stream.segment()


class _Stream:
    """The endless stream of steps of one run; `segment()` cuts off the next segment."""

    def __init__(self, plan: MeasurementPlan, items: int, networks: int, seed: int) -> None:
        if items < 0 or networks < 0 or items + networks == 0:
            raise ValueError(f"{items} items and {networks} networks: there must be something to load the board with")
        plan = fitted(plan, items, networks)
        self._plan = plan
        self._random = random.Random(f"energy {seed}")
        self._orders = {
            "item": _visits(items, random.Random(f"items {seed}")),
            "network": _visits(networks, random.Random(f"networks {seed}")),
        }
        self._windows_s = {"idle": plan.idle_s, "item": plan.window_s, "network": plan.network_window_s}
        # Shares of the device time; idle counts first among equals, so that no long stretch goes without a baseline.
        self._shares = {"idle": plan.idle_share, "network": plan.network_share}
        self._shares["item"] = 1 - sum(self._shares.values())
        self._spent_s = dict.fromkeys(self._shares, 0.0)

    def segment(self) -> Iterator[Step]:
        opening_s = min(OPENING_IDLE_S, self._plan.segment_s / 20)
        closing_s = min(CLOSING_IDLE_S, self._plan.segment_s / 40)
        left_s = self._plan.segment_s - opening_s - closing_s
        self._spent_s["idle"] += closing_s
        yield self._step("idle", opening_s)
        while left_s > self._plan.window_s / 2:
            subject = self._most_behind()
            step = self._step(subject, self._windows_s[subject] * self._random.uniform(1 - JITTER, 1 + JITTER))
            left_s -= step.duration_s + (GAP_S if subject != "idle" else 0)
            yield step
        yield Step("idle", 0, closing_s)

    def _most_behind(self) -> str:
        total_s = sum(self._spent_s.values())
        return max(self._shares, key=lambda subject: self._shares[subject] * total_s - self._spent_s[subject])

    def _step(self, subject: str, duration_s: float) -> Step:
        self._spent_s[subject] += duration_s + (GAP_S if subject != "idle" else 0)
        return Step(subject, next(self._orders[subject]) if subject != "idle" else 0, duration_s)


def fitted(plan: MeasurementPlan, items: int, networks: int) -> MeasurementPlan:
    """`plan` with shares of what there is, no segment longer than the budget, and windows that let all be visited once.

    Raises ValueError when the segment is empty, a window has no length, or the shares leave nothing for the items.
    """
    budget_s = plan.energy_budget_s or plan.segment_s
    segment_s = min(plan.segment_s, budget_s)
    if segment_s <= 0 or min(plan.window_s, plan.idle_s, plan.network_window_s) <= 0:
        raise ValueError(
            f"segment_s is {plan.segment_s}, window_s {plan.window_s}, idle_s {plan.idle_s}, network_window_s "
            f"{plan.network_window_s}; an energy plan needs all of them above 0"
        )
    network_share = 0.0 if not networks else plan.network_share if items else 1 - plan.idle_share
    if not 0 < plan.idle_share < 1 or (items and plan.idle_share + network_share >= 1):
        raise ValueError(
            f"idle_share is {plan.idle_share} and network_share {network_share}; idle must be above 0, and together "
            "they must leave time for the items"
        )
    item_s = SURE * budget_s * (1 - plan.idle_share - network_share) / max(items, 1) - GAP_S
    network_s = SURE * budget_s * network_share / max(networks, 1) - GAP_S
    return replace(
        plan,
        segment_s=segment_s,
        idle_s=min(plan.idle_s, segment_s * plan.idle_share / IDLES),
        network_share=network_share,
        window_s=min(plan.window_s, max(item_s, MIN_WINDOW_S)),
        network_window_s=min(plan.network_window_s, max(network_s, MIN_NETWORK_WINDOW_S)),
    )


def _visits(count: int, order: random.Random) -> Iterator[int]:
    """Random permutations of 0 … count − 1, one after another, for ever."""
    while count:
        yield from order.sample(range(count), count)
