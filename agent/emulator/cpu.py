"""A supply whose current follows the CPU time that a process really uses."""

from __future__ import annotations

import time


class CpuTimeSupply:
    """idle_a plus active_a for every core that process `pid` keeps busy, in real time; the voltage sags with the
    current.

    The kernel's CPU clock of the process (all its threads, also ended ones; advanced at every scheduler tick, 1 to 4
    ms) is read at each call of `sample`, so it must be called as often as the detail that is wanted. Without a live
    process the board is idle.
    """

    def __init__(
        self,
        pid: int,
        idle_a: float = 0.24,
        active_a: float = 0.5,
        voltage_v: float = 5.1,
        resistance_ohm: float = 0.12,
    ) -> None:
        self.idle_a = idle_a
        self.active_a = active_a
        self.voltage_v = voltage_v  # without load
        self.resistance_ohm = resistance_ohm
        self.follow(pid)

    def follow(self, pid: int) -> None:
        """Follow another process from now on."""
        self.pid = pid
        self._clock_id = (~pid << 3) | 2  # CPUCLOCK_SCHED of a process (clock_getcpuclockid(3) builds the same number)
        self._used_ns = self._cpu_time_ns()
        self._read_ns = time.monotonic_ns()
        self._busy = 0.0

    def _cpu_time_ns(self) -> int | None:
        try:
            return time.clock_gettime_ns(self._clock_id)
        except OSError:  # the process has ended
            return None

    @property
    def alive(self) -> bool:
        return self._cpu_time_ns() is not None

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
