"""An emulated meter behind a pseudo-terminal, with the faults that real links have."""

from __future__ import annotations

import contextlib
import os
import random
import select
import threading
import tty
from dataclasses import dataclass
from pathlib import Path

from agent.emulator.meters import make_protocol
from agent.emulator.model import MeterModel
from agent.meters.base import Clock, Reading

WATCHED_S = 1.0  # without a reader for this long the model advances coarsely, so that it does not disturb what is timed
COARSE_TICK_S = 0.25
OVERFLOW_BYTES = 1 << 20


@dataclass(frozen=True)
class Faults:
    """Probabilities are for each reply; times count from the first byte on the line."""

    garbage: float = 0.0  # 1 to 20 random bytes come first
    lost_byte: float = 0.0
    flipped_bit: float = 0.0
    half_frame: float = 0.0
    doubled: float = 0.0  # two frames glued together
    silence: float = 0.0
    first_reply_s: float = 0.0  # the first reply comes so late, as over Bluetooth
    unplug_after_s: float = 0.0
    replug_after_s: float = 0.0  # after the unplugging; 0: never
    unplugs: int = 1  # how often this happens; 0: again and again
    seed: int = 0


def spoil(data: bytes, faults: Faults, rng: random.Random) -> bytes:
    """`data` as it arrives over a bad link."""
    if rng.random() < faults.silence:
        return b""
    if rng.random() < faults.lost_byte:
        at = rng.randrange(len(data))
        data = data[:at] + data[at + 1 :]
    if rng.random() < faults.flipped_bit:
        at = rng.randrange(len(data))
        data = data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]
    if rng.random() < faults.half_frame:
        data = data[: len(data) // 2]
    if rng.random() < faults.doubled:
        data += data
    if rng.random() < faults.garbage:
        data = rng.randbytes(rng.randint(1, 20)) + data
    return data


class PtyMeter:
    """Serves a pseudo-terminal with a real meter's byte protocol, from a thread of its own.

    port: the terminal's path, or `link`, a symbolic link that also leads to it after a replug.
    """

    def __init__(
        self,
        model: MeterModel,
        clock: Clock,
        protocol: str = "um25c",
        faults: Faults | None = None,
        link: Path | None = None,
    ) -> None:
        self.model = model
        self.clock = clock
        self._protocol = make_protocol(protocol)
        self._faults = faults or Faults()
        self._random = random.Random(self._faults.seed)
        self._link = link
        self._lock = threading.Lock()
        self._master = self._slave = -1
        self._wake_read, self._wake_write = os.pipe()
        self._closing = False
        self._first_s: float | None = None
        self._heard_s = float("-inf")
        self._held: list[tuple[float, bytes]] = []  # (when it may leave, what)
        self._leaving = bytearray()
        self._tick_s = max(0.002, min(0.01, self.model.settings.update_s / 2))
        self.plug()
        self._thread = threading.Thread(target=self._serve, name=f"emulated-{protocol}", daemon=True)
        self._thread.start()

    def plug(self) -> None:
        """Put a new terminal there (again)."""
        with self._lock:
            if self._master >= 0:
                return
            master, slave = os.openpty()
            tty.setraw(slave)
            os.set_blocking(master, False)
            self._master, self._slave = master, slave  # the slave stays open, so that the master outlives its readers
            self._path = os.ttyname(slave)
            if self._link is not None:
                self._link.unlink(missing_ok=True)
                self._link.symlink_to(self._path)
        os.write(self._wake_write, b"p")

    def unplug(self) -> None:
        """The terminal goes away under its reader."""
        with self._lock:
            for fd in (self._slave, self._master):
                if fd >= 0:
                    os.close(fd)
            self._master = self._slave = -1
            self._leaving.clear()
            if self._link is not None:
                self._link.unlink(missing_ok=True)

    @property
    def port(self) -> str:
        return str(self._link or self._path)

    def close(self) -> None:
        self._closing = True
        os.write(self._wake_write, b"c")
        self._thread.join()
        self.unplug()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _serve(self) -> None:
        while not self._closing:
            now_s = self._now_s()
            watched = now_s - self._heard_s < WATCHED_S
            with self._lock:
                watch = [fd for fd in (self._master, self._wake_read) if fd >= 0]
                full = [self._master] if self._leaving and self._master >= 0 else []
            ready, _, _ = select.select(watch, full, [], self._tick_s if watched else COARSE_TICK_S)
            if self._wake_read in ready:
                os.read(self._wake_read, 64)
            self._plug_by_time()
            with self._lock:
                self._turn()

    def _turn(self) -> None:
        """One look at the line, with the lock held."""
        data = b""
        if self._master >= 0:
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._master, 4096)
        now_s = self._now_s()
        said = self._protocol.stream(self.model.update(now_s))
        if said or data:
            self._heard_s = now_s
            self._first_s = now_s if self._first_s is None else self._first_s
        if said:
            self._queue(said)
        if data:
            self._queue(self._protocol.receive(data, self._reading))
        while self._held and self._held[0][0] <= now_s:
            self._leaving += self._held.pop(0)[1]
        if self._leaving and self._master >= 0:
            with contextlib.suppress(BlockingIOError):
                del self._leaving[: os.write(self._master, self._leaving)]
        if len(self._leaving) > OVERFLOW_BYTES:  # nobody reads: lost, as on a real line
            self._leaving.clear()

    def _queue(self, data: bytes) -> None:
        data = spoil(data, self._faults, self._random) if data else data
        if data:
            now_s = self._now_s()
            held_s = 0.0 if self._first_s is None else self._first_s + self._faults.first_reply_s
            self._held.append((max(now_s, held_s), data))

    def _plug_by_time(self) -> None:
        faults = self._faults
        if not faults.unplug_after_s or self._first_s is None:
            return
        age_s, cycle_s = self._now_s() - self._first_s, faults.unplug_after_s + faults.replug_after_s
        cycle = int(age_s / cycle_s) if faults.replug_after_s else 0
        if age_s - cycle * cycle_s >= faults.unplug_after_s and (cycle < faults.unplugs or not faults.unplugs):
            self.unplug()
        else:
            self.plug()

    def _reading(self) -> Reading:
        return self.model.reading(self._now_s())

    def _now_s(self) -> float:
        return self.clock.now_ns() * 1e-9
