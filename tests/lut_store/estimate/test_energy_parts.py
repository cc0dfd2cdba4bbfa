"""The parts of the energy fit by themselves: the meter's clock, its lag, the trace as arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lut_store.estimate.energy_clock import tick_times
from lut_store.estimate.energy_lag import CORNERS, PARAMETERS, SHAPE, Lag, column_numbers, steps_of
from lut_store.estimate.energy_trace import GAP, IDLE, UNKNOWN, read_segment
from tests.lut_store.estimate.power_world import World, run_spec

BUMPS = np.zeros(len(CORNERS) - 2)


def polls(period_s: float, poll_s: float, jitter_s: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times of polls, which of them found a new value, and when that was made."""
    rng = np.random.default_rng(seed)
    ticks_s = rng.uniform(0, period_s) + period_s * np.arange(round(300 / period_s))
    polled_s = np.sort(
        np.arange(period_s, 295, poll_s) + rng.uniform(0, jitter_s, len(np.arange(period_s, 295, poll_s)))
    )
    newest = np.searchsorted(ticks_s, polled_s, side="right") - 1
    return polled_s, np.diff(newest, prepend=-2) > 0, ticks_s[newest]


@pytest.mark.parametrize(("period_s", "poll_s", "jitter_s"), [(0.5, 0.4, 0.0), (0.5, 0.4, 0.05), (0.4837, 0.33, 0.02)])
def test_the_meters_ticks_are_found_from_polls(period_s: float, poll_s: float, jitter_s: float) -> None:
    polled_s, fresh, made_s = polls(period_s, poll_s, jitter_s)
    found = tick_times(polled_s, fresh)
    assert found is not None
    times_s, sd_s = found
    error_s = (times_s - made_s)[fresh][2:]
    assert np.std(error_s) < 5e-3  # what is common to all is the meter's delay, to be fitted
    assert abs(np.mean(error_s)) < np.sqrt(3) * sd_s + 5e-3
    assert sd_s < poll_s / 4
    assert np.std((polled_s - made_s)[fresh]) > 0.05  # what it would be otherwise


def test_lost_polls_do_not_hide_the_ticks() -> None:
    polled_s, _, made_s = polls(0.5, 0.4, 0.02, seed=3)
    kept = np.ones(len(polled_s), bool)
    kept[200:260] = kept[400:410] = False
    newest = made_s[kept]
    found = tick_times(polled_s[kept], np.diff(newest, prepend=-1.0) > 0)
    assert found is not None
    error_s = (found[0] - newest)[np.diff(newest, prepend=-1.0) > 0]
    assert np.percentile(np.abs(error_s - np.median(error_s)), 90) < 0.02


def test_without_an_even_tick_the_polls_times_stand() -> None:
    polled_s, fresh, _ = polls(0.5, 0.4, 0.02)
    assert tick_times(polled_s, np.ones_like(fresh)) is None  # never a repeat
    assert tick_times(polled_s[:20], fresh[:20]) is None
    assert tick_times(polled_s / 10, fresh) is None  # so fast that it means nothing
    chaotic = np.random.default_rng(0).random(len(polled_s)) < 0.8
    assert tick_times(polled_s, chaotic) is None


lags = st.builds(Lag, st.floats(-0.1, 3.0), st.floats(0.005, 1.5), st.floats(0.02, 1.0), st.just(BUMPS))


@settings(max_examples=100, deadline=None)
@given(lag=lags)
def test_a_step_rises_from_nothing_to_all(lag: Lag) -> None:
    age_s = np.linspace(lag.delay_s - 1, lag.memory_s + 1, 4001)
    seen = lag.step(age_s)
    assert np.abs(seen[age_s < lag.delay_s]).max() < 1e-9
    assert np.abs(seen[age_s > lag.memory_s] - 1).max() < 1e-3
    assert np.diff(seen).min() > -1e-9
    mean_s = age_s[-1] - np.trapezoid(seen, age_s)  # of the impulse response
    assert mean_s == pytest.approx(lag.mean_s, abs=2e-3 + 1e-3 * (age_s[-1] - age_s[0]))


