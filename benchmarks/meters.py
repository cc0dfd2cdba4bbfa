"""`python -m benchmarks.meters`: drivers under damaged frames, decode rates, and what it costs to read each meter.

1. For each decoder `--mutations` damaged frames between two good ones: wrong readings that came through, the longest
time for one, and whether the good frame after the damage was read. 2. Readings a second that each decoder makes of
clean data (PPK2: samples). 3. CPU of this process as a share of one core while it reads an emulated meter (in a
process of its own) at its full rate.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agent.emulator.meter import spawn
from agent.emulator.meters import atorch, avhzy, csv, smartpower3, tc66c, um25c
from agent.meters import Reading, decoder, open_meter

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


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, bytes, losses, insertions, doubled parts, a lost beginning."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, len(out)))
        size = rng.randint(1, 9)
        change = rng.randrange(6)
        if change == 0 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif change == 1 and out:
            out[at] = rng.randrange(256)
        elif change == 2:
            del out[at : at + size]
        elif change == 3:
            out[at:at] = rng.randbytes(size)
        elif change == 4:
            out[at:at] = out[at : at + 4 * size]
        else:
            del out[:at]
    return bytes(out)


def reading(index: int, rng: random.Random) -> Reading:
    volts, amps = rng.uniform(4.8, 5.2), rng.uniform(0.2, 1.0)
    return Reading(volts, amps, volts * amps, 30.0, device_time_s=10.0 + index % 100_000)


def value(found: Reading) -> tuple[float, float, float]:
    return found.voltage_v, found.current_a, found.power_w


def damage(kind: Kind, mutations: int) -> str:
    rng = random.Random(0)
    wrong = unread = 0
    slowest_s = 0.0
    for index in range(mutations):
        sent = [kind.encode(reading(3 * index + k, rng)) for k in range(3)]
        good = [value(r) for frame in sent for r in decoder(kind.name).feed(frame)]
        target = decoder(kind.name)
        began = time.perf_counter()
        found = [value(r) for r in target.feed(sent[0] + mutated(sent[1], rng) + sent[2])]
        slowest_s = max(slowest_s, time.perf_counter() - began)
        wrong += sum(item not in good for item in found)
        # Bytes of a half frame may wait for the next one.
        unread += good[2] not in found and good[2] not in [value(r) for r in target.feed(sent[2])]
    return f"{wrong:7d} wrong values {unread:5d} not recovered   slowest {slowest_s * 1e3:6.1f} ms"


def rate(kind: Kind) -> float:
    rng = random.Random(0)
    data = b"".join(kind.encode(reading(k, rng)) for k in range(3000))
    target = decoder(kind.name)
    began = time.perf_counter()
    count = sum(len(target.feed(data[at : at + 512])) for at in range(0, len(data), 512))
    return count / (time.perf_counter() - began)


def ppk2_rate() -> float:
    count = 2_000_000
    rng = np.random.default_rng(0)
    words = rng.integers(100, 16000, count) | 3 << 14 | (np.arange(count) & 63) << 18
    data = words.astype("<u4").tobytes()
    target = decoder("ppk2?block=1000")
    began = time.perf_counter()
    for at in range(0, len(data), 4096):
        target.feed(data[at : at + 4096])
    return count / (time.perf_counter() - began)


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=20_000, help="damaged frames for each driver")
    mutations = parser.parse_args().mutations
    print(f"{mutations} damaged frames for each driver (csv: no redundancy, avhzy: an XOR, um…: V · I = W)")
    for kind in KINDS:
        print(f"  {kind.name:12} {damage(kind, mutations)}", flush=True)
    print("decoding, clean data in pieces")
    for kind in KINDS:
        print(f"  {kind.name:12} {rate(kind):12,.0f} readings/s", flush=True)
    print(f"  {'ppk2':12} {ppk2_rate():12,.0f} samples/s (the kit sends 100,000)")
    print("reading an emulated meter at its full rate, share of one core")
    for name, full_rate_hz, options in (*((k.name, k.full_rate_hz, k.options) for k in KINDS), ("ppk2", 1000.0, "")):
        share, got_hz = cpu_share(name, full_rate_hz, options)
        print(f"  {name:12} {share:7.2%} at {got_hz:6.1f} samples/s", flush=True)


if __name__ == "__main__":
    main()
