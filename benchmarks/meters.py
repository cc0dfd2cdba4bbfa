"""Figure 4 of the meters: decode rates, and the CPU that reading each meter costs.

Readings that each decoder makes of clean data in a second of CPU time (PPK2: samples), and CPU of this process as a
share of one core while it reads an emulated meter (in a process of its own) at its full rate.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agent.emulator.meter import spawn
from agent.emulator.meters import atorch, avhzy, csv, smartpower3, tc66c, um25c
from agent.meters import Reading, decoder, open_meter
from benchmarks.runs import keep

READ_S = 5.0


@dataclass(frozen=True)
class Kind:
    name: str
    encode: Callable[[Reading], bytes]
    full_rate_hz: float
    options: str = ""


KINDS = (
    Kind("um25c", lambda r: um25c.encode(r, 0x09C9), 2.0),
    Kind("um34c", lambda r: um25c.encode(r, 0x0D4C), 2.0),
    Kind("tc66c", tc66c.encode, 2.0),
    Kind("avhzy", avhzy.encode, 1000.0, "?rate_hz=1000"),
    Kind("smartpower3", smartpower3.encode, 200.0),
    Kind("atorch", atorch.encode, 1.0),
    Kind("csv", csv.encode, 1000.0, "?rate_hz=1000"),
)


class WallClock:
    def now_ns(self) -> int:
        return time.monotonic_ns()


def reading(index: int, rng: random.Random) -> Reading:
    volts, amps = rng.uniform(4.8, 5.2), rng.uniform(0.2, 1.0)
    return Reading(volts, amps, volts * amps, 30.0, device_time_s=10.0 + index % 100_000)


def rate(kind: Kind) -> float:
    rng = random.Random(0)
    data = b"".join(kind.encode(reading(k, rng)) for k in range(3000))
    target = decoder(kind.name)
    began = time.process_time()
    count = sum(len(target.feed(data[at : at + 512])) for at in range(0, len(data), 512))
    return count / (time.process_time() - began)


def ppk2_rate() -> float:
    count = 2_000_000
    rng = np.random.default_rng(0)
    words = rng.integers(100, 16000, count) | 3 << 14 | (np.arange(count) & 63) << 18
    data = words.astype("<u4").tobytes()
    target = decoder("ppk2?block=1000")
    began = time.process_time()
    for at in range(0, len(data), 4096):
        target.feed(data[at : at + 4096])
    return count / (time.process_time() - began)


def cpu_share(kind: str, full_rate_hz: float, options: str) -> tuple[float, float]:
    """(share of one core, samples a second) of this process while it reads the meter."""
    process = spawn(kind, os.getpid(), full_rate_hz)
    try:
        meter = open_meter(f"{kind}:{process.port}{options}", WallClock())
        try:
            meter.start()
            time.sleep(1.0)
            meter.take()
            used, began = time.process_time(), time.monotonic()
            time.sleep(READ_S)
            count = len(meter.take()[0].t_ns)
            passed_s = time.monotonic() - began
            return (time.process_time() - used) / passed_s, count / passed_s
        finally:
            meter.close()
    finally:
        process.close()


def main() -> None:
    record: dict[str, dict[str, float]] = {"decoded_hz": {}, "core_share": {}}
    print("decoding clean data in pieces, for each second of CPU time")
    for kind in KINDS:
        record["decoded_hz"][kind.name] = rate(kind)
        print(f"  {kind.name:12} {record['decoded_hz'][kind.name]:12,.0f} readings/s", flush=True)
    record["decoded_hz"]["ppk2"] = ppk2_rate()
    print(f"  {'ppk2':12} {record['decoded_hz']['ppk2']:12,.0f} samples/s (the kit sends 100,000; goal 1,000,000)")
    print("reading an emulated meter at its full rate, share of one core")
    for name, full_rate_hz, options in (*((k.name, k.full_rate_hz, k.options) for k in KINDS), ("ppk2", 1000.0, "")):
        share, got_hz = cpu_share(name, full_rate_hz, options)
        record["core_share"][name] = share
        print(f"  {name:12} {share:7.2%} at {got_hz:6.1f} samples/s", flush=True)
    keep("meters", record)
