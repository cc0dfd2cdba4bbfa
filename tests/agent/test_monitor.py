"""What `edgelut-agent monitor` shows and writes."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from rich.console import Console

from agent.cli.monitor import Watch, line
from agent.cli.opened import add_losses
from agent.cli.output import COLUMNS, SampleFile
from agent.cli.screen import picture
from agent.cli.terminal import bounds, framed, plot
from agent.emulator.meter import MeterModel, MeterSettings, PtyMeter
from agent.meters import open_meter
from agent.options import parse
from protos.errors import BadInputError
from protos.types import MeterInfo, MeterSamples
from tests.agent.meters.helpers import StepSupply, WallClock, wait_for

SAMPLES = MeterSamples((1_000_000_000, 1_500_000_000), (5.0, 5.1), (0.25, 0.2), (1.25, 1.02), (True, False))


@pytest.fixture
def port(tmp_path: Path) -> Iterator[PtyMeter]:
    meter = PtyMeter(
        MeterModel(StepSupply(), MeterSettings.at_rate(50)), WallClock(), "smartpower3", link=tmp_path / "m"
    )
    yield meter
    meter.close()


def started(*arguments: str, out: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "agent", "monitor", *arguments]
    return subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE)


# ---- pictures


def test_a_step_in_braille() -> None:
    lines = plot([0.0, 5.0], [0.0, 1.0], (0.0, 10.0), (0.0, 1.0), (4, 2))
    assert lines == ["⠀⠀⡇⠀", "⣀⣀⡇⠀"]


@given(
    st.lists(st.tuples(st.floats(-10, 70), st.floats(-1e6, 1e6)), min_size=1, max_size=50),
    st.integers(1, 60),
    st.integers(1, 20),
)
def test_any_values_fill_their_frame(points: list[tuple[float, float]], columns: int, rows: int) -> None:
    times, values = zip(*sorted(points), strict=True)
    limits = bounds(values, 0.05)
    assert limits[0] <= min(values) <= max(values) <= limits[1] > limits[0]
    lines = plot(times, values, (0.0, 60.0), limits, (columns, rows))
    assert [len(row) for row in lines] == [columns] * rows
    assert len({len(row) for row in framed(lines, limits, "W", "", "")[:-1]}) == 1


def test_the_screen_says_what_is_measured_and_what_was_lost() -> None:
    watch = Watch(MeterInfo("tc66c", "/dev/ttyACM0", "TC66C", "12345", "1.18", 2.0, emulated=True), 0)
    watch.add(SAMPLES, ("2 × byte outside a frame",), 20_000_000_000)
    console = Console(width=100, height=30, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(picture(watch))
    text = console.export_text()
    for words in ("TC66C", "no. 12345", "firmware 1.18", "emulated", "5.1000 V", "0.2000 A", "1.0200 W"):
        assert words in text
    assert "1 of 2 samples new" in text
    assert "no new value for 19 s" in text
    assert "2 × byte outside a frame" in text
    assert re.search(r"[⠁-⣿]", text)


# ---- numbers


def test_statistics_are_of_new_values() -> None:
    watch = Watch(MeterInfo("um25c", rate_hz=2.0), 0)
    assert line(watch).endswith("no value yet")
    times = tuple(range(0, 4_000_000_000, 500_000_000))
    power = (1.0, 2.0) * 4
    watch.add(MeterSamples(times, (5.0,) * 8, tuple(p / 5 for p in power), power, (True,) * 8), (), 4_000_000_000)
    found = watch.document(None)
    assert found["power_w"] == pytest.approx({"mean": 1.5, "sd": 0.5345, "min": 1.0, "max": 2.0}, rel=1e-3)
    assert found["energy_j"] == pytest.approx(1.5 * 3.5)
    assert found["fresh_rate_hz"] == pytest.approx(2.0)
    late = MeterSamples((60_000_000_000,), (5.0,), (0.2,), (1.0,), (True,))
    watch.add(late, (), 60_000_000_000)
    assert watch.energy_j == pytest.approx(1.5 * 3.5)  # what happened in a hole is not known


def test_losses_are_counted_by_their_words() -> None:
    total: Counter[str] = Counter()
    add_losses(total, ("3 × silence", "silence", "the link was lost for 1.0 s"))
    assert total == {"silence": 4, "the link was lost for 1.0 s": 1}


# ---- files


def test_a_file_has_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "idle.csv"
    path.write_text("older")
    file = SampleFile(path, 1_000_000_000)
    file.add(SAMPLES)
    assert path.read_text() == "older"
    file.close()
    with path.open() as text:
        rows = list(csv.reader(text))
    assert rows == [
        list(COLUMNS),
        ["0.000000", "5.0", "0.25", "1.25", "1", ""],
        ["0.500000", "5.1", "0.2", "1.02", "0", ""],
    ]
    assert [item.name for item in tmp_path.iterdir()] == ["idle.csv"]


@pytest.mark.parametrize("temps", [(), (27.0, 27.5)])
def test_parquet_holds_the_same(tmp_path: Path, temps: tuple[float, ...]) -> None:
    path = tmp_path / "idle.parquet"
    file = SampleFile(path, 1_000_000_000)
    columns = (SAMPLES.t_ns, SAMPLES.voltage_v, SAMPLES.current_a, SAMPLES.power_w, SAMPLES.fresh)
    file.add(MeterSamples(*columns, temps))
    file.close()
    table = parquet.read_table(path).to_pydict()
    assert table["t_s"] == [0.0, 0.5]
    assert table["fresh"] == [True, False]
    assert table["temp_c"] == (list(temps) or [None, None])
    assert [item.name for item in tmp_path.iterdir()] == ["idle.parquet"]


def test_an_empty_parquet_has_its_columns(tmp_path: Path) -> None:
    SampleFile(tmp_path / "none.parquet", 0).close()
    assert parquet.read_table(tmp_path / "none.parquet").column_names == list(COLUMNS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "trace.xlsx"], "ending must be .csv or .parquet"),
        (["--output", "/nowhere-at-all/trace.csv"], "folder that does not exist"),
        (["--duration", "0"], "at least 0.1"),
        (["--duration", "inf"], "at least 0.1"),
        (["--meter", "none"], "needs a meter"),
    ],
)
def test_bad_options_are_sentences(arguments: list[str], words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        parse(["monitor", "--meter", "emulated", *arguments])


# ---- the command


def test_ctrl_c_keeps_what_was_written_and_replay_plays_it(port: PtyMeter, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    command = started("--meter", f"smartpower3:{port.port}", "--output", str(path), "--json")
    try:
        part = tmp_path / "trace.csv.part"
        wait_for(lambda: part.exists() and len(part.read_text().splitlines()) > 20)
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=60)
    finally:
        command.kill()
    assert command.returncode == 0, err
    said = json.loads(out)
    rows = path.read_text().splitlines()
    assert len(rows) - 1 == said["output"]["rows"] == said["samples"]
    assert said["meter"]["kind"] == "smartpower3"
    assert said["power_w"]["mean"] == pytest.approx(1.217, abs=0.1)
    assert not part.exists()
    replay = open_meter(f"replay:{path}?speed=20", WallClock())
    replay.start()
    seen: list[float] = []
    wait_for(lambda: bool(seen.extend(replay.take()[0].power_w)) or len(seen) > 10)
    replay.close()
    assert seen[0] == float(rows[1].split(",")[3])


def test_a_terminal_gets_a_plot_and_an_unplugged_meter_comes_back(port: PtyMeter) -> None:
    master, slave = pty.openpty()
    command = started("--meter", f"smartpower3:{port.port}", out=slave)
    os.close(slave)
    seen = bytearray()

    def shows(words: str) -> bool:
        try:
            seen.extend(os.read(master, 1 << 16))
        except OSError:  # it has ended
            return True
        return words in seen.decode(errors="replace")

    try:
        wait_for(lambda: shows("⣀") or shows("new values/s"))
        port.unplug()
        wait_for(lambda: shows("broke"))
        port.plug()
        wait_for(lambda: shows("the link was lost for"), 200)
        command.send_signal(signal.SIGINT)
        wait_for(lambda: shows("no words like these"))
        assert command.wait(60) == 0
    finally:
        command.kill()
        os.close(master)
    assert "link was lost for" in seen.decode(errors="replace")
