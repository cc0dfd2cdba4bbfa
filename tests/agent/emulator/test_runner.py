"""The emulated runner: it does what the real worker does, and time passes on its clock."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import numpy as np
import pytest

from agent import timing
from agent.emulator.device import EmulatedDevice
from agent.emulator.device_disturbance import QUIET, Settings
from agent.emulator.meter import InMemoryMeter, MeterModel, MeterSettings
from agent.emulator.runner import EmulatedRunner, ScaledClock, VirtualClock, compose, hot_calls
from agent.host import flags_of, sweep_bytes
from agent.runner import Runner, RunnerError, UnfitError
from protos import common_pb2
from protos.convert import from_message, to_message
from protos.errors import BadInputError
from protos.types import LatencyRound, MeasurementPlan, PowerWindow, RunSpec
from tests.agent.emulator.worlds import SPACE, networks, run_of
from tests.agent.spaces import lease_of, tiny_run, wait

PLANS = (
    MeasurementPlan(context="cold", paths_per_round=6),
    MeasurementPlan(context="steady", paths_per_round=4, warmup_calls=2, timed_calls=3),
    MeasurementPlan(method="isolated", context="cold", warmup_calls=1, timed_calls=2),
    MeasurementPlan(context="cold", paths_per_round=3, isolated_every=2, other_context_every=2),
)


def runner_of(settings: Settings = QUIET, kind: str = "rpi3b", seed: int = 1) -> EmulatedRunner:
    return EmulatedRunner(EmulatedDevice(kind, seed, settings), VirtualClock())


async def prepared(run: RunSpec, settings: Settings = QUIET, seed: int = 1) -> EmulatedRunner:
    runner = runner_of(settings, seed=seed)
    await runner.prepare(run)
    return runner


def rounds_of(run: RunSpec, settings: Settings = QUIET, count: int = 1, seed: int = 1) -> list[LatencyRound]:
    async def work() -> list[LatencyRound]:
        runner = await prepared(run, settings, seed)
        return [await runner.latency_round(lease_of(run), index) for index in range(count)]

    return wait(work())


# ---- rounds


@pytest.mark.parametrize("plan", PLANS)
def test_a_round_is_valid_on_the_wire(plan: MeasurementPlan) -> None:
    for round_ in rounds_of(run_of(plan), Settings(), 2):
        wire = to_message(round_).SerializeToString()
        assert from_message(LatencyRound, common_pb2.LatencyRound.FromString(wire)) == round_


def test_a_cold_round_of_paths_and_networks() -> None:
    run = run_of(PLANS[0])
    (round_,) = rounds_of(run, Settings())
    assert round_.paths is not None
    assert round_.networks is not None
    assert round_.operators is None
    assert round_.other_context is None
    assert round_.sweep_bytes == sweep_bytes(512 << 10, 512 << 10)
    assert round_.paths.calls == round_.networks.calls == 1
    choices = np.array(round_.paths.choices).reshape(6, 22)
    block_ns = np.array(round_.paths.block_ns).reshape(6, 25)
    for row, path in enumerate(choices):
        run.space.check_choices(tuple(path.tolist()))
        assert [slot == 0 for slot in block_ns[row]] == [False, *(op == 8 for op in path), False, False]
    assert block_ns.sum(axis=1).tolist() == list(round_.paths.total_ns)
    assert sorted(round_.networks.network) == [0, 1, 2, 3, 4]
    busy_ns = sum(round_.paths.total_ns) + sum(round_.networks.total_ns) + sum(round_.probe_ns)
    assert busy_ns < round_.ended_ns - round_.started_ns < 1.5 * busy_ns


def test_hot_loops_and_the_other_context_come_in_some_rounds() -> None:
    run = run_of(PLANS[3])
    with_both, without = rounds_of(run, Settings(), 2)
    assert with_both.operators is not None
    assert with_both.other_context is not None
    assert (with_both.operators.calls, with_both.other_context.calls) == (8, 2)
    assert sorted(with_both.operators.item) == list(range(len(run.items)))
    assert sorted(with_both.other_context.network) == [0, 1, 2, 3, 4]
    assert without.operators is None
    assert without.other_context is None


def test_an_isolated_round_has_no_paths() -> None:
    (round_,) = rounds_of(run_of(PLANS[2]), Settings())
    assert round_.paths is None
    assert round_.operators is not None
    assert round_.networks is not None
    assert round_.operators.calls == 2
    assert round_.networks.calls == 1


@pytest.mark.parametrize(
    "plan",
    [
        {"context": "cold"},
        {"context": "steady", "warmup_calls": 1, "timed_calls": 2, "other_context_every": 1},
        {"method": "isolated", "warmup_calls": 1, "timed_calls": 1},
        {"context": "cold", "isolated_every": 1, "other_context_every": 1},
    ],
)
def test_a_round_is_composed_as_the_real_worker_composes_it(plan: dict[str, object]) -> None:
    run = tiny_run(networks=5, **plan)
    real = timing.Bench(run, 1 << 16, lambda: None).latency_round(7, 4)
    runner = wait(prepared(run))
    emulated = wait(runner.latency_round(lease_of(run), 4))

    def composition(round_: LatencyRound) -> tuple[object, ...]:
        parts = (round_.networks, round_.other_context)
        return (
            round_.order,
            round_.paths and (round_.paths.calls, round_.paths.choices),
            *(part and (part.calls, part.network) for part in parts),
            round_.operators and (round_.operators.calls, round_.operators.item),
            len(round_.probe_ns),
            round_.sweep_bytes > 0,
        )

    assert composition(emulated) == composition(real)


@pytest.mark.parametrize("plan", PLANS)
def test_hot_loops_are_as_long_as_the_real_worker_s(plan: MeasurementPlan) -> None:
    assert hot_calls(plan) == timing.hot_calls(plan)


def test_every_round_has_other_paths_and_the_seed_decides_which() -> None:
    run = run_of(PLANS[0])
    assert compose(run, 7, 1) == compose(run, 7, 1)
    assert len({compose(run, seed, index).paths for seed in (7, 8) for index in (0, 1)}) == 4


def test_the_same_device_seed_gives_the_same_times() -> None:
    run = run_of(PLANS[0])
    assert rounds_of(run, Settings(), 2) == rounds_of(run, Settings(), 2)
    assert rounds_of(run, Settings(), 1, seed=2) != rounds_of(run, Settings(), 1)


@pytest.mark.parametrize("plan", PLANS[:2])
def test_a_quiet_round_measures_the_truth(plan: MeasurementPlan) -> None:
    (round_,) = rounds_of(run_of(plan))
    device = EmulatedDevice("rpi3b")
    assert round_.networks is not None
    times_ns = np.array(round_.networks.total_ns).reshape(5, -1)
    for number, own_ns in zip(round_.networks.network, times_ns, strict=True):
        true_s, _ = device.true_network(SPACE, networks(5)[number], plan.context)
        assert own_ns.tolist() == pytest.approx([true_s * 1e9] * len(own_ns), abs=1)


# ---- energy windows


def test_a_load_is_a_gap_and_a_window_of_whole_calls() -> None:
    async def work() -> tuple[EmulatedRunner, list[PowerWindow]]:
        runner = await prepared(run_of(PLANS[0]))
        windows = [*await runner.load("item", 3, 2.0), *await runner.load("network", 1, 6.0), await runner.idle(3.0)]
        return runner, windows

    runner, windows = wait(work())
    assert [w.subject for w in windows] == ["gap", "item", "gap", "network", "idle"]
    assert [w.index for w in windows] == [3, 3, 1, 1, 0]
    assert all(a.ended_ns == b.started_ns for a, b in pairwise(windows))
    assert windows[-1].ended_ns - windows[-1].started_ns == pytest.approx(3e9, abs=2)
    assert runner.clock.now_ns() >= windows[-1].ended_ns
    cost = runner.device.network_cost(SPACE, networks(5)[1], "steady")
    network = windows[3]
    assert (network.ended_ns - network.started_ns) / network.count == pytest.approx(cost.latency_s * 1e9, rel=1e-6)
    assert 6e9 <= network.ended_ns - network.started_ns < 6.4e9
    assert windows[1].count > 100


def test_a_meter_sees_the_power_of_the_load() -> None:
    async def work() -> None:
        runner = await prepared(run_of(PLANS[0]))
        settings = MeterSettings(noise_a=0, noise_v=0, current_step_a=0, voltage_step_v=0, power_step_w=0)
        meter = InMemoryMeter(MeterModel(runner.device.supply, settings), runner.clock)
        meter.start()
        idle = await runner.idle(10.0)
        _, window = await runner.load("network", 2, 20.0)
        samples, losses = meter.take()
        assert losses == ()
        t_ns, power_w = np.array(samples.t_ns), np.array(samples.voltage_v) * np.array(samples.current_a)

        def settled_w(during: PowerWindow) -> float:
            return float(power_w[(t_ns > during.started_ns + 5e9) & (t_ns < during.ended_ns)].mean())

        cost = runner.device.network_cost(SPACE, networks(5)[2], "cold")
        assert settled_w(window) - settled_w(idle) == pytest.approx(cost.power_w, rel=1e-3)

    wait(work())


# ---- the board


def test_facts_are_those_of_a_pi_and_say_that_it_is_emulated() -> None:
    facts = wait(runner_of().facts())
    assert facts.model == "Raspberry Pi 3 Model B Rev 1.2 (emulated)"
    assert facts.torch_build == "emulated"
    assert (facts.machine, facts.cpu_count, facts.l2_bytes) == ("aarch64", 4, 512 << 10)


def test_the_state_follows_the_work() -> None:
    async def work() -> None:
        run = run_of(PLANS[0])
        runner: Runner = await prepared(run, Settings(noise=False, drift=False))
        before = await runner.state()
        await runner.latency_round(lease_of(run), 0)
        after = await runner.state()
        assert before.temp_c is not None
        assert after.temp_c is not None
        assert after.temp_c > before.temp_c
        assert before.other_cpu_share is None
        assert after.other_cpu_share is not None
        assert 0 <= after.other_cpu_share < 1
        assert (after.governor, after.frequency_hz, after.throttled_bits) == ("performance", 1.2e9, 0)
        assert after.memory_available_bytes is not None
        assert 0 < after.memory_available_bytes < 906 << 20
        assert after.load_1m is not None
        assert 0 < after.load_1m <= 1
        assert flags_of(before, after) == ()

    wait(work())


def test_a_board_that_is_too_hot_is_flagged() -> None:
    async def work() -> None:
        run = run_of(MeasurementPlan(threads=4, paths_per_round=2))
        runner = await prepared(run, Settings(bursts=False, ambient_c=58))
        before = await runner.state()
        await runner.load("network", 0, 600.0)
        assert {"throttled", "frequency", "hot"} & set(flags_of(before, await runner.state()))

    wait(work())


def test_what_cannot_be_done_is_refused() -> None:
    async def work() -> None:
        runner = runner_of()
        run = run_of(PLANS[0])
        with pytest.raises(RunnerError, match="prepare the run again"):
            await runner.latency_round(lease_of(run), 0)
        with pytest.raises(UnfitError, match="8 threads"):
            await runner.prepare(run_of(MeasurementPlan(threads=8)))
        with pytest.raises(UnfitError, match="MB more than rpi3b has"):
            await runner.prepare(run_of(PLANS[0], 200))
        await runner.prepare(run)
        with pytest.raises(RunnerError, match="network 5 does not exist: this run has 5"):
            await runner.load("network", 5, 1.0)
        await runner.close()
        with pytest.raises(RunnerError, match="prepare the run again"):
            await runner.load("item", 0, 1.0)

    wait(work())


def test_to_prepare_takes_time_once() -> None:
    async def work() -> None:
        runner, run = runner_of(), run_of(PLANS[0])
        await runner.prepare(run)
        first_ns = runner.clock.now_ns()
        assert first_ns > 14e9  # the framework is loaded
        await runner.prepare(run_of(PLANS[0]))
        assert runner.clock.now_ns() == first_ns
        await runner.prepare(run_of(PLANS[1]))
        assert first_ns < runner.clock.now_ns() < first_ns + 14e9

    wait(work())


# ---- clocks


def test_virtual_sleepers_wake_in_the_order_of_their_time() -> None:
    async def work() -> None:
        clock, woken = VirtualClock(), []

        async def sleeper(name: str, naps_s: list[float]) -> None:
            for nap_s in naps_s:
                await clock.sleep(nap_s)
                woken.append((name, clock.now_ns() / 1e9))

        started_s = time.monotonic()
        await asyncio.gather(sleeper("slow", [1000.0, 1000.0]), sleeper("quick", [400.0, 500.0, 600.0]))
        assert woken == [("quick", 400), ("quick", 900), ("slow", 1000), ("quick", 1500), ("slow", 2000)]
        assert time.monotonic() - started_s < 100  # half an hour did not pass

    wait(work())


def test_a_cancelled_sleeper_does_not_move_the_virtual_time() -> None:
    async def work() -> None:
        clock = VirtualClock()
        nap = asyncio.create_task(clock.sleep(100.0))
        await asyncio.sleep(0)
        nap.cancel()
        await clock.sleep(5.0)
        assert clock.now_ns() == 5_000_000_000
        await clock.sleep(200.0)
        assert clock.now_ns() == 205_000_000_000

    wait(work())


def test_work_that_was_cancelled_still_takes_its_time() -> None:
    async def work() -> None:
        runner = await prepared(run_of(PLANS[0]))
        load = asyncio.create_task(runner.load("network", 0, 10.0))
        while runner.clock.now_ns() / 1e9 > runner.device.now_s - 1:
            await asyncio.sleep(0)
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        free_ns = runner.device.now_s * 1e9
        window = await runner.idle(1.0)
        assert window.started_ns >= free_ns - 1

    wait(work())


def test_work_takes_its_time_on_a_scaled_clock() -> None:
    async def work() -> None:
        clock = ScaledClock(2000.0)
        runner = EmulatedRunner(EmulatedDevice("rpi4", 1, QUIET), clock)
        run = run_of(PLANS[0])
        await runner.prepare(run)
        round_ = await runner.latency_round(lease_of(run), 0)
        assert clock.now_ns() >= round_.ended_ns
        _, window = await runner.load("network", 0, 6.0)
        assert round_.ended_ns <= window.started_ns < window.ended_ns <= clock.now_ns()
        middle_s = (window.started_ns + window.ended_ns) / 2e9
        assert runner.device.supply.sample(middle_s, middle_s + 1, 1)[1][0] > 0.7
        before_ns = clock.now_ns()
        await clock.sleep(30.0)
        assert clock.now_ns() >= before_ns + 30e9

    wait(work())


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clock_must_run(speed: float) -> None:
    with pytest.raises(BadInputError, match="must be above 0"):
        ScaledClock(speed)


def test_random_paths_use_every_candidate_alike() -> None:
    drawn = [path for index in range(40) for path in compose(run_of(PLANS[0]), 7, index).paths]
    counts = np.bincount([path[5] for path in drawn], minlength=9)
    assert counts[8] == 0  # no skip on the first layer of a stage
    assert counts[:8].min() > 10
