"""Power alone against the emulated Pi's truth: `python -m benchmarks.energy_truth [--seeds N] [--without PART]`.

The agent's own energy tasks in virtual time, a 2 Hz meter with 0.5 s of lag and 5 mA of noise, drifting idle power and
bursts; then one fit. `--without` takes a part of the fit away, to see what it is worth. `benchmarks.truth` shows what
becomes of the powers in a LUT, latency included.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from agent.emulator.clocks import VirtualClock
from agent.emulator.device import EmulatedDevice
from agent.emulator.memory_meter import InMemoryMeter
from agent.emulator.model import MeterModel, MeterSettings
from agent.emulator.runner import EmulatedRunner
from agent.metering import Meters
from agent.task import perform
from benchmarks.emulated import NOISY_2HZ, Desk
from coordinator.plan import make_run
from lut_store.estimate.correction import counts
from lut_store.estimate.energy import PowerEstimate, estimate_power, network_ratio
from lut_store.estimate.executions import slot_items
from nas.space import load_space
from protos.types import Lease, PowerTrace, RunSpec

# Parts of the fit, and what is put in the place of each: (module, name, value).
PARTS: dict[str, tuple[tuple[str, str, float | Callable[..., None]], ...]] = {
    "ticks": (("energy_trace", "tick_times", lambda *_: None),),
    "shape": (("energy_fit", "BUMP_SD", 1e-6),),
    "warmth": (("energy_fit", "WARMTH", 0.0), ("energy_fit", "WARMTH_SD", 1e-9)),
    "robust": (("energy_fit", "HUBER", 1e6), ("energy_fit", "BISQUARE", 1e6), ("energy_error", "BISQUARE", 1e6)),
}
SPACE, TYPE = "fbnet-cifar10", "rpi3b"
Z95 = 1.96
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Relative errors, and errors in standard errors: of operators (I,), of sums over networks and of networks (M,).

    A sum is what the operators' powers say of a network, compared with the same sum of true powers.
    """

    operator: Array
    operator_z: Array
    total: Array
    total_z: Array
    network: Array
    network_z: Array
    ratio_z: float
    device_s: float


def energy_run(minutes: float, seed: int, context: str = "cold") -> RunSpec:
    spec = make_run(load_space(SPACE), TYPE, preset="standard", context=context, seed=seed)
    return replace(spec, plan=replace(spec.plan, energy_budget_s=60 * minutes))


def measure(spec: RunSpec, device: EmulatedDevice, settings: MeterSettings = NOISY_2HZ) -> list[list[PowerTrace]]:
    """The energy tasks of the run on this board, as the segments that its agent stores."""
    return asyncio.run(_measure(spec, device, settings))


async def _measure(spec: RunSpec, device: EmulatedDevice, settings: MeterSettings) -> list[list[PowerTrace]]:
    clock, desk, model = VirtualClock(), Desk(), MeterModel(device.supply, settings)
    meters = Meters("um25c:memory", clock, opener=lambda _, clock: InMemoryMeter(model, clock))
    runner = EmulatedRunner(device, clock)
    for segment in range(math.ceil(spec.plan.energy_budget_s / spec.plan.segment_s)):
        lease = Lease(f"task-{segment}", 1, "run", "energy", seed=segment, first_round=segment, run=spec)
        outcome = await perform(lease, runner, meters, desk)
        if outcome.reason:
            raise RuntimeError(f"energy task {segment}: {outcome.reason}")
    segments: dict[str, list[PowerTrace]] = {}
    for stored in desk.stored:
        assert stored.measurement.power is not None
        segments.setdefault(stored.measurement.power.segment_id, []).append(stored.measurement.power)
    return list(segments.values())


def compare(spec: RunSpec, device: EmulatedDevice, estimate: PowerEstimate) -> Comparison:
    """Against the truth, which only this function sees."""
    costs = [device.operator_cost(spec.space, item.spec, spec.plan.context) for item in spec.items]
    latency_s, power_w = np.array([c.latency_s for c in costs]), np.array([c.power_w for c in costs])
    networks = [device.network_cost(spec.space, n.choices, spec.plan.context) for n in spec.networks]
    network_w = np.array([cost.power_w for cost in networks])
    seconds = counts(spec, [n.choices for n in spec.networks], *slot_items(spec)) * latency_s  # (M, I)
    total_j, true_j = seconds @ estimate.item_power_w, seconds @ power_w
    ratio = network_ratio(spec, estimate, latency_s)
    true_ratio = float(np.mean(network_w * seconds.sum(axis=1) / true_j))
    return Comparison(
        operator=estimate.item_power_w / power_w - 1,
        operator_z=(estimate.item_power_w - power_w) / estimate.item_se_w,
        total=total_j / true_j - 1,
        total_z=(total_j - true_j) / estimate.energy_se_j(seconds),
        network=estimate.network_power_w / network_w - 1,
        network_z=(estimate.network_power_w - network_w) / estimate.network_se_w,
        ratio_z=(ratio.factor - true_ratio) / ratio.se,
        device_s=float(estimate.item_active_s.sum() + estimate.network_active_s.sum()),
    )


def one(minutes: float, seed: int, settings: MeterSettings = NOISY_2HZ) -> Comparison:
    spec, device = energy_run(minutes, seed), EmulatedDevice(TYPE, seed)
    segments = measure(spec, device, replace(settings, seed=seed))
    return compare(spec, device, estimate_power(spec, segments))


@contextmanager
def without(parts: list[str]) -> Iterator[None]:
    """The estimator lacks these parts meanwhile."""
    with ExitStack() as stack:
        for module, name, value in (change for part in parts for change in PARTS[part]):
            stack.enter_context(mock.patch(f"lut_store.estimate.{module}.{name}", value))
        yield


def table(found: list[Comparison]) -> str:
    lines = [f"{'':22} {'median':>7} {'95th':>7} {'bias':>7} {'covered by 95 %':>16}"]
    for name, label in (("operator", "operators"), ("total", "sums over networks"), ("network", "networks, measured")):
        error = np.concatenate([getattr(one, name) for one in found])
        z = np.concatenate([getattr(one, f"{name}_z") for one in found])
        size = np.abs(error)
        numbers = f"{np.median(size):7.2%} {np.percentile(size, 95):7.2%} {np.mean(error):+7.2%}"
        lines.append(f"{label:22} {numbers} {np.mean(np.abs(z) < Z95):16.1%}")
    covered = np.mean([abs(one.ratio_z) < Z95 for one in found])
    lines.append(f"{'network ratio':22} {'':23} {covered:16.1%}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.energy_truth", description=__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=25.0, help="device time of the energy tasks")
    parser.add_argument("--without", action="append", default=[], choices=PARTS, help="take this part of the fit away")
    options = parser.parse_args()
    with without(options.without):
        print(table([one(options.minutes, seed) for seed in range(options.seeds)]))


if __name__ == "__main__":
    main()
