"""The latency estimator against machines whose truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lut_store.estimate.correction import counts, fit_correction, kinds_of
from lut_store.estimate.executions import flatten, slot_items
from lut_store.estimate.latency import PLACEMENT_REL_SE, device_seconds, estimate_latency, look
from lut_store.estimate.validation import errors, noise_floor
from protos.types import LatencyRound, RunSpec
from tests.lut_store.estimate.worlds import Machine, small_run


def relative(estimate: np.ndarray, truth: list[float]) -> np.ndarray:
    return estimate / np.array(truth) - 1


@pytest.fixture(scope="module")
def run() -> RunSpec:
    return small_run()


def test_a_quiet_machine_is_recovered_exactly(run: RunSpec) -> None:
    machine = Machine(run, noise=0, slow_share=0)
    estimate = estimate_latency(run, [[machine.round(i) for i in range(3)]])
    assert np.abs(relative(estimate.item_s, machine.item_s)).max() < 1e-5  # whole nanoseconds
    truth = [machine.network_s(n.choices) for n in run.networks]
    assert np.abs(relative(estimate.network_s, truth)).max() < 1e-5
    assert estimate.disturbed_share == 0
    assert np.nanmax(estimate.item_se_s / estimate.item_s) == pytest.approx(PLACEMENT_REL_SE, rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_disturbed_moments_are_left_out(run: RunSpec, seed: int) -> None:
    machine = Machine(run, seed=seed)
    rounds = [machine.round(i) for i in range(20)]
    estimate = estimate_latency(run, [rounds])
    error = relative(estimate.item_s, machine.item_s)
    assert abs(np.median(error)) < 0.01
    assert np.abs(error).max() < 0.02
    assert 0.1 < estimate.disturbed_share < 0.5
    naive = np.array([np.mean(r.total_ns) for r in (rd.paths for rd in rounds) if r is not None])
    assert naive.std() / naive.mean() > 0.01  # the evidence itself was disturbed


def test_intervals_cover_the_truth(run: RunSpec) -> None:
    inside, total = 0, 0
    for seed in range(6):
        machine = Machine(run, seed=seed)
        estimate = estimate_latency(run, [[machine.round(i) for i in range(12)]])
        error = np.abs(estimate.item_s - np.array(machine.item_s))
        inside += int((error < 1.96 * estimate.item_se_s).sum())
        total += len(error)
    assert 0.85 <= inside / total <= 1.0


def test_the_estimate_tightens_with_more_rounds(run: RunSpec) -> None:
    machine = Machine(run, seed=5)
    rounds = [machine.round(i) for i in range(40)]
    few, many = look(run, [rounds[:5]]), look(run, [rounds])
    assert np.nanmedian(many.rel_halfwidth) < 0.75 * np.nanmedian(few.rel_halfwidth)
    assert (many.n > few.n).all()
    assert many.device_s == pytest.approx(device_seconds([rounds]))


def test_the_same_evidence_gives_the_same_numbers(run: RunSpec) -> None:
    machine = Machine(run, seed=6)
    rounds = [machine.round(i) for i in range(6)]
    first, second = estimate_latency(run, [rounds]), estimate_latency(run, [rounds])
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))


def test_hot_loops_give_items_too(run: RunSpec) -> None:
    machine = Machine(run, seed=7)
    estimate = estimate_latency(run, [[machine.round(i, paths=0, hot=True) for i in range(20)]])
    assert np.abs(relative(estimate.item_s, machine.item_s)).max() < 0.03
    assert (estimate.item_n > 0).all()


def test_two_boards_of_different_speed_give_their_mean(run: RunSpec) -> None:
    boards = [Machine(run, seed=8), Machine(run, seed=8)]
    boards[1].item_s = [1.2 * s for s in boards[1].item_s]
    streams = [[board.round(i) for i in range(15)] for board in boards]
    estimate = estimate_latency(run, streams)
    mean = [np.sqrt(1.2) * s for s in boards[0].item_s]
    assert np.abs(relative(estimate.item_s, mean)).max() < 0.03
    assert estimate.disturbed_share < 0.5


def test_no_evidence_gives_nan_and_no_crash(run: RunSpec) -> None:
    estimate = estimate_latency(run, [])
    assert np.isnan(estimate.item_s).all()
    assert np.isnan(estimate.network_s).all()
    one = Machine(run).round(0, paths=1)
    assert np.isfinite(estimate_latency(run, [[one]]).network_s).all()


def test_rounds_are_read_in_the_order_they_ran(run: RunSpec) -> None:
    machine = Machine(run, seed=9, noise=0, slow_share=0)
    round_: LatencyRound = machine.round(0)
    ex = flatten(run, [[round_]])
    assert round_.paths is not None
    first = round_.order[0]
    expected = round_.paths.total_ns[first] if first < 40 else None
    if expected is not None:
        assert np.exp(ex.log_total[0]) == pytest.approx(expected * 1e-9)
    np.testing.assert_allclose(np.exp(ex.log_total[ex.path_execution]), np.array(round_.paths.total_ns) * 1e-9)


def test_a_correction_finds_the_cost_between_the_blocks() -> None:
    run = small_run(networks=60, seed=3)
    machine = Machine(run, seed=10, noise=0.005, slow_share=0, extra_s=1e-4)
    estimate = estimate_latency(run, [[machine.round(i) for i in range(12)]])
    cells, fixed = slot_items(run)
    count = counts(run, [n.choices for n in run.networks], cells, fixed)
    fit = np.array([n.role == "fit" for n in run.networks])
    error = estimate.network_se_s / estimate.network_s
    correction = fit_correction(estimate.item_s, count[fit], kinds_of(run), estimate.network_s[fit], error[fit])
    raw = errors(count[~fit] @ estimate.item_s, estimate.network_s[~fit])
    better = errors(count[~fit] @ correction.corrected, estimate.network_s[~fit])
    assert raw.bias is not None
    assert raw.bias < -0.03
    assert better.mape is not None
    assert better.mape < 0.01
    assert abs(better.bias or 0) < 0.005


def test_too_few_networks_leave_the_table_as_it_is(run: RunSpec) -> None:
    cost = np.arange(1.0, len(run.items) + 1)
    correction = fit_correction(cost, np.ones((2, len(cost))), kinds_of(run), np.ones(2), np.zeros(2))
    assert correction.method == "none"
    np.testing.assert_array_equal(correction.corrected, cost)


def test_errors_say_nothing_where_nothing_was_measured() -> None:
    assert errors(np.array([np.nan]), np.array([1.0])).mape is None
    found = errors(np.array([1.1, 2.0, 2.7]), np.array([1.0, 2.0, 3.0]))
    assert found.max == pytest.approx(0.1)
    assert found.spearman == pytest.approx(1.0)
    assert noise_floor(np.full((2, 3), np.nan)) == (None, None)
    assert noise_floor(np.array([[1.0, 1.02], [1.0, 1.0]]))[0] == pytest.approx(0.01)


def test_each_statistic_is_that_of_the_same_executions(run: RunSpec) -> None:
    machine = Machine(run, noise=0.05, slow_share=0.05)
    rounds = [machine.round(i) for i in range(20)]
    median, low, mean = (estimate_latency(run, [rounds], statistic=name) for name in ("median", "p10", "mean"))
    assert (low.item_s < median.item_s).all()
    # of a log-normal spread of 5 %, the 10th percentile lies 1.28 spreads below the median
    np.testing.assert_allclose(np.median(low.item_s / median.item_s), np.exp(-1.2816 * 0.05), atol=0.01)
    np.testing.assert_allclose(mean.item_s, median.item_s, rtol=0.03)
    np.testing.assert_allclose(mean.network_s, median.network_s, rtol=0.03)
    for estimate in (median, low, mean):
        assert np.isfinite(estimate.item_se_s).all()
        assert np.isfinite(estimate.network_se_s).all()
    assert np.median(low.item_se_s) > np.median(mean.item_se_s)
    np.testing.assert_array_equal(low.item_n, median.item_n)
