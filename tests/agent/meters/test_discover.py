from __future__ import annotations

import os

import pytest
from serial.tools.list_ports_common import ListPortInfo

from agent.emulator.meter import MeterModel, MeterSettings, PtyMeter
from agent.meters import decoder, discover
from agent.meters.discover import LISTEN, Candidate, candidates, heard_kind, try_candidate
from protos.errors import BadInputError
from tests.agent.meters.helpers import StepSupply, WallClock


def port(
    device: str, vid: int | None = None, pid: int | None = None, product: str = "", location: str = ""
) -> ListPortInfo:
    item = ListPortInfo(device, skip_link_detection=True)
    item.vid, item.pid, item.product, item.location = vid, pid, product, location
    return item


def test_the_surest_come_first_and_plain_serial_ports_are_left_alone() -> None:
    ports = [
        port("/dev/ttyS0"),
        port("/dev/ttyUSB0", 0x10C4, 0xEA60, "CP2102"),
        port("/dev/rfcomm0"),
        port("/dev/ttyACM2", 0x0483, 0x5740, "YK003C Shizuku"),
        port("/dev/ttyACM0", 0x1915, 0xC00A, "PPK2", "1-1:1.1"),
        port("/dev/ttyACM1", 0x1915, 0xC00A, "PPK2", "1-1:1.3"),
    ]
    assert [(c.port, c.kinds) for c in candidates(ports)] == [
        ("/dev/ttyACM0", ("ppk2",)),
        ("/dev/ttyACM2", ("avhzy",)),
        ("/dev/rfcomm0", ("um25c", "atorch")),
        ("/dev/ttyUSB0", (LISTEN, "tc66c")),
    ]


@pytest.mark.parametrize(("kind", "tries"), [("csv", (LISTEN, "tc66c")), ("um34c", ("um25c", "atorch"))])
def test_the_meter_that_answers_is_opened(kind: str, tries: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "LISTEN_S", 0.7)
    device = PtyMeter(MeterModel(StepSupply(), MeterSettings.at_rate(20)), WallClock(), kind)
    try:
        meter = try_candidate(Candidate(device.port, "", tries), WallClock(), [])
        assert meter is not None
        meter.close()
        assert meter.info.kind == kind
    finally:
        device.close()


def test_what_was_tried_is_said() -> None:
    tried: list[str] = []
    assert try_candidate(Candidate("/dev/edgelut-nothing", "", (LISTEN, "tc66c")), WallClock(), tried) is None
    assert tried[0] == "/dev/edgelut-nothing says nothing that is known."
    assert "does not exist" in tried[1]


def test_nothing_is_written_while_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "LISTEN_S", 0.3)
    master, slave = os.openpty()
    try:
        assert heard_kind(os.ttyname(slave)) == ""
        os.set_blocking(master, False)
        with pytest.raises(BlockingIOError):
            os.read(master, 10)
    finally:
        os.close(master)
        os.close(slave)


def test_a_search_has_no_decoder() -> None:
    with pytest.raises(BadInputError, match="no decoder"):
        decoder("auto")
