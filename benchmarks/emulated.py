"""A full profile of an emulated board in virtual time: the agent's own tasks, the coordinator's own arithmetic, no
waiting.

Only the transport is missing: tasks are performed one after the other, and their measurements go straight to the build.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace

import numpy as np

from agent.emulator.clocks import VirtualClock
from agent.emulator.device import EmulatedDevice
from agent.emulator.memory_meter import InMemoryMeter
from agent.emulator.meter import POLLED
from agent.emulator.model import MeterModel, MeterSettings
from agent.emulator.runner import EmulatedRunner
from agent.metering import Meters
from agent.meters import Clock, Meter
from agent.task import perform
from coordinator.build import BuildRequest, lut_of
from coordinator.evidence import Evidence, gather
from coordinator.sources import Source, board_record
from lut_store.estimate.latency import look
from lut_store.lut import Lut
from lut_store.records import StoredMeasurement
from protos.types import Device, HostState, Lease, Measurement, RunSpec

NOISY_2HZ = MeterSettings(update_s=0.5, tau_s=0.4, tau2_s=0.1, noise_a=0.005)  # 2 Hz, 0.5 s of lag, 5 mA of noise


@dataclass
class Desk:
    """What a task needs of the daemon, without one."""

    stored: list[StoredMeasurement] = field(default_factory=list)

    async def store(self, measurement: Measurement) -> None:
        self.stored.append(StoredMeasurement("emulated", measurement, 0.0))

    def show(self, activity: str, host: HostState | None = None, current_a: float | None = None) -> None:
        pass

    def halted(self) -> str:
        return ""


@dataclass(frozen=True)
class Profile:
    """A LUT of an emulated board, what it was built from, and the board, which knows the truth."""

    lut: Lut
    evidence: Evidence
    device: EmulatedDevice
    spec: RunSpec


def profile(
    spec: RunSpec, device_type: str, seed: int, meter: MeterSettings = NOISY_2HZ, meter_kind: str = "um25c"
) -> Profile:
    """Perform latency tasks until the target or the budget is reached, then the energy tasks, then build."""
    device = EmulatedDevice(device_type, seed)
    spec = replace(spec, seed=seed)
    stored = asyncio.run(_measure(spec, device, replace(meter, seed=seed), meter_kind))
    evidence = gather(stored)
    board = board_record(Device("emulated", device_type, emulation="device"))
    source = Source(f"seed-{seed}", spec, tuple(stored), (board,))
    return Profile(lut_of([source], BuildRequest((source.run_id,)), {}), evidence, device, spec)


async def _measure(
    spec: RunSpec, device: EmulatedDevice, settings: MeterSettings, kind: str
) -> list[StoredMeasurement]:
    clock, desk, plan = VirtualClock(), Desk(), spec.plan
    runner = EmulatedRunner(device, clock)
    model = MeterModel(device.supply, settings)

    def opened(_spec: str, clock: Clock) -> Meter:
        return InMemoryMeter(model, clock, kind=kind, streaming=kind not in POLLED)

    meters = Meters(f"{kind}:memory", clock, opener=opened)
    rounds = number = 0
    while True:
        await _task(spec, "latency", number, rounds, runner, meters, desk)
        rounds, number = rounds + plan.rounds_per_task, number + 1
        seen = look(spec, gather(desk.stored).streams)
        if seen.device_s >= plan.latency_budget_s or np.nanmax(seen.rel_halfwidth) <= plan.target_rel_halfwidth:
            break
    for segment in range(math.ceil(plan.energy_budget_s / plan.segment_s)):
        await _task(spec, "energy", number + segment, segment, runner, meters, desk)
    return desk.stored


async def _task(
    spec: RunSpec, kind: str, number: int, first: int, runner: EmulatedRunner, meters: Meters, desk: Desk
) -> None:
    lease = Lease(f"task-{number}", 1, "run", kind, seed=spec.seed + number, first_round=first, run=spec)
    outcome = await perform(lease, runner, meters, desk)
    if outcome.reason:
        raise RuntimeError(f"{kind} task {number}: {outcome.reason}")
