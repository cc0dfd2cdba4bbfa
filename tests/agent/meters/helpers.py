"""What the tests of several meters share."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from agent.meters import Decoder, Reading, decoder


class WallClock:
    def now_ns(self) -> int:
        return time.monotonic_ns()


class ManualClock:
    """A clock that a test moves."""

    def __init__(self, now_s: float = 100.0) -> None:
        self.ns = round(now_s * 1e9)

    def now_ns(self) -> int:
        return self.ns

    def advance(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


class StepSupply:
    """Idle, and from `at_s` on a load; the voltage sags."""

    def __init__(self, at_s: float = 1e18, idle_a: float = 0.24, load_a: float = 0.74) -> None:
        self.at_s, self.idle_a, self.load_a = at_s, idle_a, load_a

    def sample(self, start_s: float, stop_s: float, step_s: float) -> tuple[list[float], list[float]]:
        times = [start_s + i * step_s for i in range(round((stop_s - start_s) / step_s))]
        current = [self.load_a if t >= self.at_s else self.idle_a for t in times]
        return [5.1 - 0.1 * amps for amps in current], current


def feed_in_pieces(target: Decoder, data: bytes, cuts: Iterable[int]) -> list[Reading]:
    """All readings when `data` arrives cut at these places."""
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [r for a, b in pairwise(places) for r in target.feed(data[a:b])]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few random changes: bits, bytes, losses, insertions, doubled parts."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not out:
            break
        at = rng.randrange(len(out))
        match rng.randrange(6):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at] = rng.randrange(256)
            case 2:
                del out[at : at + rng.randint(1, 9)]
            case 3:
                out[at:at] = rng.randbytes(rng.randint(1, 9))
            case 4:
                out[at:at] = out[at : at + rng.randint(1, 40)]
            case _:
                out = out[at:]
    return bytes(out)


def assert_recovers(kind: str, junk: bytes, frames: Sequence[bytes], expected: Sequence[Reading]) -> None:
    """After any junk the frames from the second on are all read (a first one may be swallowed by a half frame)."""
    target = decoder(kind)
    target.feed(junk)
    readings = [r for frame in frames for r in target.feed(frame)]
    assert readings[-(len(expected) - 1) :] == list(expected[1:])


def wait_for(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
