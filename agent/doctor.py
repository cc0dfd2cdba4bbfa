"""What the doctor thinks of what it saw: pure functions from readings to checks, each with what to do.

`ok`: nothing to do; `warn`: it can be measured, but less exactly, or something could not be seen; `fail`: what is
measured like this is wrong, or nothing can be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.host import (
    FREQUENCY_TOLERANCE,
    OTHER_CPU_LIMIT_CORES,
    THROTTLED_NOW_BITS,
    THROTTLED_SINCE_BITS,
    hot_limit_c,
)
from protos.types import Calibration, HostFacts, MeterInfo

State = Literal["ok", "warn", "fail"]

WARM_MARGIN_C = 10.0  # below hot
LITTLE_OTHER_CORES = 0.1
LITTLE_DISK_BYTES, LEAST_DISK_BYTES = 1 << 30, 200 << 20  # the spool may take some hundred MB
MUCH_SWAP_SHARE = 0.1  # of the memory
SLOW_CLOCK_NS = 2000
GOOD_CLOCKS = ("arch_sys_counter", "tsc", "kvm-clock", "hyperv_clocksource_tsc_page")
BAD_CLOCKS = ("hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit")
THROTTLE_WORDS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
STALE_DAYS = 365  # of a calibration, as the lint of a table has it
LOW_V, UNDER_V = 4.8, 4.63  # a Pi's supply; below the second the firmware says under-voltage
FIVE_VOLTS = (3.5, 6.5)  # a meter that shows another voltage stands before something else
SLOW_SHARE = 0.7  # of the promised rate
NOT_SEEN = "cannot be seen here"


@dataclass(frozen=True)
class Check:
    name: str
    state: State
    value: str
    advice: str = ""


# ---- the board ------------------------------------------------------------------------------------------------------


def board(facts: HostFacts) -> Check:
    memory = f"{facts.memory_bytes / 1e9:.1f} GB"
    return Check("board", "ok", f"{facts.model or 'unknown model'}, {facts.cpu_count} cores, {memory}")


def bits(machine: str, pointer_bits: int) -> Check:
    if pointer_bits == 64:
        return Check("64-bit", "ok", machine)
    return Check(
        "64-bit",
        "fail",
        f"{machine}, Python of {pointer_bits} bits",
        "There is no torch for it: install a 64-bit system.",
    )


def governor(name: str | None) -> Check:
    if name is None:
        return Check("governor", "warn", NOT_SEEN, "Latencies may vary with the frequency; look at their intervals.")
    if name == "performance":
        return Check("governor", "ok", name)
    return Check(
        "governor",
        "warn",
        name,
        "The frequency follows the load. For steady latencies: "
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )


def throttled(before: int | None, after: int | None, model: str) -> Check:
    """From the firmware's bits before and after full load."""
    if after is None and "Raspberry" not in model:
        return Check("throttling", "ok", "no Raspberry Pi, which alone would say")
    if after is None:
        return Check(
            "throttling",
            "warn",
            NOT_SEEN,
            "Join the group video (sudo usermod -aG video $USER), so that vcgencmd may ask.",
        )
    now = ((before or 0) | after) & THROTTLED_NOW_BITS
    since = after & THROTTLED_SINCE_BITS
    if now:
        return Check("throttling", "fail", f"{_words(now)} now", _throttle_advice(now))
    if since:
        return Check(
            "throttling", "warn", f"{_words(since >> 16)} since it was switched on", _throttle_advice(since >> 16)
        )
    return Check("throttling", "ok", "never since it was switched on")


def _words(bits_set: int) -> str:
    return ", ".join(word for number, word in enumerate(THROTTLE_WORDS) if bits_set >> number & 1)


def _throttle_advice(bits_set: int) -> str:
    if bits_set & 1:
        return "Take the board's own supply and a short, thick cable (docs/wiring.md), then switch it off and on."
    return "Cool the board: a heat sink, or a fan that runs all the time on a supply of its own (docs/wiring.md)."


def temperature(temps_c: Sequence[float | None], machine: str, seconds: float) -> Check:
    seen = [temp_c for temp_c in temps_c if temp_c is not None]
    if not seen:
        return Check("temperature", "warn", NOT_SEEN, "Feel the heat sink after a minute of load.")
    hot_c, peak_c = hot_limit_c(machine), max(seen)
    value = f"{peak_c:.0f} °C after {seconds:.0f} s of full load, limit {hot_c:.0f} °C"
    if peak_c >= hot_c:
        return Check("temperature", "fail", value, _throttle_advice(8))
    if peak_c >= hot_c - WARM_MARGIN_C:
        return Check("temperature", "warn", value, "A long run will be hotter. " + _throttle_advice(8))
    return Check("temperature", "ok", value)


def frequency(under_load_hz: Sequence[float | None]) -> Check:
    seen = [hz for hz in under_load_hz if hz is not None]
    if not seen:
        return Check("frequency", "warn", NOT_SEEN, "Throttling would show in the latencies alone.")
    least, most = min(seen), max(seen)
    value = (
        f"{least / 1e6:.0f} to {most / 1e6:.0f} MHz under load" if least != most else f"{most / 1e6:.0f} MHz under load"
    )
    if most - least > FREQUENCY_TOLERANCE * most:
        return Check(
            "frequency",
            "fail",
            value,
            "It falls under load: cool the board, or set a lower maximum (scaling_max_freq).",
        )
    return Check("frequency", "ok", value)


