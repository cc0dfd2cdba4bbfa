"""The energy estimator against a small world that shares no formula with it, and against what can go wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lut_store.estimate.energy import PowerEstimate, estimate_power, network_ratio
from protos.errors import BadInputError
from protos.types import MeterInfo, MeterSamples, PowerTrace, PowerWindow
from tests.lut_store.estimate.power_world import (
    IDLE_W,
    SERIES_OHM,
    SUPPLY_V,
    Filter,
    World,
    moving_average,
    run_spec,
    take,
    two_poles,
)

SEEDS = (3, 4)
QUIET = {
    "noise_a": 1e-7,
    "resolution_a": 0.0,
    "drift_w": 0.0,
    "leakage": 0.0,
    "bursts_per_s": 0.0,
    "set_up_spread": 0.0,
}


@cache
def full(seed: int) -> tuple[World, PowerEstimate]:
    """100 operators and 40 networks in 25 minutes at 2 Hz, everything that disturbs included."""
    world = World(run_spec(energy_budget_s=1500.0, seed=seed), seed=seed)
    return world, estimate_power(world.spec, world.segments())


def small(seed: int = 1, **settings: object) -> World:
    """30 operators and 10 networks in 5 minutes."""
    spec = run_spec(5, 6, 10, seed=seed, energy_budget_s=300.0, segment_s=150.0)
    return World(spec, seed=seed, **settings)  # type: ignore[arg-type]


@cache
def usual() -> tuple[World, list[list[PowerTrace]], PowerEstimate]:
    world = small()
    segments = world.segments()
    return world, segments, estimate_power(world.spec, segments)


def errors(world: World, estimate: PowerEstimate) -> np.ndarray:
    return np.abs(estimate.item_power_w / world.power_w - 1)


# ---- how near the truth ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_operators_come_near_the_truth(seed: int) -> None:
    world, estimate = full(seed)
    assert np.median(errors(world, estimate)) < 0.01
    assert np.percentile(errors(world, estimate), 95) < 0.035
    assert abs(np.mean(estimate.item_power_w / world.power_w - 1)) < 0.01


@pytest.mark.parametrize("seed", SEEDS)
def test_sums_over_networks_come_nearer(seed: int) -> None:
    world, estimate = full(seed)
    truth_j = world.seconds @ world.power_w
    error = world.seconds @ estimate.item_power_w / truth_j - 1
    assert np.median(np.abs(error)) < 0.01
    z = error * truth_j / estimate.energy_se_j(world.seconds)
    assert np.abs(z).max() < 4


def test_intervals_cover_the_truth() -> None:
    z = np.concatenate([(e.item_power_w - w.power_w) / e.item_se_w for w, e in map(full, SEEDS)])
    assert 0.85 <= np.mean(np.abs(z) < 1.96) <= 1.0
    z = np.concatenate([(e.network_power_w - w.network_power_w) / e.network_se_w for w, e in map(full, SEEDS)])
    assert 0.80 <= np.mean(np.abs(z) < 1.96) <= 1.0


def test_the_ratio_of_networks_to_operators_is_found() -> None:
    for world, estimate in map(full, SEEDS):
        truth = world.network_power_w * world.network_latency_s / (world.seconds @ world.power_w)
        found = network_ratio(world.spec, estimate, world.latency_s)
        assert abs(found.factor - truth.mean()) < 4 * found.se < 0.02
        assert 0.0 <= found.spread < 0.03
        assert found.networks == len(truth)
        fit = [index for index, network in enumerate(world.spec.networks) if network.role == "fit"]
        assert network_ratio(world.spec, estimate, world.latency_s, fit).networks == len(fit)


def test_idle_lag_and_noise_are_told() -> None:
    for _, estimate in map(full, SEEDS):
        assert estimate.lag_s + estimate.delay_s == pytest.approx(0.5, abs=0.15)  # the ticks are those of the meter
        assert IDLE_W < estimate.idle_power_w < IDLE_W * 1.1  # the rest is leakage
        assert estimate.idle_current_a * estimate.voltage_v == pytest.approx(estimate.idle_power_w, rel=0.03)
        assert estimate.noise_w == pytest.approx(5e-3 * 5.0, rel=0.15)
        assert estimate.ticks_known == 1.0
        assert 1.0 <= estimate.inflation < 1.5
        assert 0.0 < estimate.disturbed_share < 0.05
        document = estimate.document()
        assert document["samples"] == estimate.samples > 2500
        assert document["lag_s"] == estimate.lag_s


def test_windows_samples_and_totals_are_counted() -> None:
    world, segments, estimate = usual()
    windows = [w for segment in segments for chunk in segment for w in chunk.windows if w.subject == "item"]
    for index in range(len(world.spec.items)):
        mine = [(w.ended_ns - w.started_ns) * 1e-9 for w in windows if w.index == index]
        assert estimate.item_windows[index] == len(mine)
        assert estimate.item_active_s[index] == pytest.approx(sum(mine))
        assert estimate.item_samples[index] == pytest.approx(2 * sum(mine), abs=len(mine) + 1)
    np.testing.assert_allclose(estimate.item_total_w, estimate.item_power_w + estimate.idle_power_w)
    np.testing.assert_allclose(estimate.network_total_w, estimate.network_power_w + estimate.idle_power_w)


# ---- the meter ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lag", [two_poles(0.5, 1e-4), two_poles(), two_poles(0.8, 0.3), moving_average(0.6)], ids=["1", "2", "slow", "mean"]
)
def test_without_noise_the_powers_are_exact_whatever_the_lag(lag: Filter) -> None:
    world = small(lag=lag, poll_s=0.0, poll_jitter_s=0.0, **QUIET)
    estimate = estimate_power(world.spec, world.segments())
    assert errors(world, estimate).max() < 0.004
    assert np.median(errors(world, estimate)) < 0.0015


def test_without_noise_currents_are_exact() -> None:
    world = small(poll_s=0.0, poll_jitter_s=0.0, **QUIET)
    estimate = estimate_power(world.spec, world.segments())

    def current_a(power_w: np.ndarray | float) -> np.ndarray | float:
        return (SUPPLY_V - np.sqrt(SUPPLY_V**2 - 4 * SERIES_OHM * power_w)) / (2 * SERIES_OHM)

    expected_a = current_a(IDLE_W + world.power_w) - current_a(IDLE_W)
    np.testing.assert_allclose(estimate.item_current_a, expected_a, rtol=5e-3)
    assert estimate.idle_current_a == pytest.approx(float(current_a(IDLE_W)), rel=2e-3)
    assert estimate.idle_power_w == pytest.approx(IDLE_W, rel=2e-3)


def test_a_fast_meter_is_averaged_and_better() -> None:
    world = small(rate_hz=100.0, poll_s=0.0, poll_jitter_s=0.0, lag=two_poles(0.01, 0.005), delay_s=0.01)
    estimate = estimate_power(world.spec, world.segments())
    assert estimate.samples > 25_000
    assert np.median(errors(world, estimate)) < 0.004
    assert np.percentile(errors(world, estimate), 95) < 0.012


def test_a_short_run_of_short_windows() -> None:
    spec = run_spec(5, 6, 10, seed=3, energy_budget_s=30.0, segment_s=30.0, window_s=0.3)
    world = World(spec, seed=3, rate_hz=50.0, poll_s=0.0, lag=two_poles(0.02, 0.01), delay_s=0.01, set_up_spread=0.05)
    estimate = estimate_power(spec, world.segments())
    assert np.isfinite(estimate.item_power_w).all()
    assert np.median(errors(world, estimate)) < 0.03


def test_two_boards_with_other_meters_are_fitted_together() -> None:
    slow, quick = small(), small(lag=two_poles(0.1, 0.05), delay_s=0.02, seed=1)
    np.testing.assert_array_equal(slow.power_w, quick.power_w)
    other = [[replace(chunk, meter=MeterInfo("other", "/dev/x")) for chunk in segment] for segment in quick.segments()]
    both = estimate_power(slow.spec, [*slow.segments(), *other])
    alone = usual()[2]
    assert np.median(errors(slow, both)) < 0.01
    assert np.median(both.item_se_w / alone.item_se_w) < 0.85  # √½, and the better meter
    np.testing.assert_array_equal(both.item_windows, 2 * alone.item_windows)


# ---- what can go wrong ----------------------------------------------------------------------------------------------


def test_stale_values_count_for_nothing() -> None:
    world, segments, estimate = usual()

    def falsified(chunk: PowerTrace) -> PowerTrace:
        s = chunk.samples
        wrong = tuple(a if fresh else a + 0.5 for a, fresh in zip(s.current_a, s.fresh, strict=True))
        return replace(chunk, samples=replace(s, current_a=wrong))

    assert any(not fresh for segment in segments for chunk in segment for fresh in chunk.samples.fresh)
    again = estimate_power(world.spec, [[falsified(chunk) for chunk in segment] for segment in segments])
    np.testing.assert_array_equal(again.item_power_w, estimate.item_power_w)


def without(chunk: PowerTrace, lost: list[tuple[float, float]]) -> PowerTrace:
    """The chunk without the samples of these stretches, in seconds of the board's clock."""
    rows = [
        row for row, t_ns in enumerate(chunk.samples.t_ns) if not any(start <= t_ns * 1e-9 < end for start, end in lost)
    ]
    return replace(chunk, samples=take(chunk.samples, rows), losses=("the meter was silent",))


