"""The estimator against the emulator's known truth, the store, and the command with its way into the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calibration import estimate
from agent.calibration_store import CalibrationStore, MeterKey, default_folder, identified
from agent.calibration_values import new_values
from agent.cli.calibrate import Half, Tick, edges_of, wave
from agent.emulator.model import MeterSettings
from agent.metering import Follow, Meters
from agent.options import parse
from protos.errors import BadInputError, StorageError
from protos.types import Calibration, MeterInfo
from tests.agent.meters.helpers import WallClock
from tests.agent.waves import STEP_W, recorded, seconds

FOUND = identified(Calibration(0.55, 1.3, 0.026, 0.5, 1.2, 2.4, 0.02, 0.24, 14, 118.0, 1e9, "1.18", "0.1.0"))


def settings_of(rate_hz: float, lag_s: float, seed: int = 0) -> MeterSettings:
    """Two poles and a dead time that together make the lag."""
    shape = {"tau_s": 0.7 * lag_s, "tau2_s": 0.2 * lag_s, "delay_s": 0.1 * lag_s}
    return MeterSettings.at_rate(rate_hz, seed=seed, **shape)


@pytest.mark.parametrize("lag_s", [0.05, 0.5, 2.0])
@pytest.mark.parametrize(("rate_hz", "streaming", "most_s"), [(2.0, False, 0.15), (200.0, True, 0.02)])
def test_the_lag_is_found(rate_hz: float, streaming: bool, most_s: float, lag_s: float) -> None:
    samples, edges = recorded(settings_of(rate_hz, lag_s), 120.0, 0, streaming=streaming)
    found = estimate(seconds(samples), samples.power_w, edges, samples.fresh)
    assert found.lag_s == pytest.approx(lag_s, abs=most_s)
    assert found.update_period_s == pytest.approx(1 / rate_hz, rel=0.01)
    assert found.step_w == pytest.approx(STEP_W, rel=0.02)
    assert found.idle_w == pytest.approx(1.217, rel=0.02)
    assert found.noise_w == pytest.approx(0.0255, rel=0.35)
    assert found.lag_se_s is not None
    assert abs(found.lag_s - lag_s) < 10 * max(found.lag_se_s, 0.002)


def test_a_board_that_leaks_when_warm_does_not_look_like_a_slow_meter() -> None:
    samples, edges = recorded(settings_of(50.0, 0.2), 120.0, 3, streaming=True, leak_a=0.02)
    found = estimate(seconds(samples), samples.power_w, edges, samples.fresh)
    assert found.lag_s == pytest.approx(0.2, abs=0.03)


def test_bursts_of_other_work_do_little() -> None:
    samples, edges = recorded(settings_of(50.0, 0.2), 60.0, 3, streaming=True)
    power_w = np.array(samples.power_w)
    power_w[500:520] += 2.0
    power_w[1500:1510] += 3.0
    assert estimate(seconds(samples), power_w, edges).lag_s == pytest.approx(0.2, abs=0.03)


def test_a_load_that_others_disturb_is_taken_as_it_was() -> None:
    """The board is shared: in every fifth of a second the load gets another share of its core."""
    rng = np.random.default_rng(0)
    edges: list[tuple[float, float]] = []
    at_s = 10.0
    for half in range(12):
        for _ in range(20 if half % 2 else 1):
            edges.append((at_s, float(rng.uniform(0.1, 0.9)) if half % 2 else 0.0))
            at_s += 0.2 if half % 2 else 3.0
    edges = [(0.5, 1.0), (2.0, 0.0), *edges[1:], (at_s, 0.0)]
    times_s = np.arange(0.0, at_s + 3, 0.01)
    level = np.array([0.0, *(level for _, level in edges)])[np.searchsorted([at for at, _ in edges], times_s - 0.3)]
    power_w = 1.2 + 2.4 * level + rng.normal(0, 0.03, len(times_s))
    found = estimate(times_s, power_w, edges)
    assert found.lag_s == pytest.approx(0.3, abs=0.02)
    assert found.step_w == pytest.approx(2.4, rel=0.02)
    assert found.idle_w == pytest.approx(1.2, rel=0.02)


def test_edges_are_those_of_the_load_that_ran() -> None:
    ticks = [Tick(1.0, 0.98), Tick(1.2, 0.99), Tick(1.4, 0.97)]
    assert edges_of(Half(True, 0.6), ticks) == [(1.0, 1.0)]
    assert edges_of(Half(False, 0.6), ticks) == [(1.0, 0.0)]
    shared = [Tick(1.0, 0.5), Tick(1.2, 0.2)]
    assert edges_of(Half(True, 0.4), shared) == [(1.0, 0.5), (1.2, 0.2)]


def test_the_wave_may_begin_with_a_busy_board() -> None:
    samples, edges = recorded(settings_of(50.0, 0.2), 60.0, 4, streaming=True)
    at_s = seconds(samples)
    later = at_s > edges[0][0] + 1.5
    assert edges[1][0] > edges[0][0] + 1.5
    found = estimate(at_s[later], np.array(samples.power_w)[later], edges[1:])
    assert found.lag_s == pytest.approx(0.2, abs=0.03)
    assert found.idle_w == pytest.approx(1.217, rel=0.02)


@pytest.mark.parametrize("jitter_s", [0.0, 0.03])
def test_the_ticks_of_a_polled_meter_are_found(jitter_s: float) -> None:
    rng = np.random.default_rng(0)
    polls_s = np.arange(0.0, 100.0, 0.4) + rng.uniform(-jitter_s, jitter_s, 250)
    tick = np.floor((polls_s - 0.123) / 0.5)
    fresh = np.diff(tick, prepend=-9) > 0
    values = new_values(polls_s, tick, fresh)
    assert values.period_s == pytest.approx(0.5, rel=1e-3)
    error_s = values.time_s - (0.123 + 0.5 * values.power_w)
    assert abs(error_s.mean()) < 0.06  # a poll every 0.4 s leaves the phase open by 0.1 s
    assert error_s.std() < 0.02


def test_a_stream_that_repeats_each_value_tells_its_real_rate() -> None:
    times_s = np.arange(0.0, 20.0, 0.01)
    power_w = np.random.default_rng(0).normal(1.2, 0.02, 200).repeat(10)
    values = new_values(times_s, power_w)
    assert values.period_s == pytest.approx(0.1, rel=0.01)
    assert len(values.power_w) == pytest.approx(200, abs=2)


@given(
    st.lists(st.tuples(st.floats(0, 60), st.floats(-5, 5), st.booleans()), max_size=80),
    st.lists(st.floats(0, 60), max_size=8, unique=True),
)
def test_any_trace_gives_a_calibration_or_a_sentence(rows: list[tuple[float, float, bool]], at_s: list[float]) -> None:
    rows = sorted(rows)
    edges = [(at, index % 2 == 0) for index, at in enumerate(sorted(at_s))]
    with contextlib.suppress(BadInputError):
        found = estimate([r[0] for r in rows], [r[1] for r in rows], edges, [r[2] for r in rows])
        assert found.step_w > 0


def test_what_carries_no_calibration_is_refused() -> None:
    samples, edges = recorded(settings_of(20.0, 0.1), 30.0, 0, streaming=True)
    times_s, power_w = seconds(samples), np.array(samples.power_w)
    with pytest.raises(BadInputError, match="not to be seen"):
        estimate(times_s, np.random.default_rng(0).normal(1.2, 0.02, len(times_s)), edges)
    with pytest.raises(BadInputError, match="not to be seen"):
        estimate(times_s, -power_w, edges)
    with pytest.raises(BadInputError, match="only 10 new values"):
        estimate(times_s[:10], power_w[:10], edges)
    with pytest.raises(BadInputError, match="1 edges"):
        estimate(times_s, power_w, edges[:1])
    with pytest.raises(BadInputError, match="order of time"):
        estimate(times_s, power_w, [(3.0, True), (2.0, False), (4.0, True), (5.0, False)])


@given(st.floats(4.0, 600.0), st.integers(0, 1 << 32))
def test_a_wave_is_as_long_as_asked_and_ends_at_rest(duration_s: float, seed: int) -> None:
    halves = wave(duration_s, seed)
    assert sum(half.duration_s for half in halves) == pytest.approx(duration_s)
    assert not halves[0].busy
    assert not halves[-1].busy
    assert all(a.busy != b.busy for a, b in pairwise(halves))
    assert sum(half.busy for half in halves) >= 2


# ---- the store


def test_a_calibration_comes_back(tmp_path: Path) -> None:
    store = CalibrationStore(tmp_path / "new")
    key = MeterKey.of("tc66c:/dev/ttyACM0", MeterInfo("tc66c", "/dev/ttyACM0", "TC66C", "12345"))
    assert store.load(key) is None
    path = store.save(key, "TC66C", FOUND)
    assert store.load(key) == FOUND
    assert path.stat().st_mode & 0o444 == 0o444
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_meter_is_known_by_its_serial_number_else_by_its_port() -> None:
    here, there = (MeterInfo("tc66c", port, serial="12345") for port in ("/dev/ttyACM0", "/dev/ttyACM1"))
    assert MeterKey.of("auto", here) == MeterKey.of("tc66c:/dev/ttyACM1", there)
    one, two = (MeterInfo("um25c", port) for port in ("/dev/rfcomm0", "/dev/rfcomm1"))
    assert MeterKey.of("auto", one).file_name != MeterKey.of("auto", two).file_name
    first, second = (MeterInfo("um25c", port, emulated=True) for port in ("/dev/pts/3", "/dev/pts/4"))
    assert MeterKey.of("emulated", first) == MeterKey.of("emulated:77?rate_hz=50", second)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": "edgelut-meter-calibration", "format_version": 2}',
        '{"format": "edgelut-meter-calibration", "format_version": 1}',
        '{"format": "edgelut-meter-calibration", "format_version": 1, "calibration": {"lag_s": "late"}}',
        '{"format": "edgelut-meter-calibration", "format_version": 1, "calibration": {"unknown": 1}}',
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    store, key = CalibrationStore(tmp_path), MeterKey("um25c", "", "/dev/rfcomm0")
    store.path(key).write_text(text)
    with pytest.raises(BadInputError, match=r"um25c-dev-rfcomm0.*calibrate"):
        store.load(key)


def test_changed_numbers_are_noticed(tmp_path: Path) -> None:
    store, key = CalibrationStore(tmp_path), MeterKey("um25c", "", "/dev/rfcomm0")
    path = store.save(key, "UM25C", FOUND)
    path.write_text(path.read_text().replace("0.55", "0.56"))
    with pytest.raises(BadInputError, match="its id does not fit"):
        store.load(key)


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--calibrations"):
        CalibrationStore(tmp_path / "file").save(MeterKey("um25c", "", "/dev/rfcomm0"), "UM25C", FOUND)


def test_where_calibrations_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGELUT_CALIBRATIONS", "STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert default_folder() == Path.home() / ".local/state/edgelut/calibrations"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edgelut-agent")
    assert default_folder() == Path("/var/lib/edgelut-agent/calibrations")
    monkeypatch.setenv("EDGELUT_CALIBRATIONS", "/srv/calibrations")
    assert default_folder() == Path("/srv/calibrations")


# ---- the command


def agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_daemon_sends_what_the_command_found(tmp_path: Path) -> None:
    done = agent(
        *("calibrate", "--meter", "emulated:?kind=tc66c", "--duration", "8", "--json"),
        *("--calibrations", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    found = Calibration(**said["calibration"])
    assert found.id == identified(found).id
    assert found.firmware == said["meter"]["firmware"] != ""
    assert found.cycles >= 2
    assert Path(said["path"]).parent == tmp_path
    assert 0 <= said["load_share"] <= 1.1

    async def info_of_a_task() -> MeterInfo:
        follow = Follow(lambda: 1, set())
        meters = Meters("emulated:?kind=tc66c", WallClock(), follow, calibrations=CalibrationStore(tmp_path))
        looked = await meters.look()
        assert looked is not None
        assert looked.calibration == found
        async with meters.running("") as meter:
            return meter.info

    assert asyncio.run(info_of_a_task()).calibration == found


def test_a_damaged_calibration_stops_no_measurement(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CalibrationStore(tmp_path)
    info = MeterInfo("um25c", "emulated", emulated=True)
    store.path(MeterKey.of("emulated", info)).write_text("{")
    meters = Meters("emulated", WallClock(), Follow(lambda: 1, set()), calibrations=store)
    looked = asyncio.run(meters.look())
    assert looked == replace(looked or info, calibration=None)
    assert "calibrate" in caplog.text


def test_what_stands_in_the_way_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, words in (
        (["--meter", "emulated:?kind=um25d", "--calibrations", str(tmp_path)], "did you mean 'um25c'"),
        (["--meter", "emulated", "--calibrations", str(tmp_path / "file")], "Choose another folder"),
    ):
        done = agent("calibrate", *arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def heed_ctrl_c() -> None:
    """What a shell runs in the background ignores Ctrl-C, and so would everything that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_stores_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agent", "calibrate", "--meter", "emulated", "--calibrations", str(tmp_path)]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=heed_ctrl_c) as running:
        assert running.stderr is not None
        assert "of load and rest in turn" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert (out, list(tmp_path.iterdir())) == ("", [])
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--meter", "none"], "needs a meter"),
        (["--meter", "um25d:/dev/rfcomm0"], "um25c"),
        (["--meter", "emulated", "--duration", "1"], "at least 4"),
        (["--meter", "emulated", "--duration", "nan"], "at least 4"),
        (["--meter", "emulated", "--threads", "0"], "--threads is 0"),
    ],
)
def test_bad_options_are_sentences(arguments: list[str], words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        parse(["calibrate", *arguments])


def test_a_port_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = agent("calibrate", "--meter", "um25c:/dev/edgelut-nothing", "--calibrations", str(tmp_path))
    assert done.returncode == 2
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr
