"""What the doctor reads of the board beyond `agent.host`: swap, clock source, disk, torch, who else is busy."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

TORCH_S = 300.0
TORCH_TRIAL = """
import torch
with torch.inference_mode():
    torch.nn.Conv2d(3, 8, 3)(torch.zeros(1, 3, 16, 16))
print(torch.__version__)
"""
CLOCK_READS = 2000
CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def _number_of(text: str, key: str) -> int | None:
    """The number after `key` in lines of words."""
    words = next((line.split() for line in text.splitlines() if line.partition(" ")[0].rstrip(":") == key), [])
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def swap_used_bytes(root: Path = Path("/")) -> int | None:
    text = _text(root / "proc/meminfo")
    total, free = _number_of(text, "SwapTotal"), _number_of(text, "SwapFree")
    return None if total is None or free is None else (total - free) << 10


def swap_pages(root: Path = Path("/")) -> int | None:
    """Pages moved between memory and swap since the start, zram included."""
    text = _text(root / "proc/vmstat")
    moved_in, moved_out = _number_of(text, "pswpin"), _number_of(text, "pswpout")
    return None if moved_in is None or moved_out is None else moved_in + moved_out


def clock_source(root: Path = Path("/")) -> str | None:
    text = _text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource").strip()
    return text or None


def clock_read_ns() -> float:
    """What it takes to read the clock that times operators; the median of many."""
    times = [time.perf_counter_ns() for _ in range(CLOCK_READS)]
    return statistics.median(b - a for a, b in pairwise(times))


def free_bytes(path: Path) -> int:
    """On the file system of a folder that need not exist yet."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def torch_version() -> tuple[str, str]:
    """(version, "") when torch works in a process of its own, else ("", what is wrong)."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", TORCH_TRIAL], capture_output=True, text=True, timeout=TORCH_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"not loaded within {TORCH_S:.0f} s"
    if done.returncode == 0:
        return done.stdout.strip(), ""
    if done.returncode == -signal.SIGILL:
        return "", "this build of torch uses instructions that the processor does not have (SIGILL)"
    return "", (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]


def cpu_times_s(root: Path = Path("/")) -> dict[int, tuple[str, float]]:
    """Name and CPU seconds of every process, by its id."""
    found = {}
    for path in root.glob("proc/[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            head, _, tail = path.read_text(errors="replace").rpartition(")")
            fields = tail.split()
            seconds = (int(fields[11]) + int(fields[12])) / CLOCK_TICKS_PER_S
            found[int(path.parent.name)] = (head.partition("(")[2], seconds)
    return found


def busiest(
    before: dict[int, tuple[str, float]], after: dict[int, tuple[str, float]], own: Iterable[int], count: int = 3
) -> list[str]:
    """The processes that used the most CPU in between, without our own, as "name (pid)"."""
    leave_out = set(own)
    used = {pid: after[pid][1] - before.get(pid, ("", 0.0))[1] for pid in after if pid not in leave_out}
    top = sorted(used, key=lambda pid: -used[pid])[:count]
    return [f"{after[pid][0]} ({pid})" for pid in top if used[pid] > 0]