def test_lost_stretches_cost_precision_not_truth() -> None:
    world, segments, estimate = usual()
    lost = [(start, start + 12.0) for start in (40.0, 75.3, 1050.0, 1100.7)]
    holed = estimate_power(world.spec, [[without(chunk, lost) for chunk in segment] for segment in segments])
    assert holed.samples == pytest.approx(estimate.samples - 4 * 12 * 2, abs=8)
    z = (holed.item_power_w - world.power_w) / holed.item_se_w
    assert np.median(errors(world, holed)) < 0.02
    assert np.mean(np.abs(z) < 3) > 0.9
    assert np.nanmean(holed.item_se_w) > np.mean(estimate.item_se_w)


def test_a_chunk_that_never_arrived_hurts_nothing_else() -> None:
    world = small(seed=4)
    segments = [world.segment(0, chunks=6), world.segment(1, chunks=6)]
    holed = estimate_power(world.spec, [[c for c in segments[0] if c.chunk != 2], segments[1]])
    z = (holed.item_power_w - world.power_w) / holed.item_se_w
    assert np.mean(np.abs(z[np.isfinite(z)]) < 3) > 0.9


def test_garbage_values_are_left_out() -> None:
    world, segments, estimate = usual()
    rng = np.random.default_rng(0)

    def spoiled(chunk: PowerTrace) -> PowerTrace:
        hit = rng.random(len(chunk.samples.t_ns)) < 0.01
        wrong = tuple(np.where(hit, rng.uniform(0, 6.5, len(hit)), chunk.samples.current_a).tolist())
        return replace(chunk, samples=replace(chunk.samples, current_a=wrong))

    again = estimate_power(world.spec, [[spoiled(chunk) for chunk in segment] for segment in segments])
    assert np.median(errors(world, again)) < 0.015
    assert again.noise_w < 1.2 * estimate.noise_w


