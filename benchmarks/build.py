"""Figure: a version from 10⁶ raw latencies and 10⁵ meter samples: seconds, and how many times bare SQL's for the rows.

The evidence is an emulated Pi's: rounds of fbnet-cifar10, and energy tasks with a meter of ten samples a second.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median

from agent.emulator.clocks import VirtualClock
from agent.emulator.device import EmulatedDevice
from agent.emulator.memory_meter import InMemoryMeter
from agent.emulator.model import MeterModel, MeterSettings
from agent.emulator.runner import EmulatedRunner
from agent.metering import Meters
from agent.meters import Clock, Meter
from agent.task import perform
from benchmarks.emulated import Desk
from benchmarks.runs import keep
from coordinator.build import BuildRequest, build
from coordinator.plan import make_run
from lut_store.store import Store
from nas.space import load_space
from protos.types import Device, LatencyRound, Measurement, RunSpec

LATENCIES, SAMPLES = 1_000_000, 100_000
RATE_HZ = 10
READS = 5
FAR = 1e12


def main() -> None:
    spec = make_run(load_space("fbnet-cifar10"), "rpi3b", preset="standard")
    spec = replace(spec, plan=replace(spec.plan, energy_budget_s=SAMPLES / RATE_HZ))
    with tempfile.TemporaryDirectory(prefix="edgelut-bench-") as folder:
        path = Path(folder) / "edgelut.db"
        with closing(Store(f"sqlite:///{path}")) as store:
            latencies, samples = asyncio.run(_measure(store, spec))
            bare_s = median(_read(path) for _ in range(READS))
            started_s = time.perf_counter()
            evidence = [*store.measurements("run", "latency"), *store.measurements("run", "power")]
            decoded_s = time.perf_counter() - started_s
            del evidence
            started_s = time.perf_counter()
            lut = build(store, BuildRequest(("run",)))
            build_s = time.perf_counter() - started_s
    print(f"{latencies:,} latencies and {samples:,} meter samples → {lut.reference} in {build_s:.1f} s")
    print(f"bare SQL reads the same rows in {bare_s * 1e3:.0f} ms: ratio {build_s / bare_s:.0f}")
    print(f"of it, reading and decoding them to values takes {decoded_s:.1f} s")
    keep("build", {"latencies": latencies, "samples": samples, "s": build_s, "bare_s": bare_s, "decoded_s": decoded_s})


def _read(path: Path) -> float:
    """Seconds to fetch the bodies with SQL and nothing else."""
    with closing(sqlite3.connect(path)) as connection:
        started_s = time.perf_counter()
        rows = connection.execute("SELECT body FROM measurements ORDER BY task_id, sequence").fetchall()
        took_s = time.perf_counter() - started_s
    assert rows
    return took_s


async def _measure(store: Store, spec: RunSpec) -> tuple[int, int]:
    """Store the evidence; how many latencies and how many meter samples it holds."""
    store.add_run("run", spec)
    store.upsert_device(Device("pi-01", "rpi3b", emulation="device"))
    device, clock, desk = EmulatedDevice("rpi3b", 0), VirtualClock(), Desk()
    runner = EmulatedRunner(device, clock)
    model = MeterModel(device.supply, MeterSettings(update_s=1 / RATE_HZ, tau_s=0.4, tau2_s=0.1, noise_a=0.005))

    def opened(_spec: str, clock: Clock) -> Meter:
        return InMemoryMeter(model, clock, RATE_HZ, kind="um25c", streaming=True)

    meters = Meters("um25c:memory", clock, opener=opened)
    counts = {"latency": 0, "power": 0}

    async def task(kind: str, number: int, first: int) -> None:
        lease = store.lease_new_task("run", kind, spec.seed + number, first, "pi-01", FAR)
        outcome = await perform(lease, runner, meters, desk)
        assert not outcome.reason, outcome.reason
        own: list[Measurement] = [stored.measurement for stored in desk.stored]
        desk.stored.clear()
        for measurement in own:
            counts["latency"] += 0 if measurement.latency is None else _times(measurement.latency)
            counts["power"] += 0 if measurement.power is None else len(measurement.power.samples.t_ns)
        assert {outcome.status for outcome in store.add_measurements("pi-01", own)} == {"stored"}
        store.end_task(lease.task_id, lease.fence)

    number = 0
    while counts["latency"] < LATENCIES:
        await task("latency", number, number * spec.plan.rounds_per_task)
        number += 1
    for segment in range(math.ceil(spec.plan.energy_budget_s / spec.plan.segment_s)):
        await task("energy", number + segment, segment)
    return counts["latency"], counts["power"]


def _times(part: LatencyRound) -> int:
    """Timed blocks, paths, networks and operators."""
    found = sum(1 for time_ns in part.paths.block_ns if time_ns) + len(part.paths.total_ns) if part.paths else 0
    for calls in (part.networks, part.operators, part.other_context):
        found += 0 if calls is None else len(calls.total_ns)
    return found
