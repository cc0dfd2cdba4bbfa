"""A supply whose current follows the CPU time that a process really uses."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

TREE_EVERY_NS = 250_000_000  # between two looks for new children: a look costs milliseconds


class CpuTimeSupply:
    """idle_a plus active_a for every core that process `pid` keeps busy, in real time; the voltage sags with the
    current.

    The kernel's CPU clock of the process (all its threads, also ended ones; advanced at every scheduler tick, 1 to 4
    ms) is read at each call of `sample`, so it must be called as often as the detail that is wanted. Without a live
    process the board is idle. With `children`, what the process starts counts too, but not this very process.
    """

    def __init__(
        self,
        pid: int,
        idle_a: float = 0.24,
        active_a: float = 0.5,
        voltage_v: float = 5.1,
        resistance_ohm: float = 0.12,
        *,
        children: bool = False,
    ) -> None:
        self.idle_a = idle_a
        self.active_a = active_a
        self.voltage_v = voltage_v  # without load
        self.resistance_ohm = resistance_ohm
        self._tree = _Tree() if children else None
        self.follow(pid)

    def follow(self, pid: int) -> None:
        """Follow another process from now on."""
        self.pid = pid
        self._used_ns = self._cpu_time_ns()
        self._read_ns = time.monotonic_ns()
        self._busy = 0.0

    def _cpu_time_ns(self) -> int | None:
        used_ns = process_time_ns(self.pid)
        if used_ns is None or self._tree is None:
            return used_ns
        return self._tree.used_ns(self.pid)

    @property
    def alive(self) -> bool:
        return process_time_ns(self.pid) is not None

    def sample(self, start_s: float, stop_s: float, step_s: float) -> tuple[list[float], list[float]]:
        """The mean since the last call, for every step asked for (see `agent.emulator.supply.Supply`)."""
        now_ns, used_ns = time.monotonic_ns(), self._cpu_time_ns()
        if used_ns is None or self._used_ns is None:
            self._busy = 0.0
        elif now_ns > self._read_ns:
            self._busy = (used_ns - self._used_ns) / (now_ns - self._read_ns)
        self._used_ns, self._read_ns = used_ns, now_ns
        current_a = self.idle_a + self.active_a * self._busy
        count = round((stop_s - start_s) / step_s)
        return [self.voltage_v - self.resistance_ohm * current_a] * count, [current_a] * count


def process_time_ns(pid: int) -> int | None:
    """CPU time of a process and all its threads; None when it has ended."""
    try:  # CPUCLOCK_SCHED of a process; clock_getcpuclockid(3) builds the same number
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return None


class _Tree:
    """CPU time of a process and of all that it has started; of those that have ended, what was seen last."""

    def __init__(self) -> None:
        self._used_ns: dict[int, int] = {}
        self._looked_ns = 0

    def used_ns(self, root: int) -> int:
        now_ns = time.monotonic_ns()
        if root not in self._used_ns or now_ns - self._looked_ns > TREE_EVERY_NS:
            self._looked_ns = now_ns
            for pid in _tree_of(root) - {os.getpid()}:
                self._used_ns.setdefault(pid, 0)
        for pid in self._used_ns:
            self._used_ns[pid] = process_time_ns(pid) or self._used_ns[pid]
        return sum(self._used_ns.values())


def _tree_of(root: int) -> set[int]:
    """The process and its descendants that are there now."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            parents[int(path.parent.name)] = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
    found, fresh = {root}, {root}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found
