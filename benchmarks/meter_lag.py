"""Figure 2 of the meters: the lag that `edgelut-agent calibrate` finds, against the emulator's true one.

The command's own square wave and estimator in virtual time, for a 200 Hz meter that speaks by itself and a 2 Hz meter
that is polled; true mean lags from 0.05 to 2 s, made of a delay and two poles.
"""

from __future__ import annotations

import numpy as np

from agent.calibration import estimate
from agent.cli.calibrate import wave
from agent.emulator.memory_meter import InMemoryMeter
from agent.emulator.model import MeterModel, MeterSettings
from benchmarks.runs import keep

LAGS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
DURATION_S = 60.0  # of the wave, as the command has it
SEEDS_FULL, SEEDS_SHORT = 12, 4
GOALS_S = {200.0: 0.020, 2.0: 0.150}
IDLE_W, BUSY_W, SOURCE_V, OHM = 1.2, 3.4, 5.2, 0.12


class ManualClock:
    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        return self.ns


class WaveSupply:
    """A board that is busy or idle by a list of edges; its voltage sags."""

    def __init__(self, edges: list[tuple[float, bool]]) -> None:
        self._times = np.array([at for at, _ in edges])
        self._busy = np.array([False, *(busy for _, busy in edges)])

    def sample(self, start_s: float, stop_s: float, step_s: float) -> tuple[list[float], list[float]]:
        times = start_s + step_s * np.arange(round((stop_s - start_s) / step_s))
        power_w = np.where(self._busy[np.searchsorted(self._times, times, side="right")], BUSY_W, IDLE_W)
        current_a = (SOURCE_V - np.sqrt(SOURCE_V**2 - 4 * OHM * power_w)) / (2 * OHM)
        return (SOURCE_V - OHM * current_a).tolist(), current_a.tolist()


def settings_of(rate_hz: float, lag_s: float, seed: int) -> MeterSettings:
    """A fifth of the lag is dead time, the rest two poles of unequal weight."""
    return MeterSettings(
        update_s=1 / rate_hz,
        delay_s=0.2 * lag_s,
        tau_s=0.6 * lag_s,
        tau2_s=0.2 * lag_s,
        step_s=min(0.005, 1 / rate_hz),
        seed=seed,
    )


def error_s(rate_hz: float, lag_s: float, seed: int) -> float:
    """Estimated − true."""
    clock, at, edges = ManualClock(), 0.0, []
    for half in wave(DURATION_S, seed):
        if at > 0:
            edges.append((at, half.busy))
        at += half.duration_s
    settings = settings_of(rate_hz, lag_s, seed)
    model = MeterModel(WaveSupply(edges), settings)
    meter = InMemoryMeter(model, clock, kind="um25c", streaming=rate_hz > 10)
    meter.start()
    clock.ns = round(at * 1e9)
    samples, _ = meter.take()
    times_s = np.array(samples.t_ns) * 1e-9
    power_w = np.array(samples.voltage_v) * np.array(samples.current_a)
    found = estimate(times_s, power_w, edges, np.array(samples.fresh))
    # What the emulator's discrete steps make of a delay is the true one.
    true_s = round(settings.delay_s / model.step_s) * model.step_s + settings.tau_s + settings.tau2_s
    return found.lag_s - true_s


def main(full: bool = False) -> None:
    record = {}
    for rate_hz, goal_s in GOALS_S.items():
        worst_s = 0.0
        for lag_s in LAGS_S:
            errors_ms = 1e3 * np.array([error_s(rate_hz, lag_s, s) for s in range(SEEDS_FULL if full else SEEDS_SHORT)])
            worst_s = max(worst_s, float(np.abs(errors_ms).max()) / 1e3)
            print(
                f"{rate_hz:5.0f} Hz, true lag {lag_s:4.2f} s: error {np.mean(errors_ms):+7.1f} ms in the mean, "
                f"{np.median(np.abs(errors_ms)):6.1f} ms median, {np.abs(errors_ms).max():6.1f} ms at most",
                flush=True,
            )
            record[f"{rate_hz:g} Hz {lag_s:g} s"] = errors_ms.tolist()
        print(f"{rate_hz:5.0f} Hz: worst {worst_s * 1e3:.1f} ms, goal {goal_s * 1e3:.0f} ms")
    keep("meter-lag", record)
