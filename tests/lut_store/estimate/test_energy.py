"""The energy estimator against a small world that shares no formula with it, and against what can go wrong in a
trace.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lut_store.estimate.energy import PowerEstimate, estimate_power
from protos.types import MeterSamples, PowerTrace
from tests.lut_store.estimate.power_world import World, run_spec

MINUTES_25 = 1500.0


def relative(world: World, estimate: PowerEstimate) -> np.ndarray:
    return estimate.item_power_w / world.power_w - 1


@pytest.fixture(scope="module")
def world() -> World:
    return World(run_spec(energy_budget_s=MINUTES_25), seed=1)


@pytest.fixture(scope="module")
def segments(world: World) -> list[list[PowerTrace]]:
    return world.segments()


@pytest.fixture(scope="module")
def estimate(world: World, segments: list[list[PowerTrace]]) -> PowerEstimate:
    return estimate_power(world.spec, segments)


def test_operators_come_within_a_percent(world: World, estimate: PowerEstimate) -> None:
    error = np.abs(relative(world, estimate))
    assert np.median(error) < 0.01
    assert np.percentile(error, 95) < 0.035
    assert abs(np.mean(relative(world, estimate))) < 0.01


def test_intervals_cover_the_truth(world: World, estimate: PowerEstimate) -> None:
    inside = np.abs(estimate.item_power_w - world.power_w) < 1.96 * estimate.item_se_w
    assert 0.85 <= inside.mean() <= 1.0


def test_lag_and_idle_are_found(estimate: PowerEstimate) -> None:
    assert estimate.lag_s + estimate.delay_s == pytest.approx(0.65, abs=0.2)
    assert estimate.idle_power_w == pytest.approx(0.24 * 5.1, rel=0.1)
    assert estimate.idle_current_a == pytest.approx(0.24, rel=0.1)


def test_stale_samples_count_for_nothing(
    world: World, segments: list[list[PowerTrace]], estimate: PowerEstimate
) -> None:
    repeated = [[_with_repeats(chunk) for chunk in segment] for segment in segments]
    again = estimate_power(world.spec, repeated)
    np.testing.assert_allclose(again.item_power_w, estimate.item_power_w, rtol=1e-6)
    np.testing.assert_array_equal(again.item_samples, estimate.item_samples)


def test_a_lost_stretch_costs_precision_not_truth(world: World, segments: list[list[PowerTrace]]) -> None:
    holed = [[_without_every_fourth_minute(chunk) for chunk in segment] for segment in segments]
    error = relative(world, estimate_power(world.spec, holed))
    assert np.nanmedian(np.abs(error)) < 0.02


def test_what_never_ran_is_not_invented(world: World, segments: list[list[PowerTrace]]) -> None:
    first = [segments[0][:1]]
    estimate = estimate_power(world.spec, first)
    ran = {w.index for chunk in first[0] for w in chunk.windows if w.subject == "item"}
    for index in range(len(world.spec.items)):
        assert np.isfinite(estimate.item_power_w[index]) <= (index in ran)
    assert np.isnan(estimate.item_power_w).any()


def test_no_trace_gives_nan(world: World) -> None:
    estimate = estimate_power(world.spec, [])
    assert np.isnan(estimate.item_power_w).all()
    assert estimate.samples == 0


def test_the_same_trace_gives_the_same_numbers(
    world: World, segments: list[list[PowerTrace]], estimate: PowerEstimate
) -> None:
    again = estimate_power(world.spec, segments)
    np.testing.assert_array_equal(again.item_power_w, estimate.item_power_w)


def _with_repeats(chunk: PowerTrace) -> PowerTrace:
    """Every value twice, the second time stale and wrong."""
    s = chunk.samples
    n = len(s.t_ns)

    def twice(values: tuple[float, ...], wrong: float) -> tuple[float, ...]:
        return tuple(v for value in values for v in (value, value + wrong))

    samples = MeterSamples(
        t_ns=tuple(t for time in s.t_ns for t in (time, time + 1)),
        voltage_v=twice(s.voltage_v, 0.0),
        current_a=twice(s.current_a, 0.5),
        power_w=twice(s.power_w, 2.5),
        fresh=tuple(f for fresh in s.fresh for f in (fresh, False)),
    )
    assert len(samples.t_ns) == 2 * n
    return replace(chunk, samples=samples)


def _without_every_fourth_minute(chunk: PowerTrace) -> PowerTrace:
    s = chunk.samples
    keep = [i for i, t in enumerate(s.t_ns) if (t // 60_000_000_000) % 4]
    samples = MeterSamples(
        **{
            name: tuple(getattr(s, name)[i] for i in keep)
            for name in ("t_ns", "voltage_v", "current_a", "power_w", "fresh")
        }
    )
    return replace(chunk, samples=samples, losses=("silence of one minute",))
