"""Meters of the machine itself, on folders like those of the kernel, and a recorded trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.meters import Meter, decoder, hwmon, open_meter, rapl
from agent.meters.spec import parse_spec
from protos.errors import BadInputError
from protos.types import MeterSamples
from tests.agent.meters.helpers import WallClock, wait_for

# The form of `vcgencmd pmic_read_adc`.
CURRENTS = (
    *("3V7_WL_SW", "3V3_SYS", "1V8_SYS", "DDR_VDD2", "DDR_VDDQ", "1V1_SYS", "0V8_SW", "VDD_CORE", "3V3_DAC", "3V3_ADC"),
    *("0V8_AON", "HDMI"),
)
PMIC = "".join(
    [
        *(f"{rail + '_A':>15} current({i})=0.10000000A\n" for i, rail in enumerate(CURRENTS)),
        *(f"{rail + '_V':>15} volt({i + 12})=2.00000000V\n" for i, rail in enumerate(reversed(CURRENTS))),
        "        EXT5V_V volt(24)=5.00000000V\n",
        "         BATT_V volt(25)=0.00976800V\n",
    ]
)


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def collect(meter: Meter, count: int) -> tuple[MeterSamples, list[str]]:
    parts: list[MeterSamples] = []
    losses: list[str] = []

    def enough() -> bool:
        samples, lost = meter.take()
        parts.append(samples)
        losses.extend(lost)
        return sum(len(p.t_ns) for p in parts) >= count

    meter.start()
    try:
        wait_for(enough)
    finally:
        meter.close()
    columns = ("t_ns", "voltage_v", "current_a", "power_w", "fresh")
    return MeterSamples(**{name: tuple(x for p in parts for x in getattr(p, name)) for name in columns}), losses


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    write(tmp_path / "hwmon0", name="cpu_thermal", temp1_input=41000)
    chip = {"in0_input": 10, "in1_input": 5096, "curr1_input": 742, "power1_input": 3775000, "update_interval": 2}
    write(tmp_path / "hwmon1", name="ina226", **chip)
    write(tmp_path / "hwmon2", name="powerz", in0_input=5100, curr1_input=-300)
    return tmp_path


def test_hwmon_is_found_by_name(kernel: Path) -> None:
    samples, losses = collect(hwmon.open_meter(parse_spec("hwmon:ina226?rate_hz=100"), WallClock(), kernel), 5)
    assert (samples.voltage_v[0], samples.current_a[0]) == (5.096, 0.742)
    assert losses == []
    assert hwmon.find("", kernel).name == "hwmon1"


def test_a_reversed_km003c_is_said(kernel: Path) -> None:
    samples, losses = collect(hwmon.open_meter(parse_spec("hwmon:powerz?rate_hz=100"), WallClock(), kernel), 3)
    assert samples.power_w[0] == pytest.approx(-1.53)
    assert any("wired the wrong way round" in text for text in losses)


def test_hwmon_says_what_there_is(kernel: Path) -> None:
    with pytest.raises(BadInputError, match=r"no such sensor \(there are: cpu_thermal, ina226, powerz\)"):
        hwmon.open_meter(parse_spec("hwmon:ina260"), WallClock(), kernel)


def test_a_wrong_shunt_shows_in_the_power(kernel: Path) -> None:
    write(kernel / "hwmon1", power1_input=9_000_000)
    with pytest.raises(BadInputError, match="that agree with each other"):
        hwmon.open_meter(parse_spec("hwmon:ina226"), WallClock(), kernel)


def test_pmic_pairs_rails_by_name() -> None:
    target = decoder("pi5-pmic")
    (reading,) = target.feed(PMIC.encode())
    assert reading.power_w == pytest.approx(12 * 0.2)
    assert reading.voltage_v == 5.0
    assert reading.model == "board rails"
    assert target.feed(PMIC.replace("HDMI_V", "HDMX_V").encode()) == []
    assert target.rejected == {"set with 11 rails instead of 12": 1}


def test_pmic_without_the_command_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadInputError, match="needs a Raspberry Pi 5 and the group video"):
        open_meter("pi5-pmic", WallClock())


def test_rapl_is_power_over_the_interval_and_wraps() -> None:
    readings = decoder("rapl?wrap_uj=1000000").feed(b"1000000000 900000\n1100000000 400000\n1050000000 1\nx\n")
    assert [r.power_w for r in readings] == [pytest.approx(5.0)]
    assert readings[0].energy_j == pytest.approx(0.5)


def test_rapl_of_a_machine(tmp_path: Path) -> None:
    folder = write(tmp_path / "intel-rapl:0", name="package-0", energy_uj=1, max_energy_range_uj=262143328850)
    meter = rapl.open_meter(parse_spec("rapl?rate_hz=100"), WallClock(), tmp_path)
    samples, _ = collect(meter, 3)
    assert samples.power_w[-1] == 0.0
    with pytest.raises(BadInputError, match=r"there are: package-0"):
        rapl.open_meter(parse_spec("rapl:core"), WallClock(), tmp_path)
    if os.geteuid() != 0:
        (folder / "energy_uj").chmod(0)
        with pytest.raises(BadInputError, match="sudo chmod a\\+r"):
            rapl.open_meter(parse_spec("rapl"), WallClock(), tmp_path)


def test_a_trace_is_replayed(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("t_s,V,A\n" + "".join(f"{i * 0.1:.1f},5.0,{0.2 + 0.1 * (i % 2):.1f}\n" for i in range(20)))
    meter = open_meter(f"replay:{trace}?speed=20&loop=yes", WallClock())
    assert meter.info.emulated
    assert meter.info.rate_hz == pytest.approx(200.0)
    samples, _ = collect(meter, 60)
    assert samples.current_a[:4] == (0.2, pytest.approx(0.3), 0.2, pytest.approx(0.3))
    assert samples.t_ns[40] - samples.t_ns[0] == pytest.approx(200_000_000, abs=10)


def test_a_trace_that_ends_says_so(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("0,5,0.2\n0.01,5,0.2\n0.02,5,0.3\n")
    meter = open_meter(f"replay:{trace}", WallClock())
    losses: list[str] = []
    meter.start()
    wait_for(lambda: bool(losses.extend(meter.take()[1]) or losses))
    meter.close()
    assert losses == ["the recorded trace has ended"]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", "", "fewer than two samples"),
        ("1,2\n", "", "2 columns instead of 3"),
        ("1,5,1\n", "?columns=V,A", "no time"),
    ],
)
def test_a_trace_that_cannot_be(tmp_path: Path, text: str, options: str, words: str) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(text)
    with pytest.raises(BadInputError, match=words):
        open_meter(f"replay:{trace}{options}", WallClock())


def test_an_emulated_meter_by_its_spec() -> None:
    samples, _ = collect(open_meter(f"emulated:{os.getpid()}", WallClock()), 5)
    assert samples.current_a[0] > 0.2
    with pytest.raises(BadInputError, match="not the number of a process"):
        open_meter("emulated:me", WallClock())
