from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent.emulator.meter import CpuTimeSupply, InMemoryMeter, MeterModel, MeterSettings, spawn
from agent.load import Load
from agent.meters import open_meter
from protos.errors import BadInputError
from tests.agent.meters.helpers import ManualClock, StepSupply, WallClock, wait_for

CLEAN = MeterSettings(noise_a=0.0, noise_v=0.0)


def test_the_step_response_is_that_of_two_poles_and_a_delay() -> None:
    settings = MeterSettings(noise_a=0, noise_v=0, update_s=0.02, tau_s=0.4, tau2_s=0.1, delay_s=0.1, step_s=0.001)
    model = MeterModel(StepSupply(at_s=10.0, idle_a=0.0, load_a=1.0), settings)
    model.reading(9.0)
    for t in (10.05, 10.3, 10.8, 12.5):
        seen = model.reading(t).current_a
        late = [max(0.0, t - age - 10.0 - 0.1) for age in (0.0, 0.021)]  # the latched value is up to one period old
        now, then = (1 - (0.4 * math.exp(-x / 0.4) - 0.1 * math.exp(-x / 0.1)) / 0.3 for x in late)
        assert then - 0.01 <= seen <= now + 0.01


def test_polls_between_updates_repeat_the_value() -> None:
    model = MeterModel(StepSupply(), MeterSettings(seed=1))
    model.reading(0.0)
    values = [model.reading(1.0 + i * 0.05).current_a for i in range(40)]  # two seconds at 2 Hz
    assert 4 <= len(set(values)) <= 5


def test_values_are_quantised_and_seeded() -> None:
    one, two = (MeterModel(StepSupply(), MeterSettings(seed=7, current_step_a=0.01)) for _ in range(2))
    values = [one.reading(t).current_a for t in range(50)]
    assert values == [two.reading(t).current_a for t in range(50)]
    assert all(abs(v * 100 - round(v * 100)) < 1e-9 for v in values)


def test_the_counters_add_up() -> None:
    model = MeterModel(StepSupply(), CLEAN)
    first, last = model.reading(0.0), model.reading(100.0)
    assert last.energy_j is not None
    assert first.energy_j is not None
    assert last.energy_j - first.energy_j == pytest.approx(5.076 * 0.24 * 100, rel=0.01)


def test_time_in_many_small_steps_or_one_is_the_same() -> None:
    small, big = (MeterModel(StepSupply(at_s=3.0), MeterSettings(seed=2)) for _ in range(2))
    small.update(0.0)
    big.update(0.0)
    values = [r for i in range(1, 1001) for r in small.update(i * 0.01)]
    assert [r.current_a for r in values] == [r.current_a for r in big.update(10.0)]


def test_a_meter_that_was_not_read_for_hours_asks_for_the_last_minutes_only() -> None:
    class Forgetful(StepSupply):
        def sample(self, start_s: float, stop_s: float, step_s: float) -> tuple[list[float], list[float]]:
            assert stop_s - start_s <= 601, "a supply keeps only so much of its past"
            return super().sample(start_s, stop_s, step_s)

    coarse = replace(CLEAN, step_s=0.1)
    watched, unread = MeterModel(StepSupply(), coarse), MeterModel(Forgetful(), coarse)
    for model in (watched, unread):
        model.reading(0.0)
    for t in range(0, 20_000, 500):
        watched.reading(float(t))
    seen, expected = unread.reading(20_000.0), watched.reading(20_000.0)
    assert (seen.current_a, seen.device_time_s) == (expected.current_a, expected.device_time_s)


def test_a_meter_in_memory_samples_in_the_clocks_time() -> None:
    clock = ManualClock()
    meter = InMemoryMeter(MeterModel(StepSupply(), CLEAN), clock)
    clock.advance(10.0)
    assert meter.take()[0].t_ns == ()  # not started
    meter.start()
    clock.advance(20.0)
    samples, losses = meter.take()
    assert losses == ()
    assert len(samples.t_ns) == 51  # every 0.4 s
    assert 25 <= sum(samples.fresh) <= 41  # steady values of a 2 Hz meter count once a period
    assert set(samples.current_a) == {0.24}
    meter.stop()
    clock.advance(5.0)
    assert meter.take()[0].t_ns == ()
    assert meter.info.emulated


