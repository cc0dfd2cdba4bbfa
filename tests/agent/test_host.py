"""Facts and states from trees like those of real boards, and what they say about a round."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host import MIB, HostReader, flags_of, hot_limit_c, sweep_bytes
from protos.types import HostState

STAT = "cpu  {busy} 0 0 1000 0 0 0 0 0 0\n" + "".join(f"cpu{core} 1 0 0 1 0 0 0 0 0 0\n" for core in range(4))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cache(cpu: int, index: int, level: int, kind: str, size: str, shared: str) -> dict[str, str]:
    base = f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
    return {f"{base}/level": level, f"{base}/type": kind, f"{base}/size": size, f"{base}/shared_cpu_list": shared}  # type: ignore[dict-item]


def caches(*rows: tuple[int, int, int, str, str, str]) -> dict[str, str]:
    return {name: f"{text}\n" for row in rows for name, text in cache(*row).items()}


COMMON = {
    "proc/stat": STAT.format(busy=100),
    "proc/loadavg": "0.42 0.30 0.20 1/123 4567\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "cpufreq-dt\n",
}
# Raspberry Pi OS bookworm, 64 bits. The device tree's model ends with a zero byte.
PI_3B = COMMON | {
    "proc/device-tree/model": "Raspberry Pi 3 Model B Rev 1.2\0",
    "proc/sys/kernel/osrelease": "6.6.31+rpt-rpi-v8\n",
    "proc/meminfo": "MemTotal:         931148 kB\nMemFree:          500000 kB\nMemAvailable:     640016 kB\n",
    "sys/class/thermal/thermal_zone0/temp": "47236\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1200000\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
}
PI_4 = COMMON | caches(
    *((cpu, 0, 1, "Data", "32K", str(cpu)) for cpu in range(4)),
    *((cpu, 1, 1, "Instruction", "48K", str(cpu)) for cpu in range(4)),
    *((cpu, 2, 2, "Unified", "1024K", "0-3") for cpu in range(4)),
)
PI_5 = COMMON | caches(
    *((cpu, 2, 2, "Unified", "512K", str(cpu)) for cpu in range(4)),
    *((cpu, 3, 3, "Unified", "2048K", "0-3") for cpu in range(4)),
)


def test_a_pi_3b_says_what_it_is(tmp_path: Path) -> None:
    reader = HostReader(tree(tmp_path, PI_3B))
    facts, state = reader.facts(), reader.state()
    assert facts.model == "Raspberry Pi 3 Model B Rev 1.2"
    assert facts.kernel == "6.6.31+rpt-rpi-v8"
    assert facts.cpu_count == 4
    assert facts.memory_bytes == 931148 * 1024
    assert facts.l2_bytes is None  # its kernel does not say
    assert facts.llc_bytes is None
    assert state.temp_c == 47.236
    assert state.frequency_hz == 1.2e9
    assert state.governor == "ondemand"
    assert state.throttled_bits == 0x50005
    assert state.load_1m == 0.42
    assert state.memory_available_bytes == 640016 * 1024
    assert state.other_cpu_share is None  # nothing to compare with yet


@pytest.mark.parametrize(("files", "l2", "llc", "sweep"), [(PI_4, 1, 1, 8), (PI_5, 2, 2, 16)])
def test_each_cache_counts_once(tmp_path: Path, files: dict[str, str], l2: int, llc: int, sweep: int) -> None:
    facts = HostReader(tree(tmp_path, files)).facts()
    assert (facts.l2_bytes, facts.llc_bytes) == (l2 * MIB, llc * MIB)
    assert sweep_bytes(facts.l2_bytes, facts.llc_bytes) == sweep * MIB


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    state = HostReader(tmp_path).state()
    assert [state.temp_c, state.frequency_hz, state.governor, state.throttled_bits, state.load_1m] == [None] * 5
    assert [state.memory_available_bytes, state.other_cpu_share] == [None] * 2


def test_a_boost_clock_is_no_fact(tmp_path: Path) -> None:
    files = PI_3B | {"sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "intel_pstate\n"}
    assert HostReader(tree(tmp_path, files)).state().frequency_hz is None


def test_temperatures_of_other_parts_are_not_the_cpus(tmp_path: Path) -> None:
    files = PI_3B | {"sys/class/thermal/thermal_zone0/type": "acpitz\n"}
    assert HostReader(tree(tmp_path, files)).state().temp_c is None


def test_own_processes_are_no_disturbance(tmp_path: Path) -> None:
    """Both the daemon and a worker used 1 s of CPU; 3 s of all cores were busy: 1 s was someone else's."""
    ticks = os.sysconf("SC_CLK_TCK")
    line = "{pid} (a) name) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 0 0 0\n"
    files = {"proc/stat": STAT.format(busy=0)} | {f"proc/{pid}/stat": line.format(pid=pid, ticks=0) for pid in (10, 11)}
    reader = HostReader(tree(tmp_path, files), own_pids=lambda: (10, 11))
    outer_s = time.monotonic()
    assert reader.state().other_cpu_share is None
    inner_s = time.monotonic()
    files = {"proc/stat": STAT.format(busy=3 * ticks)}
    tree(tmp_path, files | {f"proc/{pid}/stat": line.format(pid=pid, ticks=ticks) for pid in (10, 11)})
    inner_s = time.monotonic() - inner_s
    share = reader.state().other_cpu_share
    outer_s = time.monotonic() - outer_s
    assert share is not None
    assert inner_s <= 1 / share <= outer_s


