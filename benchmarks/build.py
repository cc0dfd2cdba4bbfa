"""A LUT version from 10⁶ raw latencies and 10⁵ meter samples: seconds, ÷ reading the same rows with bare SQL.

The evidence is of an emulated Pi 3B: some of its rounds, stored again and again under new ids, and energy segments of a
40 Hz meter. "Bare SQL" is sqlite3 fetching every row of the run, which no build can do without; reading them as
evidence is timed beside, so that one sees where the time goes: the rest are the estimates.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from agent.emulator.clocks import VirtualClock
from agent.emulator.device import EmulatedDevice
from agent.emulator.model import MeterSettings
from agent.emulator.runner import EmulatedRunner
from benchmarks.energy_truth import measure
from benchmarks.runs import keep
from coordinator.build import BuildRequest, build
from coordinator.plan import make_run
from coordinator.sources import read_sources
from lut_store.store import Store
from nas.space import load_space
from protos.types import Device, HostState, LatencyRound, Lease, Measurement, PowerTrace, RunSpec

LATENCIES, SAMPLES = 1_000_000, 100_000
METER_HZ, POLLS = 40.0, 1.25  # new values a second, and polls for each
DISTINCT_ROUNDS = 20
ROWS_AT_ONCE = 200
REPEATS = 2
RUN = "bench"
NAME = "rpi3b-emu"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="edgelut-bench-") as folder:
        path = Path(folder) / "edgelut.db"
        store = Store(f"sqlite:///{path}")
        latencies, samples = fill(store)
        seconds: dict[str, list[float]] = {"bare SQL": [], "evidence": [], "build": []}
        for _ in range(REPEATS):
            seconds["bare SQL"].append(_timed(lambda: bare(path)))
            seconds["evidence"].append(_timed(lambda: read_sources(store, [RUN])))
            seconds["build"].append(_timed(lambda: build(store, BuildRequest((RUN,)))))
        store.close()
    print(f"{latencies} raw latencies, {samples} meter samples, {path.name} in SQLite; median of {REPEATS}")
    for name, values in seconds.items():
        print(f"{name:16} {median(values):8.3f} s ({min(values):.3f} … {max(values):.3f})")
    ratios = [a / b for a, b in zip(seconds["build"], seconds["bare SQL"], strict=True)]
    print(f"ratio build ÷ bare SQL: {median(ratios):.0f} ({min(ratios):.0f} … {max(ratios):.0f})")
    keep("build", {"latencies": latencies, "samples": samples, "seconds": seconds, "ratios": ratios})


def fill(store: Store) -> tuple[int, int]:
    """A run with its evidence; how many latencies and meter samples it holds."""
    energy_s = SAMPLES / (POLLS * METER_HZ)
    spec = make_run(load_space("fbnet-cifar10"), "rpi3b", preset="standard")
    spec = replace(spec, plan=replace(spec.plan, energy_budget_s=energy_s))
    device = EmulatedDevice("rpi3b", 0)
    traces = [trace for segment in measure(spec, device, MeterSettings.at_rate(METER_HZ)) for trace in segment]
    rounds = asyncio.run(_rounds(spec, device))
    store.add_run(RUN, spec)
    store.upsert_device(Device(NAME, "rpi3b", "device"))
    each = sum(map(_count, rounds)) / len(rounds)
    copies = [rounds[n % len(rounds)] for n in range(round(LATENCIES / each))]
    _store(store, "latency", copies)
    _store(store, "energy", traces)
    store.set_run(RUN, "done")
    return sum(map(_count, copies)), sum(len(trace.samples.t_ns) for trace in traces)


async def _rounds(spec: RunSpec, device: EmulatedDevice) -> list[LatencyRound]:
    runner = EmulatedRunner(device, VirtualClock())
    await runner.prepare(spec)
    lease = Lease("t", 1, RUN, "latency", 1, 0, spec)
    return [await runner.latency_round(lease, index) for index in range(DISTINCT_ROUNDS)]


def _count(part: LatencyRound) -> int:
    """Times of blocks, paths, networks and operators."""
    timings = (part.networks, part.operators, part.other_context)
    paths = 0 if part.paths is None else len(part.paths.block_ns) + len(part.paths.total_ns)
    return paths + sum(len(t.total_ns) for t in timings if t is not None)


def _store(store: Store, kind: str, parts: Sequence[LatencyRound] | Sequence[PowerTrace]) -> None:
    lease = store.lease_new_task(RUN, kind, 1, 0, NAME, time.time() + 3600)
    state = HostState(1, temp_c=50.0, governor="performance")
    offers = [
        Measurement(
            id=f"{kind}-{number}",
            task_id=lease.task_id,
            fence=lease.fence,
            sequence=number,
            before=state,
            after=state,
            latency=part if isinstance(part, LatencyRound) else None,
            power=part if isinstance(part, PowerTrace) else None,
        )
        for number, part in enumerate(parts)
    ]
    for start in range(0, len(offers), ROWS_AT_ONCE):
        store.add_measurements(NAME, offers[start : start + ROWS_AT_ONCE])
    store.end_task(lease.task_id, lease.fence)


def bare(path: Path) -> int:
    """Bytes of every row of the run."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT body FROM measurements WHERE run_id = ? ORDER BY task_id, sequence", (RUN,))
    total = sum(len(body) for (body,) in rows)
    connection.close()
    return total


def _timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