def test_the_order_of_segments_and_chunks_means_nothing() -> None:
    world, segments, estimate = usual()
    again = estimate_power(world.spec, [segment[::-1] for segment in segments[::-1]])
    np.testing.assert_allclose(again.item_power_w, estimate.item_power_w, rtol=1e-4)
    same = estimate_power(world.spec, segments)
    np.testing.assert_array_equal(same.item_power_w, estimate.item_power_w)


def test_what_never_ran_is_not_invented() -> None:
    world = small()
    first = world.segment(0, chunks=6)[:2]
    estimate = estimate_power(world.spec, [first])
    ran = {w.index for chunk in first for w in chunk.windows if w.subject == "item"}
    assert 0 < len(ran) < len(world.spec.items)
    for index in range(len(world.spec.items)):
        if index not in ran:
            assert np.isnan(estimate.item_power_w[index])
            assert np.isnan(estimate.item_se_w[index])
            assert np.isnan(estimate.covariance_w2[index]).all()
            assert estimate.item_samples[index] == estimate.item_windows[index] == 0
    seconds = np.zeros((2, len(world.spec.items)))
    seconds[0, min(ran)] = seconds[1, 0] = seconds[1, max(set(range(30)) - ran)] = 1.0
    se_j = estimate.energy_se_j(seconds)
    assert se_j[0] == pytest.approx(estimate.item_se_w[min(ran)])
    assert np.isnan(se_j[1])


def test_errors_of_operators_go_together() -> None:
    world, _, estimate = usual()
    items = len(world.spec.items)
    one_second_j = estimate.energy_se_j(np.ones(items))
    assert one_second_j == pytest.approx(np.sqrt(estimate.covariance_w2[:items, :items].sum()))
    assert one_second_j != pytest.approx(np.sqrt((estimate.item_se_w**2).sum()), rel=0.05)


