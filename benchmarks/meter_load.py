"""Figure 5 of the meters: latency of an operator with and without the meter read at its full rate, in pairs.

(The agent never does this: it is silent while it times. The figure says what the silence is worth, and what reading
costs the energy windows.) A process on one core reads an emulated meter, as the daemon does; this one, on another core,
times an operator. Reading is switched on and off in turn, a fifth of a second each; each pair gives one ratio. The
emulated meter itself, which a real board would not have, rests on the reader's core.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from agent.emulator.meter import spawn
from agent.meters import open_meter
from benchmarks.runs import keep
from nas.blocks import build_block
from nas.space import load_space
from protos.types import BlockSpec

PAIRS_FULL, PAIRS_SHORT = 400, 60
BLOCK_S = 0.2
SETTLE_S = 0.05
METERS = (("um25c", 2.0, ""), ("tc66c", 2.0, ""), ("smartpower3", 200.0, ""), ("avhzy", 1000.0, "?rate_hz=1000"))
GOAL = 0.005


class WallClock:
    def now_ns(self) -> int:
        return time.perf_counter_ns()


def main(full: bool = False) -> None:
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    run, x = _operator()
    record = {}
    for kind, rate_hz, options in METERS:
        with _reader(kind, rate_hz, options, cores[0]) as reader:
            os.sched_setaffinity(0, {cores[-1]})
            try:
                ratios = _pairs(reader, run, x, PAIRS_FULL if full else PAIRS_SHORT)
            finally:
                os.sched_setaffinity(0, cores)
        centre, low, high = _median(ratios)
        verdict = "met" if high <= GOAL else "MISSED" if low > GOAL else "not to be told: other work on this machine"
        goal = f"   goal ≤ {GOAL:.1%}: {verdict}" if rate_hz == 2.0 else ""
        print(
            f"{kind:12} at {rate_hz:4.0f} Hz: {centre:+7.3%} ({low:+.2%} … {high:+.2%}), {len(ratios)} pairs{goal}",
            flush=True,
        )
        record[kind] = {"rate_hz": rate_hz, "median": centre, "low": low, "high": high, "ratios": ratios}
    keep("meter-load", record)


def _median(ratios: list[float]) -> tuple[float, float, float]:
    """What is above 1 in the median, with its 95 % interval by order statistics, which outliers do not widen."""
    ordered, n = sorted(ratios), len(ratios)
    reach = 0.98 * n**0.5
    low, high = max(0, int(n / 2 - reach)), min(n - 1, int(n / 2 + reach))
    return float(np.median(ordered)) - 1, ordered[low] - 1, ordered[high] - 1


def _operator() -> tuple[torch.nn.Module, torch.Tensor]:
    space = load_space("fbnet-cifar10")
    spec: BlockSpec = next(c.spec for c in space.layers[8].cells if c.spec is not None and c.spec.kind == "mbconv")
    block = build_block(spec)
    assert block is not None
    return block.eval(), torch.randn(spec.batch, spec.in_channels, spec.input_height, spec.input_width)


def _pairs(reader: subprocess.Popen[str], block: torch.nn.Module, x: torch.Tensor, count: int) -> list[float]:
    """Median latency with reading ÷ without, the order of the two drawn anew for every pair."""
    order = np.random.default_rng(0)
    ratios = []
    for _ in range(count):
        seconds = {}
        for reading in order.permutation([True, False]):
            _tell(reader, "read" if reading else "rest")
            time.sleep(SETTLE_S)
            seconds[bool(reading)] = _latency_s(block, x)
        ratios.append(seconds[True] / seconds[False])
    return ratios


def _latency_s(block: torch.nn.Module, x: torch.Tensor) -> float:
    times = []
    end = time.perf_counter() + BLOCK_S
    with torch.inference_mode():
        while time.perf_counter() < end:
            began = time.perf_counter_ns()
            block(x)
            times.append(time.perf_counter_ns() - began)
    return float(np.median(times)) * 1e-9


@contextmanager
def _reader(kind: str, rate_hz: float, options: str, core: int) -> Iterator[subprocess.Popen[str]]:
    """A process that reads the meter between "read" and "rest"."""
    meter = spawn(kind, 0, rate_hz)
    os.sched_setaffinity(meter.pid, {core})
    spec = f"{meter.spec}{options}" if "?" not in meter.spec else meter.spec
    command = [sys.executable, "-m", "benchmarks.meter_load", spec, str(core)]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        _expect(reader, "ready")
        yield reader
    finally:
        reader.terminate()
        reader.wait()
        meter.close()


def _tell(reader: subprocess.Popen[str], word: str) -> None:
    assert reader.stdin is not None
    reader.stdin.write(f"{word}\n")
    reader.stdin.flush()
    _expect(reader, word)


def _expect(reader: subprocess.Popen[str], word: str) -> None:
    assert reader.stdout is not None
    said = reader.stdout.readline().strip()
    if said != word:
        raise RuntimeError(f"the process that reads the meter said {said!r} instead of {word!r}")


def read(spec: str, core: int) -> None:
    """The reader's process."""
    os.sched_setaffinity(0, {core})
    meter = open_meter(spec, WallClock())
    print("ready", flush=True)
    try:
        for line in sys.stdin:
            (meter.start if line.strip() == "read" else meter.stop)()
            meter.take()
            print(line.strip(), flush=True)
    finally:
        meter.close()


if __name__ == "__main__":
    read(sys.argv[1], int(sys.argv[2]))