def swap(used_bytes: int | None, memory_bytes: int, pages_moved: int | None) -> Check:
    """pages_moved: between memory and swap, under load."""
    if used_bytes is None or pages_moved is None:
        return Check("swap", "warn", NOT_SEEN, "Keep some hundred MB of memory free.")
    value = f"{used_bytes / 1e6:.0f} MB used, {pages_moved} pages moved under load"
    if pages_moved or used_bytes > MUCH_SWAP_SHARE * memory_bytes:
        return Check("swap", "warn", value, "Memory is short: end other programs, or use a board with more of it.")
    return Check("swap", "ok", value)


def other_load(cores: float | None, top: Sequence[str]) -> Check:
    if cores is None:
        return Check("other load", "warn", NOT_SEEN, "Let nothing else run on the board.")
    names = f" ({', '.join(top)})" if top and cores > LITTLE_OTHER_CORES else ""
    value = f"{cores:.2f} cores busy at rest{names}"
    advice = "End what else runs: desktop, updates, containers, file indexing."
    if cores > OTHER_CPU_LIMIT_CORES:
        return Check("other load", "fail", value, f"{advice} Rounds like this are marked as disturbed.")
    return Check("other load", "warn" if cores > LITTLE_OTHER_CORES else "ok", value, advice if names else "")


def clock(source: str | None, read_ns: float) -> Check:
    value = f"{source or 'unknown source'}, {read_ns:.0f} ns to read"
    if source in BAD_CLOCKS or read_ns > SLOW_CLOCK_NS:
        return Check(
            "clock", "warn", value, "Short operators are timed badly; let the kernel use the processor's counter."
        )
    if source in GOOD_CLOCKS or source is None:
        return Check("clock", "ok", value)
    return Check("clock", "ok", f"{value} (not one that is known)")


def disk(free_bytes: int, path: str) -> Check:
    value = f"{free_bytes / 1e9:.1f} GB free at {path}"
    if free_bytes < LEAST_DISK_BYTES:
        return Check("disk", "fail", value, "Measurements wait on the disk until they are acknowledged: make room.")
    if free_bytes < LITTLE_DISK_BYTES:
        return Check("disk", "warn", value, "A long run without its coordinator could fill it: make room.")
    return Check("disk", "ok", value)


def torch(version: str, error: str) -> Check:
    if version:
        return Check("torch", "ok", version)
    return Check("torch", "fail", error, "Install the version of edgelut[agent]: on a Raspberry Pi torch==2.9.1.")


# ---- the meter ------------------------------------------------------------------------------------------------------


def meter(info: MeterInfo) -> Check:
    words = [info.model or info.kind, info.port, f"no. {info.serial}" if info.serial else ""]
    words += [f"firmware {info.firmware}" if info.firmware else "", "emulated" if info.emulated else ""]
    return Check("meter", "ok", ", ".join(filter(None, words)))


def meter_rate(seen_hz: float, promised_hz: float) -> Check:
    value = f"{seen_hz:.3g} new values/s"
    if promised_hz and seen_hz < SLOW_SHARE * promised_hz:
        return Check(
            "meter rate", "warn", f"{value} instead of {promised_hz:.3g}", "Shorten the link; look at what was lost."
        )
    return Check("meter rate", "ok", value)


def meter_losses(losses: Sequence[tuple[str, int]]) -> Check:
    if not losses:
        return Check("meter link", "ok", "nothing lost")
    value = "; ".join(f"{times} × {words}" for words, times in losses[:3])
    return Check("meter link", "warn", value, "Another cable, a shorter way, or nobody else who talks to the meter.")


def supply(rest_v: float, least_v: float) -> Check:
    """From the voltages at rest and the least under full load; of a 5 V board."""
    value = f"{rest_v:.2f} V at rest, {least_v:.2f} V under full load"
    if not FIVE_VOLTS[0] <= rest_v <= FIVE_VOLTS[1]:
        return Check("supply", "ok", value)
    if least_v < UNDER_V:
        return Check("supply", "fail", value, _throttle_advice(1))
    if least_v < LOW_V:
        return Check("supply", "warn", value, "It sags: a shorter, thicker cable (docs/wiring.md).")
    return Check("supply", "ok", value)


def meter_answer(found: Calibration, doubts: Sequence[str]) -> Check:
    """doubts: what speaks against what was found."""
    error = "" if found.lag_se_s is None else f" ± {1.96 * found.lag_se_s:.3f}"
    lag = f"lag {found.lag_s:.3f}{error} s, noise {found.noise_w * 1e3:.1f} mW"
    value = f"{lag}, one core {found.step_w:.2f} W above {found.idle_w:.2f} W"
    if doubts:
        return Check("meter answer", "warn", value, f"{doubts[0][0].upper()}{doubts[0][1:]}.")
    return Check("meter answer", "ok", value)


def calibration(stored: Calibration | None, info: MeterInfo, now_wall_s: float) -> Check:
    again = "Run `edgelut-agent calibrate` with this meter"
    if stored is None:
        return Check("calibration", "warn", "none", f"{again}: tables then say what it was like.")
    days = (now_wall_s - stored.measured_wall_s) / 86400
    value = f"{stored.id}, {max(days, 0):.0f} days old, lag {stored.lag_s:.3f} s"
    if stored.firmware != info.firmware:
        return Check(
            "calibration", "warn", f"{value}, of firmware {stored.firmware or 'unknown'}", f"{again} once more."
        )
    if days > STALE_DAYS:
        return Check("calibration", "warn", value, f"{again} once more: it is older than {STALE_DAYS} days.")
    return Check("calibration", "ok", value)
