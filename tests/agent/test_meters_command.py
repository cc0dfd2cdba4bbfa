"""`edgelut-agent meters`: what answers, and why a port could not be asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serial.tools.list_ports_common import ListPortInfo

from agent.calibration_store import CalibrationStore, MeterKey, identified
from agent.cli import meters
from agent.cli.meters import ask, ask_named, look, table, with_calibration
from agent.emulator.meter import MeterModel, MeterSettings, PtyMeter
from agent.meters import discover
from agent.meters.discover import LISTEN, Candidate
from agent.meters.ports import open_port
from protos.types import Calibration
from tests.agent.meters.helpers import StepSupply, WallClock


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "LISTEN_S", 0.5)


@pytest.fixture
def tc66c() -> Iterator[PtyMeter]:
    meter = PtyMeter(MeterModel(StepSupply(), MeterSettings.at_rate(20)), WallClock(), "tc66c")
    yield meter
    meter.close()


def listed(device: str, vid: int | None = None, description: str = "n/a") -> ListPortInfo:
    item = ListPortInfo(device, skip_link_detection=True)
    item.vid, item.description = vid, description
    return item


def test_a_meter_that_is_plugged_in_is_described(tc66c: PtyMeter) -> None:
    found = [item for item in look([listed(tc66c.port, 0x28E9, "TC66"), listed("/dev/ttyS9")]) if "/dev" in item.port]
    assert [item.port for item in found] == [tc66c.port, "/dev/ttyS9"]
    first, second = found
    assert first.info is not None
    assert (first.info.kind, first.info.model, first.info.serial) == ("tc66c", "TC66", "12345")
    assert first.info.firmware
    assert first.spec == f"tc66c:{tc66c.port}"
    assert "not asked: it is not USB" in second.reason
    text = table(found)
    assert f"--meter tc66c:{tc66c.port}" in text
    assert "no. 12345" in text
    assert "not calibrated" in text


def test_its_calibration_is_told(tc66c: PtyMeter, tmp_path: Path) -> None:
    found = ask(Candidate(tc66c.port, "", (LISTEN, "tc66c")))
    assert found.info is not None
    store = CalibrationStore(tmp_path)
    calibration = identified(Calibration(0.5, 1.2, 0.02, 0.5, 1.2, 2.4))
    store.save(MeterKey.of(found.spec, found.info), "TC66", calibration)
    told = with_calibration(found, store)
    assert told.calibration == calibration
    assert "lag 0.500 s" in table([told])
    assert json.loads(json.dumps(told.document()))["meter"]["calibration"]["id"] == calibration.id


@pytest.mark.parametrize("kind", ["smartpower3", "um25c", "ppk2"])
def test_a_port_that_is_named_is_asked_as_everything(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "ASKED_FIRST_REPLY_S", 1.5)
    device = PtyMeter(MeterModel(StepSupply(), MeterSettings.at_rate(20)), WallClock(), kind)
    try:
        found = ask_named(device.port)
    finally:
        device.close()
    assert found.info is not None, found.reason
    assert found.info.kind == kind


def test_why_a_port_could_not_be_asked(tc66c: PtyMeter) -> None:
    with open_port(tc66c.port, 115200, "test"):
        busy = ask(Candidate(tc66c.port, "", (LISTEN, "tc66c")))
    assert "is in use by this very process" in busy.reason
    assert "does not exist" in ask_named("/dev/edgelut-nothing").reason


def test_a_port_where_nothing_answers_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "ASKED_FIRST_REPLY_S", 0.2)
    master, slave = os.openpty()
    try:
        reason = ask_named(os.ttyname(slave)).reason
    finally:
        os.close(master)
        os.close(slave)
    assert "tried: listening, um25c" in reason


def test_no_meter_at_all_says_what_to_do() -> None:
    assert "edgelut-agent meters PORT" in table([])


def test_the_command(tc66c: PtyMeter, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agent", "meters", tc66c.port, "/dev/edgelut-nothing", "--json"]
    done = subprocess.run(
        [*command, "--calibrations", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first["meter"]["kind"] == "tc66c"
    assert first["meter"]["calibration"] is None
    assert second["meter"] is None
    assert "does not exist" in second["reason"]