def segment_of(world: World, chunks: int = 3) -> object:
    return read_segment(world.spec, world.segment(0, chunks))


SPEC = run_spec(3, 4, 5, energy_budget_s=60.0, segment_s=60.0)


def test_the_slopes_are_the_derivatives_of_the_design() -> None:
    segment = read_segment(SPEC, World(SPEC).segment(0))
    assert segment is not None
    numbers, columns = column_numbers([segment], 17)
    power_w = np.random.default_rng(0).uniform(0.5, 2.0, columns)
    parameters = np.concatenate([[0.6, np.log(0.4), 0.6], np.random.default_rng(1).normal(0, 0.02, PARAMETERS - SHAPE)])

    def shown(at: np.ndarray) -> np.ndarray:
        values, rows, where = steps.entries(Lag.of(at))
        return np.bincount(rows, values * power_w[where], len(segment.time_s))

    steps = steps_of(segment, numbers[0], 0.0, Lag.of(parameters))
    slopes = steps.slopes(parameters, power_w, len(segment.time_s))
    for index in range(PARAMETERS):
        nearby = parameters.copy()
        nearby[index] += 1e-4
        difference = (shown(nearby) - shown(parameters)) / 1e-4
        np.testing.assert_allclose(slopes[:, index], difference, atol=0.1 * np.abs(difference).max() + 1e-6)


def test_all_that_a_value_shows_adds_up() -> None:
    segment = read_segment(SPEC, World(SPEC).segment(0))
    assert segment is not None
    everything = np.zeros(len(segment.load), np.int64)  # all windows, idle included, in one column
    lag = Lag(0.6, 0.4, 0.6, BUMPS)
    values, rows, _ = steps_of(segment, everything, 0.0, lag).entries(lag)
    np.testing.assert_allclose(np.bincount(rows, values, len(segment.time_s)), 1.0)


def test_a_trace_becomes_windows_without_holes() -> None:
    chunks = World(SPEC).segment(0, chunks=4)
    whole = read_segment(SPEC, chunks)
    holed = read_segment(SPEC, [chunks[0], chunks[1], chunks[3]])
    assert whole is not None
    assert holed is not None
    assert list(np.flatnonzero(whole.load == UNKNOWN)) == [0]
    assert (holed.load == UNKNOWN).sum() == 2
    assert (np.diff(holed.start_s) > 0).all()
    inside = holed.load_at(holed.time_s)
    assert (inside != UNKNOWN).all()
    assert {IDLE, GAP} <= set(whole.load.tolist())


def test_short_unlogged_time_is_set_up() -> None:
    chunks = World(SPEC).segment(0, chunks=1)
    windows = [w for w in chunks[0].windows if w.subject != "gap"]
    segment = read_segment(SPEC, [replace(chunks[0], windows=tuple(windows))])
    whole = read_segment(SPEC, chunks)
    assert segment is not None
    assert whole is not None
    np.testing.assert_array_equal(segment.load, whole.load)


def test_fast_values_are_averaged_in_bins() -> None:
    chunks = World(SPEC, rate_hz=400.0, poll_s=0.0).segment(0)
    fine, coarse = read_segment(SPEC, chunks), read_segment(SPEC, chunks, bin_s=0.05)
    assert fine is not None
    assert coarse is not None
    assert len(fine.time_s) == pytest.approx(400 * fine.end_s, rel=0.02)
    assert len(coarse.time_s) == pytest.approx(20 * fine.end_s, rel=0.02)
    assert np.median(coarse.count) == 20
    assert coarse.count.sum() == fine.count.sum() == len(fine.time_s)
    assert coarse.power_w @ coarse.count == pytest.approx(fine.power_w.sum())