def test_this_machine_can_be_read() -> None:
    reader = HostReader()
    facts = reader.facts()
    assert facts.cpu_count >= 1
    assert facts.memory_bytes > 1 << 28
    assert facts.edgelut_version
    first, second = reader.state(), reader.state()
    assert second.monotonic_ns > first.monotonic_ns


CALM = HostState(1, temp_c=50.0, frequency_hz=1.2e9, throttled_bits=0, other_cpu_share=0.05)


@pytest.mark.parametrize(
    ("before", "after", "flags"),
    [
        ({}, {}, ()),
        ({"throttled_bits": None}, {"throttled_bits": None, "temp_c": None, "other_cpu_share": None}, ()),
        ({}, {"throttled_bits": 0x4}, ("throttled",)),
        ({}, {"throttled_bits": 0x50000}, ("throttled",)),  # it was, in between
        ({"throttled_bits": 0x50000}, {"throttled_bits": 0x50000}, ()),  # it was, long ago
        ({}, {"temp_c": 80.0}, ("hot",)),
        ({}, {"frequency_hz": 1.19e9}, ()),
        ({}, {"frequency_hz": 0.6e9}, ("frequency",)),
        ({"frequency_hz": None}, {}, ()),
        ({}, {"other_cpu_share": 0.7}, ("disturbed",)),
        ({"other_cpu_share": 0.7}, {}, ()),  # before the round
        ({}, {"temp_c": 85.0, "throttled_bits": 0xE, "frequency_hz": 0.6e9}, ("throttled", "hot", "frequency")),
    ],
)
def test_flags(before: dict[str, float], after: dict[str, float], flags: tuple[str, ...]) -> None:
    first, last = (HostState(**(vars(CALM) | changes)) for changes in (before, after))
    assert flags_of(first, last) == flags


def test_a_server_may_be_warmer_than_a_board() -> None:
    warm = HostState(1, temp_c=85.0)
    assert flags_of(CALM, warm, hot_limit_c("x86_64")) == ()
    assert flags_of(CALM, warm, hot_limit_c("aarch64")) == ("hot",)


def test_sweeps() -> None:
    assert sweep_bytes(512 << 10, None) == 4 * MIB  # Pi 3B
    assert sweep_bytes(2 * MIB, 36608 << 10) == 64 * MIB  # the server of the method notes
    assert sweep_bytes(64 * MIB, 512 * MIB) == 256 * MIB
    assert sweep_bytes(None, None) == 64 * MIB


@given(st.one_of(st.none(), st.integers(1, 1 << 32)), st.one_of(st.none(), st.integers(1, 1 << 32)))
def test_a_sweep_is_a_power_of_two_within_its_limits(l2: int | None, llc: int | None) -> None:
    size = sweep_bytes(l2, llc)
    assert 4 * MIB <= size <= 256 * MIB
    assert size & (size - 1) == 0
    assert size == 256 * MIB or size >= max(8 * (l2 or 0), 1.5 * (llc or 0))


def test_the_clock_of_states_can_be_another() -> None:
    assert HostReader(now_ns=lambda: 42).state().monotonic_ns == 42
