"""The doctor's judgements, what it reads of a board, the forecast, and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import board, doctor
from agent.calibration_store import identified
from agent.cli.doctor import Findings, conclusion, forecast_text
from agent.doctor import Check
from agent.forecast import OPERATORS, WANTED, Quality, energy_s, forecast, half_width, shown
from agent.load import Load
from agent.options import parse
from coordinator.plan import PRESETS, plan_items
from nas.space import load_space
from protos.errors import BadInputError, UnavailableError
from protos.types import Calibration, HostFacts, MeterInfo
from tests.agent.meters.helpers import wait_for

FOUND = identified(Calibration(0.55, 1.3, 0.026, 0.5, 1.2, 2.4, 0.02, measured_wall_s=1e9, firmware="1.18"))
METER = MeterInfo("tc66c", "/dev/ttyACM0", "TC66C", "12345", "1.18", 2.0)
PI = "Raspberry Pi 4 Model B Rev 1.4"


@pytest.mark.parametrize(
    ("check", "state", "words"),
    [
        (doctor.board(HostFacts(model=PI, cpu_count=4, memory_bytes=4 << 30)), "ok", "Raspberry Pi 4"),
        (doctor.bits("aarch64", 64), "ok", "aarch64"),
        (doctor.bits("armv7l", 32), "fail", "64-bit system"),
        (doctor.governor("performance"), "ok", "performance"),
        (doctor.governor("ondemand"), "warn", "scaling_governor"),
        (doctor.governor(None), "warn", "cannot be seen"),
        (doctor.throttled(0, 0, PI), "ok", "never"),
        (doctor.throttled(0, 0x50000, PI), "warn", "under-voltage, throttled since"),
        (doctor.throttled(0, 0x50005, PI), "fail", "under-voltage, throttled now"),
        (doctor.throttled(0x8, 0x80000, PI), "fail", "soft temperature limit now"),
        (doctor.throttled(None, None, PI), "warn", "group video"),
        (doctor.throttled(None, None, "PC"), "ok", "no Raspberry Pi"),
        (doctor.temperature([50.0, 64.0, None], "aarch64", 60), "ok", "64 °C after 60 s"),
        (doctor.temperature([50.0, 72.0], "aarch64", 60), "warn", "hotter"),
        (doctor.temperature([50.0, 81.0], "aarch64", 60), "fail", "heat sink"),
        (doctor.temperature([None], "aarch64", 60), "warn", "cannot be seen"),
        (doctor.frequency([1.5e9, 1.5e9]), "ok", "1500 MHz"),
        (doctor.frequency([1.5e9, 1.0e9]), "fail", "1000 to 1500 MHz"),
        (doctor.frequency([None]), "warn", "cannot be seen"),
        (doctor.swap(0, 1 << 30, 0), "ok", "0 MB"),
        (doctor.swap(0, 1 << 30, 7), "warn", "7 pages"),
        (doctor.swap(1 << 28, 1 << 30, 0), "warn", "Memory is short"),
        (doctor.swap(None, 1 << 30, None), "warn", "cannot be seen"),
        (doctor.other_load(0.02, ["cron (3)"]), "ok", "0.02 cores busy at rest"),
        (doctor.other_load(0.3, ["tracker (7)"]), "warn", "tracker (7)"),
        (doctor.other_load(1.4, ["firefox (9)"]), "fail", "firefox (9)"),
        (doctor.other_load(None, []), "warn", "cannot be seen"),
        (doctor.clock("arch_sys_counter", 300.0), "ok", "arch_sys_counter"),
        (doctor.clock("hpet", 300.0), "warn", "hpet"),
        (doctor.clock("tsc", 5000.0), "warn", "5000 ns"),
        (doctor.clock("timer", 300.0), "ok", "not one that is known"),
        (doctor.disk(10 << 30, "/"), "ok", "10.7 GB"),
        (doctor.disk(500 << 20, "/"), "warn", "make room"),
        (doctor.disk(50 << 20, "/"), "fail", "make room"),
        (doctor.torch("2.9.1", ""), "ok", "2.9.1"),
        (doctor.torch("", "No module named 'torch'"), "fail", "torch==2.9.1"),
        (doctor.meter(replace(METER, emulated=True)), "ok", "TC66C, /dev/ttyACM0, no. 12345, firmware 1.18, emulated"),
        (doctor.meter_rate(1.9, 2.0), "ok", "1.9 new"),
        (doctor.meter_rate(1.0, 2.0), "warn", "instead of 2"),
        (doctor.meter_losses([]), "ok", "nothing"),
        (doctor.meter_losses([("silence", 3)]), "warn", "3 × silence"),
        (doctor.supply(5.1, 4.9), "ok", "5.10 V at rest"),
        (doctor.supply(5.1, 4.7), "warn", "sags"),
        (doctor.supply(5.1, 4.6), "fail", "cable"),
        (doctor.supply(12.0, 11.8), "ok", "12.00"),
        (doctor.meter_answer(FOUND, []), "ok", "lag 0.550 ± 0.039 s, noise 26.0 mW"),
        (doctor.meter_answer(FOUND, ["the wave was not square"]), "warn", "The wave was not square."),
        (doctor.calibration(FOUND, METER, 1e9 + 86400), "ok", "1 days old"),
        (doctor.calibration(None, METER, 1e9), "warn", "edgelut-agent calibrate"),
        (doctor.calibration(FOUND, METER, 1e9 + 400 * 86400), "warn", "older than 365 days"),
        (doctor.calibration(FOUND, replace(METER, firmware="1.19"), 1e9), "warn", "firmware 1.18"),
    ],
    ids=lambda value: value.name if isinstance(value, Check) else "",
)
def test_judgements(check: Check, state: str, words: str) -> None:
    assert check.state == state
    assert words in f"{check.value} {check.advice}"
    assert bool(check.advice) == (check.state != "ok")


# ---- the board


def test_what_is_read_of_a_board(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": "MemTotal: 1000 kB\nSwapTotal:  102396 kB\nSwapFree:  100348 kB\n",
        "proc/vmstat": "pgpgin 5\npswpin 12\npswpout 30\n",
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
    }
    assert (board.swap_used_bytes(tmp_path), board.swap_pages(tmp_path), board.clock_source(tmp_path)) == (None,) * 3
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert board.swap_used_bytes(tmp_path) == 2048 << 10
    assert board.swap_pages(tmp_path) == 42
    assert board.clock_source(tmp_path) == "arch_sys_counter"
    assert board.free_bytes(tmp_path / "not" / "yet") > 0
    assert board.clock_read_ns() > 0


def test_who_is_busy(tmp_path: Path) -> None:
    def stat(pid: int, name: str, ticks: int) -> None:
        (tmp_path / f"proc/{pid}").mkdir(parents=True, exist_ok=True)
        zeros = " 0" * 10
        (tmp_path / f"proc/{pid}/stat").write_text(f"{pid} ({name}) S{zeros} {ticks} {ticks}{zeros}\n")

    for pid, name in ((7, "firefox (web) x"), (8, "cron"), (9, "agent")):
        stat(pid, name, 0)
    before = board.cpu_times_s(tmp_path)
    stat(7, "firefox (web) x", 100)
    stat(9, "agent", 500)
    assert board.busiest(before, board.cpu_times_s(tmp_path), [9]) == ["firefox (web) x (7)"]


def test_the_load_follows_its_commands_and_ends() -> None:
    load = Load(2)
    began_ns = load.busy(1)
    wait_for(lambda: load.used_s > 0.2)
    assert load.idle() > began_ns
    used_s = load.used_s
    time.sleep(0.3)
    assert load.used_s - used_s < 0.2
    load.close()
    with pytest.raises(ProcessLookupError):
        os.kill(load.pid, 0)
    with pytest.raises((UnavailableError, ValueError)):
        load.busy()


# ---- the forecast


def test_the_operators_are_those_of_the_space() -> None:
    assert len(plan_items(load_space("fbnet-cifar10"))) == OPERATORS
    assert PRESETS["standard"].energy_budget_s == 1500.0


@given(
    st.builds(Quality, st.floats(1e-3, 0.2), st.floats(1e-3, 1.0), st.floats(0.0, 3.0), st.floats(0.2, 5.0)),
    st.sampled_from(WANTED),
)
def test_a_forecast_of_time_keeps_its_promise(meter: Quality, wanted: float) -> None:
    seconds = energy_s(meter, wanted)
    assert half_width(meter, seconds) <= wanted * 1.0001
    assert energy_s(replace(meter, noise_w=2 * meter.noise_w), wanted) >= seconds
    assert energy_s(replace(meter, lag_s=meter.lag_s + 1), wanted) >= seconds
    assert 0 < shown(meter.lag_s, 2.0) <= 1


def test_a_forecast_is_said_in_minutes_and_hours() -> None:
    slow, fast = Quality(0.05, 0.5, 1.0, 1.0), Quality(0.02, 0.005, 0.01, 2.0)
    text = forecast_text(forecast(slow))
    assert "preset standard: ± " in text
    assert "hours" in text
    assert "minutes" in forecast_text(forecast(fast))


# ---- the command


def test_a_failed_check_is_counted() -> None:
    findings = Findings(lambda _: None)
    findings.add(Check("disk", "ok", "10 GB"))
    assert conclusion(findings) == "Nothing failed, 0 warnings."
    findings.add(Check("disk", "fail", "0 GB", "make room"))
    assert findings.failed
    assert conclusion(findings).startswith("1 failed, 0 warnings")


def test_the_command_with_an_emulated_meter(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agent", "doctor", "--meter", "emulated:?kind=smartpower3", "--seconds", "4"]
    done = subprocess.run(
        [*command, "--json", "--calibrations", str(tmp_path)], capture_output=True, text=True, timeout=250, check=False
    )
    said = json.loads(done.stdout)
    assert done.returncode == (1 if said["failed"] else 0), done.stderr
    names = [check["name"] for check in said["checks"]]
    assert names[:5] == ["board", "64-bit", "torch", "disk", "clock"]
    for name in ("other load", "governor", "frequency", "temperature", "throttling", "swap", "meter", "meter answer"):
        assert name in names
    answered = next(check for check in said["checks"] if check["name"] == "meter answer")["state"] != "fail"
    assert (said["forecast"] is not None) == answered
    if answered:
        assert [row["rel_halfwidth"] for row in said["forecast"]["device_time"]] == list(WANTED)


def test_without_a_meter_there_is_no_forecast_and_a_wrong_one_fails() -> None:
    command = [sys.executable, "-m", "agent", "doctor", "--seconds", "1", "--meter", "um25c:/dev/edgelut-nothing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 1, done.stderr
    assert "does not exist" in done.stdout
    assert "Forecast" not in done.stdout
    assert "mend what failed" in done.stdout


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_bad_options_are_sentences(seconds: str) -> None:
    with pytest.raises(BadInputError, match="at least 1"):
        parse(["doctor", "--seconds", seconds])
