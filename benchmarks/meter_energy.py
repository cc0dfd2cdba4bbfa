"""Figure 1 of the meters: energy of operators measured with each emulated meter, against the emulated Pi's truth.

A full profile of fbnet-cifar10 (preset standard) in virtual time: latency, energy and build. Every meter samples the
same boards; rate, steps, lag and noise are its own. Lag shrinks with the period, noise does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agent.emulator.model import MeterSettings
from benchmarks.emulated import NOISY_2HZ, profile
from benchmarks.runs import keep
from benchmarks.truth import TYPE, compare, standard_run

SEEDS_FULL, SEEDS_SHORT = 6, 1


@dataclass(frozen=True)
class Case:
    kind: str
    rate_hz: float  # new values a second
    settings: MeterSettings
    goal: float | None = None


def cases() -> tuple[Case, ...]:
    """Steps are those of the meters' documents; the noise of one value is 5 mA and 2 mV wherever nothing better is
    known (an INA226 and a PPK2 are quieter).
    """
    fast = MeterSettings.at_rate
    return (
        Case("um25c", 2.0, NOISY_2HZ, goal=0.02),
        Case("tc66c", 2.0, replace(NOISY_2HZ, voltage_step_v=1e-4, current_step_a=1e-5, power_step_w=1e-4)),
        Case("avhzy", 100.0, fast(100.0, voltage_step_v=1e-6, current_step_a=1e-6, power_step_w=1e-6)),
        Case("smartpower3", 200.0, fast(200.0, current_step_a=1e-3), goal=0.005),
        Case("ppk2", 100.0, fast(100.0, noise_a=1e-3, voltage_step_v=0.0, current_step_a=1e-5, power_step_w=0.0)),
        Case("csv", 100.0, fast(100.0, noise_a=1e-3, voltage_step_v=1.25e-3, current_step_a=2.5e-5)),
    )


def main(full: bool = False) -> None:
    seeds, record = SEEDS_FULL if full else SEEDS_SHORT, {}
    print(f"{'':12} {'rate':>7} {'median':>8} {'95th':>8} {'bias':>8} {'covered':>8} {'device time':>12}   goal")
    for case in cases():
        errors: list[float] = []
        covered: list[float] = []
        minutes = 0.0
        for seed in range(seeds):
            found = profile(standard_run(), TYPE, seed, case.settings, case.kind)
            compared = compare(found)
            errors += compared["operator energy"]
            covered += compared["operator energy covered"]
            spent = found.lut.provenance
            minutes += (spent["latency_device_s"] + spent["energy_device_s"]) / 60 / seeds
        size = np.abs(errors)
        median, high, bias = float(np.median(size)), float(np.percentile(size, 95)), float(np.mean(errors))
        goal = f"≤ {case.goal:.1%} " + ("met" if median <= case.goal else "MISSED") if case.goal else ""
        print(
            f"{case.kind:12} {case.rate_hz:4.0f} Hz {median:8.2%} {high:8.2%} {bias:+8.2%} {np.mean(covered):8.1%} "
            f"{minutes:8.1f} min   {goal}",
            flush=True,
        )
        record[case.kind] = {"median": median, "p95": high, "bias": bias, "minutes": minutes, "seeds": seeds}
    keep("meter-energy", record)
