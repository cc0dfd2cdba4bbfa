"""The emulated boards: plausible, deterministic, and not of the estimators' form."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from agent.emulator import device_supply
from agent.emulator.device import EmulatedDevice, Execution, Loop
from agent.emulator.device_cache import Cache
from agent.emulator.device_disturbance import QUIET, Settings
from agent.emulator.device_truth import Truth, true_operators
from agent.emulator.device_types import device_types
from protos.errors import BadInputError, NotFoundError
from protos.types import CONTEXTS, FIXED_LAYER, BlockSpec, CellRef
from tests.agent.emulator.worlds import SPACE, by_cell, networks, predicted_s
from tests.agent.spaces import tiny_space

PATHS = 900  # 100 in every cell
SWEEP = 4 << 20
HEAVY = CellRef(21, 7)  # 352 channels, 5 × 5, expansion 6


@pytest.fixture(scope="module")
def truths() -> dict[tuple[str, str], Truth]:
    """Of both boards in both contexts, one thread."""
    return {
        (kind, context): true_operators(EmulatedDevice(kind).model(SPACE, 1), context, PATHS)
        for kind in device_types()
        for context in CONTEXTS
    }


def latencies_s(kind: str, context: str, threads: int = 1) -> np.ndarray:
    device = EmulatedDevice(kind)
    return np.array([device.true_network(SPACE, choices, context, threads)[0] for choices in networks(60)])


# ---- what networks cost


@pytest.mark.parametrize("context", CONTEXTS)
def test_networks_on_a_pi_3_take_100_to_400_ms(context: str) -> None:
    times_s = latencies_s("rpi3b", context)
    assert 0.1 < times_s.min() < times_s.max() < 0.4
    assert 2.3 < np.median(times_s) / np.median(latencies_s("rpi4", context)) < 3.7


@pytest.mark.parametrize("kind", device_types())
def test_a_swept_network_is_slower_than_the_same_back_to_back(kind: str) -> None:
    ratio = latencies_s(kind, "cold") / latencies_s(kind, "steady")
    assert ratio.min() > 1.003
    assert ratio.max() < 1.05


def test_threads_help_but_not_in_proportion() -> None:
    one, two, four = (latencies_s("rpi3b", "cold", threads) for threads in (1, 2, 4))
    assert np.all(four < two)
    assert np.all(two < one)
    assert np.all(one < 3.2 * four)
    assert np.ptp(one / four) > 0.1  # networks gain differently


@pytest.mark.parametrize("kind", device_types())
@pytest.mark.parametrize("context", CONTEXTS)
def test_networks_are_nearly_but_not_exactly_the_sum_of_their_operators(
    truths: dict[tuple[str, str], Truth], kind: str, context: str
) -> None:
    sums_s = np.array([predicted_s(truths[kind, context], choices) for choices in networks(60)])
    error = sums_s / latencies_s(kind, context) - 1
    assert abs(error.mean()) < 0.004
    assert 0.002 < abs(error).mean() < 0.01
    assert abs(error).max() < 0.04


def test_operators_rank_differently_on_the_two_boards(truths: dict[tuple[str, str], Truth]) -> None:
    pi3, pi4 = truths["rpi3b", "cold"], truths["rpi4", "cold"]
    assert spearmanr(by_cell(pi3.latency_s), by_cell(pi4.latency_s)).statistic < 0.98
    swapped = [
        (layer, a, b)
        for layer in range(22)
        for a in range(8)
        for b in range(a)
        if (pi3.latency_s[layer, a] - pi3.latency_s[layer, b]) * (pi4.latency_s[layer, a] - pi4.latency_s[layer, b]) < 0
    ]
    assert len({layer for layer, _, _ in swapped}) >= 15  # on most layers at least one pair


def test_power_in_a_path_differs_a_little_from_power_in_a_hot_loop(truths: dict[tuple[str, str], Truth]) -> None:
    for kind in device_types():
        truth = truths[kind, "steady"]
        difference = by_cell(truth.path_power_w) / by_cell(truth.power_w) - 1
        assert 0.003 < np.median(abs(difference)) < 0.03
        assert abs(difference).max() < 0.08
        assert np.ptp(by_cell(truth.power_w)) > 0.5  # watts: operators differ


def test_a_hot_loop_is_faster_than_the_same_operator_in_a_path(truths: dict[tuple[str, str], Truth]) -> None:
    device = EmulatedDevice("rpi3b", settings=QUIET)
    model = device.model(SPACE, 1)
    hot_s = device.execute(model, [Execution(model.alone(model.row(HEAVY)), False, 2, 1)]).times_s[0].sum()
    assert hot_s < 0.99 * truths["rpi3b", "cold"].latency_s[HEAVY.layer, HEAVY.op]


def test_a_skip_costs_nothing_and_what_is_not_allowed_is_not_a_number(truths: dict[tuple[str, str], Truth]) -> None:
    truth = truths["rpi3b", "cold"]
    assert truth.latency_s[2, 8] == truth.energy_j[2, 8] == truth.path_power_w[2, 8] == 0
    assert np.isnan(truth.latency_s[0, 8])
    assert np.all(truth.fixed_energy_j > 0)


def test_the_truth_of_an_operator_is_the_mean_over_its_cells() -> None:
    device, twins = EmulatedDevice("rpi4"), tiny_space()
    twins = replace(twins, layers=(twins.layers[0], *twins.layers))  # the first two layers hold the same operators
    latency_s, energy_j = device.true_operator(twins, twins.layers[0].cells[1].spec, "steady")
    truth = device.truth(twins, "steady")
    assert truth.latency_s[0, 1] != truth.latency_s[1, 1]
    assert latency_s == pytest.approx(truth.latency_s[:2, 1].mean())
    assert energy_j == pytest.approx(latency_s * truth.power_w[1, 1])
    stem_s, _ = device.true_operator(twins, CellRef(FIXED_LAYER, 0), "steady")
    assert stem_s == pytest.approx(truth.fixed_latency_s[0])


# ---- measuring on a quiet board gives the truth


@pytest.mark.parametrize("threads", [1, 3])
def test_a_quiet_measurement_is_the_truth(threads: int) -> None:
    device = EmulatedDevice("rpi3b", 5, QUIET)
    model = device.model(SPACE, threads)
    chosen = networks(8)
    for swept, context in ((True, "cold"), (False, "steady")):
        executions = [Execution(model.network(c, owner), swept, 0 if swept else 2, 1) for owner, c in enumerate(chosen)]
        times_s = device.execute(model, executions, SWEEP).times_s
        for choices, measured_s in zip(chosen, times_s, strict=True):
            true_s, _ = device.true_network(SPACE, choices, context, threads)
            assert measured_s.sum() == pytest.approx(true_s, rel=1e-9)


def power_above_idle_w(device: EmulatedDevice, loop: Loop) -> float:
    step_s = (loop.ended_s - loop.started_s) / 1000
    voltage_v, current_a = device.supply.sample(loop.started_s, loop.ended_s, step_s)
    return float(np.mean(np.array(voltage_v) * np.array(current_a))) - device.type.power.idle_w


@pytest.mark.parametrize("kind", device_types())
def test_the_supply_of_a_quiet_board_integrates_to_the_true_energy(kind: str) -> None:
    device = EmulatedDevice(kind, settings=QUIET)
    model = device.model(SPACE, 2)
    for choices in networks(3):
        loop = device.loop(model, model.network(choices, 4), 6.0)
        cost = device.network_cost(SPACE, choices, "steady", 2)
        measured_j = power_above_idle_w(device, loop) * (loop.ended_s - loop.started_s) / loop.count
        assert measured_j == pytest.approx(cost.energy_j, rel=1e-6)
    for cell in (CellRef(0, 0), HEAVY, CellRef(FIXED_LAYER, 2)):
        loop = device.loop(model, model.alone(model.row(cell)), 2.0)
        truth = true_operators(model, "cold", 18)
        assert power_above_idle_w(device, loop) == pytest.approx(truth.of([cell]).power_w, rel=1e-6)


# ---- disturbances


def story(seed: int, count: int = 4) -> tuple[list[float], list[float]]:
    device = EmulatedDevice("rpi3b", seed)
    model = device.model(SPACE, 1)
    timings = device.execute(model, [Execution(model.network(c), True, 0, 1) for c in networks(count)], SWEEP)
    device.loop(model, model.network(networks(1)[0]), 3.0)
    device.rest_until(400.0)
    return [float(t) for times in timings.times_s for t in times.ravel()], device.supply.sample(0, 420, 0.5)[1]


def test_the_seed_decides_everything() -> None:
    assert story(3) == story(3)
    assert story(3)[0] != story(4)[0]
    assert story(3)[1] != story(4)[1]


def test_drift_and_bursts_do_not_depend_on_what_is_asked_first() -> None:
    one, other = EmulatedDevice("rpi3b", 9), EmulatedDevice("rpi3b", 9)
    whole = one.supply.sample(0, 3000, 0.5)
    other.supply.sample(2000, 2100, 0.5)
    other.rest_until(3000)
    assert other.supply.sample(0, 3000, 0.5)[1] == pytest.approx(whole[1], rel=1e-9)


def test_noise_is_skewed_and_hardly_moves_the_median() -> None:
    device = EmulatedDevice("rpi3b", 1, Settings(drift=False, bursts=False))
    model = device.model(SPACE, 1)
    choices = networks(1)[0]
    took_s = device.execute(model, [Execution(model.network(choices), False, 2, 400)]).times_s[0].sum(axis=1)
    true_s, _ = device.true_network(SPACE, choices, "steady")
    assert np.median(took_s) == pytest.approx(true_s, rel=0.006)
    assert 0.002 < np.std(took_s) / true_s < 0.02
    assert np.mean(took_s) > np.median(took_s)


def test_another_process_slows_the_board_down_and_draws_power() -> None:
    device = EmulatedDevice("rpi3b", 2, Settings(noise=False, drift=False))
    burst = device.board.disturbances.bursts(0, 1000)[0]
    model = device.model(SPACE, 1)
    execution = Execution(model.network(networks(1)[0]), False, 2, 1)
    quiet_s = device.execute(model, [execution]).times_s[0].sum()
    device.rest_until(burst.started_s - 0.05)
    current_a = device.supply.sample(burst.started_s - 0.04, burst.started_s + 0.04, 0.02)[1]
    slow_s = device.execute(model, [execution]).times_s[0].sum()
    assert 1.02 * quiet_s < slow_s < 1.4 * quiet_s
    assert current_a[3] > current_a[0] + 0.03


def test_the_idle_current_is_what_it_should_be_and_drifts_slowly() -> None:
    quiet = EmulatedDevice("rpi3b", settings=QUIET)
    voltage_v, current_a = quiet.supply.sample(0, 10, 1)
    assert current_a == pytest.approx([0.24] * 10, abs=1e-4)
    assert voltage_v == pytest.approx([5.1] * 10, abs=1e-3)
    drifting = np.array(EmulatedDevice("rpi3b", 4, Settings(bursts=False)).supply.sample(0, 3600, 1)[1])
    assert 0.002 < drifting.std() < 0.02
    assert abs(np.diff(drifting)).max() < 0.005


def test_the_board_never_draws_more_than_a_pi_3_can() -> None:
    device = EmulatedDevice("rpi3b", 6)
    model = device.model(SPACE, 4)
    rows = range(len(model.table.operators))
    for row in rows:
        device.loop(model, model.alone(row), 3.0)
    current_a = np.array(device.supply.sample(0, device.now_s, 0.02)[1])
    assert 0.62 < current_a.max() <= 0.74


def test_a_loaded_board_warms_up_and_leaks() -> None:
    device = EmulatedDevice("rpi3b", settings=Settings(noise=False, bursts=False))
    resting_c = device.board.temp_c
    device.rest_until(2.0)
    model = device.model(SPACE, 4)
    device.loop(model, model.alone(model.row(HEAVY)), 300.0)
    assert resting_c + 10 < device.board.temp_c < 75
    assert not device.board.throttled
    leakage_w = device.type.power.leakage_w_per_c * (device.board.temp_c - resting_c)
    after_s = device.now_s + 0.1
    drift_w = device.board.disturbances.idle_w(np.array([after_s]))[0]
    assert device.supply.power_w(np.array([after_s]))[0] == pytest.approx(1.224 + leakage_w + drift_w, abs=1e-6)
    assert leakage_w > 0.04


def test_a_board_in_a_hot_room_is_throttled_and_says_so() -> None:
    device = EmulatedDevice("rpi3b", settings=Settings(noise=False, drift=False, bursts=False, ambient_c=55))
    model = device.model(SPACE, 4)
    chain = model.alone(model.row(HEAVY))
    cool_s = device.execute(model, [Execution(chain, False, 2, 1)]).times_s[0].sum()
    device.loop(model, chain, 600.0)
    assert device.board.throttled_bits == 0x60006
    assert device.board.frequency_hz == device.type.thermal.throttled_hz
    hot_s = device.execute(model, [Execution(chain, False, 2, 1)]).times_s[0].sum()
    assert hot_s > 1.2 * cool_s
    device.rest_until(device.now_s + 600)
    assert device.board.throttled_bits == 0x60000


def test_sampling_in_pieces_gives_the_same_as_at_once() -> None:
    device = EmulatedDevice("rpi4", 8)
    model = device.model(SPACE, 1)
    for choices in networks(3):
        device.loop(model, model.network(choices), 2.0)
    whole = device.supply.sample(0, 8, 0.01)[1]
    cuts = [0, 0.01, 1.0, 3.33, 8]
    pieces = [a for low, high in pairwise(cuts) for a in device.supply.sample(low, high, 0.01)[1]]
    assert pieces == pytest.approx(whole, rel=1e-6)


def test_old_history_is_forgotten_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_supply, "PRUNED_AT", 50)
    monkeypatch.setattr(device_supply, "KEPT_S", 20)
    device = EmulatedDevice("rpi3b", settings=QUIET)
    device.rest_until(300)
    assert device.supply.sample(290, 291, 0.5)[1] == pytest.approx([0.24, 0.24], abs=1e-4)
    with pytest.raises(ValueError, match=r"1\.0 s is forgotten"):
        device.supply.sample(1, 2, 0.5)


def test_a_board_may_rest_for_days() -> None:
    device = EmulatedDevice("rpi3b")
    device.rest_until(200_000)
    recent = device.supply.sample(199_000, 200_000, 1)
    assert 0.2 < min(recent[1]) < max(recent[1]) < 0.35
    other = EmulatedDevice("rpi3b")
    other.rest_until(200_000)
    assert other.supply.sample(199_000, 200_000, 1) == recent
    with pytest.raises(ValueError, match="the drift at 0 s is forgotten"):
        device.supply.sample(0, 1, 1)


# ---- bad input


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(BadInputError, match="'rpi3b'"):
        EmulatedDevice("rpi3")
    device = EmulatedDevice("rpi3b")
    with pytest.raises(BadInputError, match="5 threads cannot be measured on rpi3b: it has 4 cores"):
        device.truth(SPACE, "cold", 5)
    with pytest.raises(BadInputError, match="cold, steady"):
        device.true_network(SPACE, networks(1)[0], "warm")
    with pytest.raises(NotFoundError, match="fbnet-cifar10"):
        device.true_operator(SPACE, BlockSpec("conv", 5, 5), "cold")
    with pytest.raises(ValueError, match="22 layers"):
        device.true_network(SPACE, (0,), "cold")


# ---- the cache


def test_the_cache_forgets_the_oldest_first_and_only_as_much_as_it_must() -> None:
    cache = Cache(100, 1.0)
    assert cache.touch([(1, 40), (2, 40), (1, 40), (3, 40)]) == [40, 40, 0, 40]
    assert cache.touch([(2, 40)]) == [20]  # half of it had to go
    assert cache.touch([(3, 40), (1, 40)]) == [0, 20]


def test_a_stream_does_not_flush_everything_and_a_sweep_does() -> None:
    cache = Cache(100, 0.5)
    assert cache.touch([(1, 40), (2, 1000), (1, 40), (2, 1000)]) == [40, 1000, 0, 950]
    cache.sweep(80)
    assert cache.touch([(2, 20)]) == [0]
    cache.sweep(100)
    assert cache.touch([(2, 20), (1, 40)]) == [20, 40]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 150)), max_size=60), st.floats(0.2, 1.0))
def test_the_cache_never_holds_more_than_it_can(ranges: list[tuple[int, int]], share: float) -> None:
    cache = Cache(100, share)
    missing = cache.touch(ranges)
    assert all(0 <= missed <= size for missed, (_, size) in zip(missing, ranges, strict=True))
    assert cache._used == sum(cache._resident.values()) <= 100
