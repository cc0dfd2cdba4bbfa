"""What the board is and how it does: model, caches, governor, frequency, temperature, throttling, load, other
processes.

Everything comes from `/proc` and `/sys` below an injectable root; what cannot be read is None, never zero.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from protos.types import HostFacts, HostState

MIB = 1 << 20

THROTTLED_NOW_BITS = 0xF  # under-voltage, frequency capped, throttled, soft temperature limit: at this moment
THROTTLED_SINCE_BITS = 0xF0000  # the same, at some time since the firmware last forgot
FREQUENCY_TOLERANCE = 0.02  # relative
OTHER_CPU_LIMIT_CORES = 0.5  # below it another process can still live on a core that is not measured
HOT_ARM_C = 80.0  # the firmware of a Pi begins to slow down here
HOT_X86_C = 95.0

SWEEP_L2_FACTOR = 8
SWEEP_LLC_FACTOR = 1.5
SWEEP_MIN_BYTES = 4 * MIB
SWEEP_MAX_BYTES = 256 * MIB
SWEEP_UNKNOWN_BYTES = 64 * MIB  # what a server with 36 MiB of L3 needs; enough for any board

# A boost clock moves by itself all the time and its reading is a mean over an unknown time: not a fact about a round.
BOOSTING_DRIVERS = ("intel_pstate", "intel_cpufreq", "amd-pstate", "amd-pstate-epp", "amd_pstate", "acpi-cpufreq")
CPU_THERMAL_ZONES = ("cpu", "soc", "bcm2835", "x86_pkg_temp")  # how the types of zones that mean the CPU begin

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def hot_limit_c(machine: str) -> float:
    """The temperature from which a round counts as hot, by `HostFacts.machine`."""
    return HOT_X86_C if machine in ("x86_64", "AMD64", "i686") else HOT_ARM_C


def flags_of(before: HostState, after: HostState, hot_c: float = HOT_ARM_C) -> tuple[str, ...]:
    """Why evidence taken between two states must not be averaged in silently; empty when nothing speaks against it.

    "throttled": a throttle bit is set now, or one that remembers was set in between. "hot": hot_c was reached.
    "frequency": it changed by more than FREQUENCY_TOLERANCE. "disturbed": other processes used more than
    OTHER_CPU_LIMIT_CORES. What could not be read flags nothing.
    """
    flags = []
    bits_before, bits_after = before.throttled_bits or 0, after.throttled_bits or 0
    if (bits_before | bits_after) & THROTTLED_NOW_BITS or bits_after & ~bits_before & THROTTLED_SINCE_BITS:
        flags.append("throttled")
    if any(state.temp_c is not None and state.temp_c >= hot_c for state in (before, after)):
        flags.append("hot")
    if before.frequency_hz and after.frequency_hz:
        change = abs(after.frequency_hz - before.frequency_hz) / before.frequency_hz
        if change > FREQUENCY_TOLERANCE:
            flags.append("frequency")
    if after.other_cpu_share is not None and after.other_cpu_share > OTHER_CPU_LIMIT_CORES:
        flags.append("disturbed")
    return tuple(flags)


def sweep_bytes(l2_bytes: int | None, llc_bytes: int | None) -> int:
    """How large a buffer empties the caches: the power of two from 8 × L2 and 1.5 × the last level, 4 to 256 MiB.

    Well beyond the caches, because a sweep of only their size left sums 4 % low (method notes, section D).
    """
    if l2_bytes is None and llc_bytes is None:
        return SWEEP_UNKNOWN_BYTES
    wanted = max(SWEEP_L2_FACTOR * (l2_bytes or 0), SWEEP_LLC_FACTOR * (llc_bytes or 0), SWEEP_MIN_BYTES)
    return int(min(1 << (int(wanted) - 1).bit_length(), SWEEP_MAX_BYTES))


class HostReader:
    """Reads facts and states of the board below `root`.

    `own_pids` names the processes (daemon, worker, emulated meter) whose CPU time is not a disturbance; `core` is the
    one whose frequency counts; `now_ns` is the clock that states are stamped with.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        own_pids: Callable[[], Iterable[int]] = lambda: (os.getpid(),),
        core: int = 0,
        now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._root = root
        self._own_pids = own_pids
        self._core = core
        self._now_ns = now_ns
        self._last_cpu: tuple[float, float] | None = None  # monotonic seconds, seconds that others have used

    def facts(self) -> HostFacts:
        """What does not change while the board runs; torch_version is for the worker to say."""
        caches = self._caches()
        levels = sorted({level for level, _, _ in caches})
        memory = self._memory("MemTotal")
        return HostFacts(
            model=self._model(),
            machine=platform.machine(),
            kernel=self._text("proc/sys/kernel/osrelease") or platform.release(),
            cpu_count=self._cpu_count(),
            memory_bytes=memory or 0,
            l2_bytes=sum(size for level, _, size in caches if level == 2) or None,
            llc_bytes=sum(size for level, _, size in caches if levels and level == levels[-1]) or None,
            python_version=platform.python_version(),
            edgelut_version=metadata.version("edgelut"),
        )

    def state(self) -> HostState:
        """The board now. other_cpu_share covers the time since the last call; None on the first."""
        return HostState(
            monotonic_ns=self._now_ns(),
            wall_time_s=time.time(),
            temp_c=self._temperature(),
            frequency_hz=self._frequency(),
            governor=self._text(self._cpufreq("scaling_governor")),
            throttled_bits=self._throttled(),
            load_1m=self._load(),
            memory_available_bytes=self.memory_available_bytes(),
            other_cpu_share=self._other_cpu(),
        )

    def memory_available_bytes(self) -> int | None:
        """What processes can still get without swapping."""
        return self._memory("MemAvailable")

    def _text(self, path: str) -> str | None:
        try:
            text = (self._root / path).read_text(errors="replace")
        except OSError:
            return None
        return text.rstrip("\0\n ") or None

    def _number(self, path: str) -> int | None:
        text = self._text(path)
        return int(text) if text is not None and text.lstrip("-").isdigit() else None

    def _cpufreq(self, name: str) -> str:
        return f"sys/devices/system/cpu/cpu{self._core}/cpufreq/{name}"

    def _model(self) -> str:
        board = self._text("proc/device-tree/model") or self._text("sys/firmware/devicetree/base/model")
        if board:
            return board
        for line in (self._text("proc/cpuinfo") or "").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
        return ""

    def _cpu_count(self) -> int:
        lines = (self._text("proc/stat") or "").splitlines()
        return sum(line.startswith("cpu") and line[3:4].isdigit() for line in lines) or os.cpu_count() or 1

    def _caches(self) -> set[tuple[int, str, int]]:
        """(level, CPUs that share it, bytes) of every data cache, each once."""
        found = set()
        for index in self._root.glob("sys/devices/system/cpu/cpu[0-9]*/cache/index[0-9]*"):
            where = str(index.relative_to(self._root))
            level, size = self._number(f"{where}/level"), self._text(f"{where}/size")
            if level is None or size is None or self._text(f"{where}/type") == "Instruction":
                continue
            unit = {"K": 1 << 10, "M": 1 << 20}.get(size[-1].upper(), 1)
            digits = size.rstrip("kKmM")
            if digits.isdigit():
                found.add((level, self._text(f"{where}/shared_cpu_list") or where, int(digits) * unit))
        return found

    def _memory(self, key: str) -> int | None:
        for line in (self._text("proc/meminfo") or "").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) << 10
        return None

    def _temperature(self) -> float | None:
        for zone in sorted(self._root.glob("sys/class/thermal/thermal_zone*")):
            where = str(zone.relative_to(self._root))
            kind = self._text(f"{where}/type") or ""
            value = self._number(f"{where}/temp")
            if value is not None and kind.startswith(CPU_THERMAL_ZONES):
                return value / 1000
        return None

    def _frequency(self) -> float | None:
        if self._text(self._cpufreq("scaling_driver")) in BOOSTING_DRIVERS:
            return None
        value = self._number(self._cpufreq("scaling_cur_freq"))
        return None if value is None else value * 1e3

    def _throttled(self) -> int | None:
        """The firmware's get_throttled bits: from sysfs, else from vcgencmd on the real board."""
        for path in self._root.glob("sys/devices/platform/soc*/soc*:firmware/get_throttled"):
            text = self._text(str(path.relative_to(self._root)))
            if text:
                return int(text, 16)
        if self._root == Path("/") and Path("/dev/vcio").exists() and (tool := shutil.which("vcgencmd")):
            answer = subprocess.run([tool, "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
            _, found, value = answer.stdout.strip().partition("throttled=")
            return int(value, 16) if found else None
        return None

    def _load(self) -> float | None:
        text = self._text("proc/loadavg")
        return float(text.split()[0]) if text else None

    def _other_cpu(self) -> float | None:
        busy = self._busy_s()
        if busy is None:
            return None
        now, others = time.monotonic(), busy - sum(self._process_s(pid) for pid in self._own_pids())
        last, self._last_cpu = self._last_cpu, (now, others)
        if last is None or now <= last[0]:
            return None
        return max(0.0, (others - last[1]) / (now - last[0]))

    def _busy_s(self) -> float | None:
        """CPU seconds in which cores were not idle, those stolen by a hypervisor included."""
        fields = (self._text("proc/stat") or "").partition("\n")[0].split()
        if len(fields) < 9 or fields[0] != "cpu":
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
        return (user + nice + system + irq + softirq + steal) / CLOCK_TICKS_PER_S

    def _process_s(self, pid: int) -> float:
        """CPU seconds of a process and of its ended children; 0 when it is gone (its parent then has them)."""
        text = self._text(f"proc/{pid}/stat")
        if text is None:
            return 0.0
        fields = text.rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / CLOCK_TICKS_PER_S  # utime, stime, cutime, cstime