def test_without_traces_nothing_is_known() -> None:
    world = small()
    no_samples = [replace(chunk, samples=MeterSamples()) for chunk in world.segment(0)]
    for segments in ([], [[]], [no_samples]):
        estimate = estimate_power(world.spec, segments)
        assert np.isnan(estimate.item_power_w).all()
        assert np.isnan(estimate.network_se_w).all()
        assert estimate.samples == 0
        assert estimate.document()["lag_s"] is None
        ratio = network_ratio(world.spec, estimate, world.latency_s)
        assert np.isnan(ratio.factor)
        assert ratio.networks == 0


def test_networks_with_unknown_operators_say_nothing_of_the_ratio() -> None:
    world, estimate = full(SEEDS[0])
    latency_s = world.latency_s.copy()
    latency_s[7] = np.nan
    contain = [(network.choices[0] == 7) for network in world.spec.networks]  # item 7 is layer 0's candidate 7
    assert network_ratio(world.spec, estimate, latency_s).networks == len(contain) - sum(contain)


def trace_of(windows: list[PowerWindow]) -> list[PowerTrace]:
    t_ns = tuple(range(1, 60_000_000_000, 500_000_000))
    n = len(t_ns)
    samples = MeterSamples(t_ns, (5.0,) * n, (0.3,) * n, (1.5,) * n, (True,) * n)
    return [PowerTrace("the trace", 0, tuple(windows), samples, MeterInfo("test"))]


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        ([PowerWindow("idle", 0, 10**10), PowerWindow("item", 9 * 10**9, 2 * 10**10)], "windows overlap at 9.000 s"),
        ([PowerWindow("idle", 0, 10**10), PowerWindow("item", 10**10, 2 * 10**10, 30)], "item 30 is not among"),
        ([PowerWindow("idle", 0, 10**10), PowerWindow("network", 10**10, 2 * 10**10, 10)], "network 10 is not among"),
        ([PowerWindow("item", 0, 6 * 10**10)], "no idle time"),
    ],
)
def test_traces_that_cannot_be_are_refused(windows: list[PowerWindow], words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        estimate_power(small().spec, [trace_of(windows)])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32))
def test_any_trace_gives_finite_numbers_or_none(seed: int) -> None:
    spec = run_spec(3, 4, 5)
    rng = np.random.default_rng(seed)
    segments = [strange_trace(rng, name) for name in "abc"[: rng.integers(1, 4)]]
    try:
        estimate = estimate_power(spec, segments)
    except BadInputError:
        return
    np.testing.assert_array_equal(np.isfinite(estimate.item_power_w), np.isfinite(estimate.item_se_w))
    assert not np.isinf(estimate.item_power_w).any()
    assert not (estimate.item_se_w <= 0).any()


def strange_trace(rng: np.random.Generator, name: str) -> list[PowerTrace]:
    """Windows of no length, holes, hardly any values, values without sense."""
    windows, now_ns = [], int(rng.integers(0, 1 << 49))
    for _ in range(rng.integers(1, 12)):
        subject = str(rng.choice(["idle", "item", "network", "gap"], p=[0.4, 0.4, 0.1, 0.1]))
        end_ns = now_ns + int(rng.choice([0, 1, 10**6, 10**9, 5 * 10**9]))
        windows.append(PowerWindow(subject, now_ns, end_ns, int(rng.integers(0, 5))))
        now_ns = end_ns + int(rng.choice([0, 0, 10**7, 10**9]))
    n = int(rng.choice([0, 1, 5, 50, 300]))
    t_ns = np.sort(rng.integers(max(windows[0].started_ns - 10**9, 0), now_ns + 10**9, n))
    amps = [np.full(n, 0.3), rng.normal(0.3, 0.005, n), rng.uniform(-1, 7, n), np.zeros(n)][rng.integers(0, 4)]
    volts = np.where(amps == 0, 0.0, 5.0)
    columns = (tuple(column.tolist()) for column in (t_ns, volts, amps, volts * amps, rng.random(n) < 0.8))
    return [PowerTrace(name, 0, tuple(windows), MeterSamples(*columns), MeterInfo(str(rng.choice(["m", "n"]))))]
