"""`make bench-forecast`: the doctor's forecast against what emulated runs reach.

For meters of several rates, lags and noises: the half-width that `agent.forecast` promises for an operator's power from
what a square wave tells of the meter, beside the median half-width that the fit of a whole emulated run gives, and the
error against the truth that it really has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agent.calibration import estimate
from agent.cli.calibrate import wave
from agent.emulator.device import EmulatedDevice
from agent.emulator.memory_meter import InMemoryMeter
from agent.emulator.model import MeterModel, MeterSettings
from agent.forecast import Z95, Quality, half_width
from benchmarks.emulated import NOISY_2HZ
from benchmarks.energy_truth import TYPE, compare, energy_run, measure
from lut_store.estimate.energy import estimate_power
from protos.types import Calibration

CALIBRATE_S = 120.0
SEED = 1
SHORT = 2  # cases, without --long


@dataclass(frozen=True)
class Case:
    name: str
    settings: MeterSettings
    minutes: float


CASES = (
    Case("2 Hz, lag 0.55 s, 5 mA", NOISY_2HZ, 25.0),
    Case("2 Hz, lag 0.55 s, 5 mA", NOISY_2HZ, 10.0),
    Case("2 Hz, lag 0.55 s, 15 mA", replace(NOISY_2HZ, noise_a=0.015), 25.0),
    Case("2 Hz, lag 1.2 s, 5 mA", replace(NOISY_2HZ, tau_s=1.0, tau2_s=0.15), 25.0),
    Case("20 Hz, lag 0.06 s, 5 mA", MeterSettings.at_rate(20.0), 10.0),
    Case("20 Hz, lag 0.06 s, 20 mA", MeterSettings.at_rate(20.0, noise_a=0.02), 10.0),
)


class SquareSupply:
    """One core of the emulated Pi, busy and idle in turn."""

    def __init__(self, edges: list[tuple[float, bool]], idle_a: float, busy_a: float) -> None:
        self._at_s = np.array([at_s for at_s, _ in edges])
        self._current_a = np.array([idle_a, *(busy_a if busy else idle_a for _, busy in edges)])

    def sample(self, start_s: float, stop_s: float, step_s: float) -> tuple[list[float], list[float]]:
        times_s = start_s + step_s * np.arange(round((stop_s - start_s) / step_s))
        current_a = self._current_a[np.searchsorted(self._at_s, times_s, side="right")]
        return list(5.1 - 0.12 * current_a), list(current_a)


class _Hand:
    """A clock that is set by hand."""

    now_s = 0.0

    def now_ns(self) -> int:
        return round(self.now_s * 1e9)


def calibrated(settings: MeterSettings, idle_w: float, core_w: float, seed: int = SEED) -> Calibration:
    """What `edgelut-agent calibrate` would find of this meter, in virtual time."""
    clock = _Hand()
    edges, at_s = [], 0.0
    for half in wave(CALIBRATE_S, seed):
        edges.append((at_s, half.busy))
        at_s += half.duration_s
    supply = SquareSupply(edges[1:], idle_w / 5.07, (idle_w + core_w) / 5.03)
    meter = InMemoryMeter(MeterModel(supply, replace(settings, seed=seed)), clock)
    meter.start()
    clock.now_s = at_s
    samples, _ = meter.take()
    return estimate(np.array(samples.t_ns) * 1e-9, samples.power_w, edges[1:], samples.fresh)


def main(full: bool = False) -> None:
    print(f"{'meter':26} {'time':>7} {'forecast':>9} {'fit says':>9} {'ratio':>6} {'error, 95th':>12}")
    for case in CASES if full else CASES[:SHORT]:
        device = EmulatedDevice(TYPE, SEED)
        spec = energy_run(case.minutes, SEED)
        costs = [device.operator_cost(spec.space, item.spec, spec.plan.context) for item in spec.items]
        power_w = float(np.median([cost.power_w for cost in costs]))
        found = calibrated(case.settings, 1.22, power_w)
        promised = half_width(
            Quality(found.noise_w, found.update_period_s, found.lag_s, power_w), 60 * case.minutes, len(spec.items)
        )
        power = estimate_power(spec, measure(spec, device, replace(case.settings, seed=SEED)))
        reached = float(np.nanmedian(Z95 * power.item_se_w / power.item_power_w))
        error = float(np.nanpercentile(np.abs(compare(spec, device, power).operator), 95))
        numbers = f"{case.minutes:4.0f} min {promised:9.2%} {reached:9.2%} {reached / promised:6.2f} {error:12.2%}"
        print(f"{case.name:26} {numbers}", flush=True)
