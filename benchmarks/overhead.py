"""Figure 5: what the agent costs: its timings against torch.utils.benchmark, memory and CPU of the daemon, memory of
the worker.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import psutil
import torch
from torch.utils.benchmark import Timer

from agent.timing import Bench
from benchmarks.runs import keep, private_coordinator
from coordinator.cli.profile import new_run_id
from coordinator.plan import make_run
from nas.blocks import build_block
from nas.space import load_space
from protos.types import RunSpec

SPACE = "fbnet-cifar10"
PAIRS = 15
REST_S = 20.0
MB = 1e6


def main() -> None:
    record: dict[str, object] = {"ratio": timing_ratio()}
    record |= processes()
    keep("overhead", record)


def timing_ratio() -> float:
    """The agent's hot loops ÷ torch.utils.benchmark for the same operators, pairs in turn; the median over operators
    and pairs.
    """
    torch.set_num_threads(1)
    spec = make_run(load_space(SPACE), "local", preset="quick", method="isolated", meter="none", energy=False)
    items = spec.items[1:-2:12]
    spec = replace(spec, items=items, networks=())
    bench = Bench(spec, 1 << 20, lambda: None)
    ratios = []
    timers = []
    for item in items:
        block = build_block(item.spec)
        shape = (item.spec.batch, item.spec.in_channels, item.spec.input_height, item.spec.input_width)
        assert block is not None
        timers.append(Timer("block(x)", globals={"block": block, "x": torch.randn(shape)}, num_threads=1))
    for number in range(PAIRS):
        rounds = [bench.latency_round(seed=number, round_index=step).operators for step in range(3)]
        for index, timer in enumerate(timers):
            ours = [
                t
                for r in rounds
                if r
                for row, i in enumerate(r.item)
                if i == index
                for t in _row(r.total_ns, row, r.calls)
            ]
            with torch.inference_mode():
                theirs_s = [timer.timeit(8).mean for _ in range(3)]
            ratios.append(median(ours) * 1e-9 / median(theirs_s))
    ratio = median(ratios)
    print(f"agent ÷ torch.utils.benchmark: {ratio:.3f} (median over {len(items)} operators × {PAIRS} pairs)")
    return ratio


def _row(values: tuple[int, ...], row: int, calls: int) -> tuple[int, ...]:
    return values[row * calls : (row + 1) * calls]


def processes() -> dict[str, float]:
    """Memory and CPU of a daemon at rest, and memory of daemon and worker while a standard run measures."""
    with private_coordinator() as link, _daemon(link.address) as daemon:
        _wait(lambda: any(device.state == "idle" for device in link.client.devices()))
        time.sleep(2)
        process = psutil.Process(daemon.pid)
        rss_mb = process.memory_info().rss / MB
        before = process.cpu_times()
        time.sleep(REST_S)
        after = process.cpu_times()
        cpu = (after.user + after.system - before.user - before.system) / REST_S
        print(f"daemon at rest: {rss_mb:.0f} MB resident, {cpu:.2%} of a core, torch {_has_torch(process)}")
        run_id = new_run_id()
        link.client.submit(_short_run(), run_id)
        worker_mb = busy_mb = 0.0
        for run in link.client.watch_run(run_id):
            with contextlib.suppress(psutil.NoSuchProcess):
                busy_mb = max(busy_mb, process.memory_info().rss / MB)
                worker_mb = max([worker_mb, *(c.memory_info().rss / MB for c in process.children())])
            last = run
        print(f"while measuring ({last.state}): daemon {busy_mb:.0f} MB, worker for {SPACE} {worker_mb:.0f} MB")
    return {"daemon_mb": rss_mb, "daemon_cpu": cpu, "daemon_busy_mb": busy_mb, "worker_mb": worker_mb}


def _short_run() -> RunSpec:
    spec = make_run(load_space(SPACE), "local", preset="standard", meter="none", energy=False)
    return replace(spec, plan=replace(spec.plan, latency_budget_s=10.0, rounds_per_task=1))


def _has_torch(process: psutil.Process) -> str:
    return "loaded" if any("libtorch" in m.path for m in process.memory_maps()) else "not loaded"


@contextmanager
def _daemon(address: str) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory(prefix="edgelut-bench-") as folder:
        command = [sys.executable, "-m", "agent", "run", "--coordinator", address, "--device-type", "local"]
        command += ["--name", "bench", "--meter", "none", "--state-dir", folder]
        daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield daemon
        finally:
            daemon.terminate()
            daemon.wait(30)


def _wait(condition: object, within_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline_s:
            raise TimeoutError("the daemon did not connect")
        time.sleep(0.2)
