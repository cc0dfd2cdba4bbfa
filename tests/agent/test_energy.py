"""The schedule of energy segments: what is visited, in which order, and for how long."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.energy import GAP_S, JITTER, MIN_WINDOW_S, Step, fitted, schedule
from protos.types import MeasurementPlan

STANDARD = MeasurementPlan(energy_budget_s=1500.0)
QUICK = MeasurementPlan(energy_budget_s=60.0, segment_s=60.0)


def run_of(plan: MeasurementPlan, items: int, networks: int, seed: int = 7) -> list[list[Step]]:
    """All segments of the run's budget."""
    segments = round(plan.energy_budget_s / plan.segment_s)
    return [list(schedule(plan, items, networks, seed, segment)) for segment in range(segments)]


def spent_s(steps: list[Step], subject: str) -> float:
    return sum(s.duration_s + (GAP_S if s.subject != "idle" else 0) for s in steps if s.subject == subject)


def test_a_segment_is_framed_by_idle_and_lasts_as_long_as_planned() -> None:
    for steps in run_of(STANDARD, 100, 45):
        assert (steps[0].subject, steps[0].duration_s) == ("idle", 8.0)
        assert (steps[-1].subject, steps[-1].duration_s) == ("idle", 6.0)
        total_s = sum(spent_s(steps, subject) for subject in ("idle", "item", "network"))
        assert total_s == pytest.approx(300.0, abs=8.0)


def test_time_is_shared_as_planned() -> None:
    steps = [step for segment in run_of(STANDARD, 100, 45) for step in segment]
    assert spent_s(steps, "idle") / 1500 == pytest.approx(STANDARD.idle_share, abs=0.02)
    assert spent_s(steps, "network") / 1500 == pytest.approx(STANDARD.network_share, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_every_operator_is_visited_before_any_is_visited_twice(seed: int) -> None:
    visits = [s.index for segment in run_of(STANDARD, 100, 45, seed) for s in segment if s.subject == "item"]
    assert len(visits) > 400
    for start in range(0, len(visits) - 100, 100):  # across the ends of segments
        assert sorted(visits[start : start + 100]) == list(range(100))
    assert visits[:100] != visits[100:200]


def test_networks_cycle_through_all() -> None:
    visits = [s.index for segment in run_of(STANDARD, 100, 30) for s in segment if s.subject == "network"]
    assert sorted(visits[:30]) == list(range(30))


def test_windows_vary_around_their_length() -> None:
    plan = fitted(STANDARD, 100, 45)
    steps = list(schedule(STANDARD, 100, 45, 1))[1:-1]
    lengths = {"idle": plan.idle_s, "item": plan.window_s, "network": plan.network_window_s}
    for subject, length_s in lengths.items():
        found = [s.duration_s / length_s for s in steps if s.subject == subject]
        assert min(found) >= 1 - JITTER
        assert max(found) <= 1 + JITTER
        assert max(found) - min(found) > 0.1


@pytest.mark.parametrize("seed", range(10))
def test_a_short_budget_still_visits_every_operator(seed: int) -> None:
    (steps,) = run_of(QUICK, 100, 55, seed)
    visits = Counter(s.index for s in steps if s.subject == "item")
    assert len(visits) == 100
    assert sum(spent_s(steps, subject) for subject in ("idle", "item", "network")) == pytest.approx(60.0, abs=2.0)
    assert sum(s.subject == "idle" for s in steps) >= 5
    assert sum(s.subject == "network" for s in steps) >= 5


def test_short_windows_are_taken_as_they_are() -> None:
    plan = replace(STANDARD, window_s=0.3)
    steps = [s for s in schedule(plan, 100, 45, 1) if s.subject == "item"]
    assert 0.21 <= min(s.duration_s for s in steps) <= max(s.duration_s for s in steps) <= 0.39
    assert len(steps) > 300


def test_a_retried_segment_is_the_same_and_another_is_not() -> None:
    assert list(schedule(STANDARD, 20, 5, 3, 2)) == list(schedule(STANDARD, 20, 5, 3, 2))
    assert list(schedule(STANDARD, 20, 5, 3, 2)) != list(schedule(STANDARD, 20, 5, 3, 1))
    assert list(schedule(STANDARD, 20, 5, 3, 2)) != list(schedule(STANDARD, 20, 5, 4, 2))


def test_without_networks_or_without_items() -> None:
    assert {s.subject for s in schedule(STANDARD, 10, 0, 1)} == {"idle", "item"}
    only_networks = list(schedule(STANDARD, 0, 10, 1))
    assert {s.subject for s in only_networks} == {"idle", "network"}
    assert spent_s(only_networks, "idle") / 300 == pytest.approx(STANDARD.idle_share, abs=0.05)


@pytest.mark.parametrize(
    ("plan", "items", "networks", "segment", "words"),
    [
        (STANDARD, 0, 0, 0, "something to load"),
        (replace(STANDARD, segment_s=0.0), 5, 0, 0, "above 0"),
        (replace(STANDARD, window_s=0.0), 5, 0, 0, "above 0"),
        (replace(STANDARD, idle_share=0.0), 5, 0, 0, "idle must be above 0"),
        (replace(STANDARD, idle_share=0.5, network_share=0.5), 5, 5, 0, "leave time for the items"),
        (STANDARD, 5, 5, -1, "count from 0"),
    ],
)
def test_what_cannot_be_scheduled_is_said(
    plan: MeasurementPlan, items: int, networks: int, segment: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        list(schedule(plan, items, networks, 1, segment))


@settings(max_examples=60, deadline=None)
@given(
    budget_s=st.floats(5.0, 600.0),
    window_s=st.floats(0.05, 10.0),
    items=st.integers(1, 120),
    networks=st.integers(0, 60),
    seed=st.integers(0, 1 << 31),
)
def test_any_plan_gives_a_finite_segment(
    budget_s: float, window_s: float, items: int, networks: int, seed: int
) -> None:
    plan = MeasurementPlan(energy_budget_s=budget_s, segment_s=min(budget_s, 300.0), window_s=window_s)
    steps = list(schedule(plan, items, networks, seed))
    assert steps[0].subject == steps[-1].subject == "idle"
    assert all(s.duration_s > 0 for s in steps)
    assert all(0 <= s.index < {"item": items, "network": networks, "idle": 1}[s.subject] for s in steps)
    assert len(steps) < 300 / min(MIN_WINDOW_S, window_s) + 10