def test_a_streaming_meter_in_memory_says_every_value_once() -> None:
    clock = ManualClock()
    model = MeterModel(StepSupply(at_s=105.0), MeterSettings.at_rate(200, noise_a=0.0, noise_v=0.0))
    meter = InMemoryMeter(model, clock, kind="smartpower3", streaming=True)
    clock.advance(3.0)
    meter.start()
    clock.advance(2.0)
    first, _ = meter.take()
    clock.advance(2.0)
    second, _ = meter.take()
    assert len(first.t_ns) + len(second.t_ns) in (800, 801)
    assert all(first.fresh)
    assert all(second.fresh)
    assert first.t_ns[0] == pytest.approx(103.0e9, abs=5.1e6)
    risen = next(t for t, a in zip(second.t_ns, second.current_a, strict=True) if a > 0.49)
    assert 0 < risen * 1e-9 - 105.0 < 3 * model.settings.mean_lag_s + 0.005


def test_the_current_follows_the_cpu_time_of_a_process() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        supply = CpuTimeSupply(busy.pid, idle_a=0.2, active_a=0.5)
        started_ns = supply._cpu_time_ns()
        began = time.monotonic()
        time.sleep(0.5)
        _, current = supply.sample(0.0, 0.5, 0.1)
        elapsed = time.monotonic() - began
        assert started_ns is not None
        used_s = ((supply._cpu_time_ns() or 0) - started_ns) * 1e-9
        assert len(current) == 5
        assert current[0] == pytest.approx(0.2 + 0.5 * used_s / elapsed, abs=0.1)
        assert current[0] > 0.2
        voltage, _ = supply.sample(0.5, 0.6, 0.1)
        assert voltage[0] < 5.1
    finally:
        busy.kill()
        busy.wait()
    supply.sample(0.6, 0.7, 0.1)
    assert supply.sample(0.7, 0.8, 0.1)[1] == [0.2]
    assert not supply.alive


def test_a_spawned_meter_is_read_like_any_other_and_ends() -> None:
    process = spawn("um25c", follow_pid=os.getpid(), rate_hz=50.0, idle=0.3, noise_a=0.001)
    try:
        meter = open_meter(process.spec, WallClock())
        try:
            meter.start()
            count = 0

            def some() -> bool:
                nonlocal count
                samples, _ = meter.take()
                count += len(samples.t_ns)
                assert all(a > 0.28 for a in samples.current_a)
                return count >= 10

            wait_for(some)
            process.follow(1)
        finally:
            meter.close()
    finally:
        process.close()
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_spawned_meter_ends_with_its_parent() -> None:
    code = (
        "from agent.emulator.meter import spawn; import os\n"
        "p = spawn(follow_pid=os.getpid()); print(p.pid, flush=True); os._exit(9)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    pid = int(run.stdout)
    stat = Path(f"/proc/{pid}/stat")
    wait_for(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_an_unknown_kind_or_setting_is_refused() -> None:
    with pytest.raises(BadInputError, match="invalid choice: 'um26c'"):
        spawn("um26c")
    with pytest.raises(BadInputError, match="unrecognized arguments: --nois-e"):
        spawn("um25c", nois_e=1.0)


def test_the_emulator_stays_small() -> None:
    heavy = "('numpy', 'torch', 'rich')"
    code = f"import sys, agent.emulator.meter, agent.meters.um25c\nprint([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_what_a_process_starts_counts_too_when_it_shall() -> None:
    with_children = CpuTimeSupply(os.getpid(), children=True)
    load = Load(1)
    try:
        load.busy()
        began_s = time.monotonic()
        # This very process makes no current of its own: it plays the meter.
        wait_for(lambda: with_children.sample(began_s, began_s + 0.1, 0.1)[1][0] > 0.3)
    finally:
        load.close()
    wait_for(lambda: with_children.sample(0.0, 0.1, 0.1)[1][0] < 0.26)
