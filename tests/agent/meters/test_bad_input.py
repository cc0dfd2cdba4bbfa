"""Each thing that people meet has its own sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from serial.tools.list_ports_common import ListPortInfo

from agent.emulator.meter import Faults, MeterModel, MeterSettings, PtyMeter
from agent.emulator.meters.um25c import encode
from agent.meters import Meter, Reading, decoder, kinds, open_meter
from agent.meters.ports import explain
from protos.errors import BadInputError
from tests.agent.meters.helpers import StepSupply, WallClock, wait_for


@contextmanager
def line_that_says(data: Callable[[], bytes]) -> Iterator[str]:
    """The path of a terminal on which `data` is said again and again, and after every request."""
    master, slave = os.openpty()
    ended = threading.Event()

    def speak() -> None:
        while not ended.wait(0.02):
            os.write(master, data())

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        ended.set()
        thread.join()
        os.close(master)
        os.close(slave)


@contextmanager
def emulated(
    kind: str, faults: Faults | None = None, rate_hz: float = 50.0, supply: StepSupply | None = None
) -> Iterator[PtyMeter]:
    model = MeterModel(supply or StepSupply(), MeterSettings.at_rate(rate_hz, noise_a=0.002))
    meter = PtyMeter(model, WallClock(), kind, faults)
    try:
        yield meter
    finally:
        meter.close()


def losses_until(meter: Meter, words: str) -> str:
    """The first loss that holds these words."""
    found: list[str] = []

    def said() -> bool:
        found.extend(text for text in meter.take()[1] if words in text)
        return bool(found)

    meter.start()
    try:
        wait_for(said)
    finally:
        meter.stop()
    return found[0]


def test_no_permission_names_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = tmp_path / "ttyUSB0"
    port.touch()
    port.chmod(0o600)
    alone = explain(str(port), PermissionError(errno.EACCES, "Permission denied"))
    assert f"only its owner may use it. Give it to the group dialout with `sudo chgrp dialout {port}" in alone
    assert "udev rule" in alone
    assert "its group" not in alone
    port.chmod(0o660)
    monkeypatch.setattr("agent.meters.ports.SHARED_GROUP_MIN", 0)
    group = explain(str(port), PermissionError(errno.EACCES, "Permission denied"))
    assert "no permission for" in group
    assert "sudo usermod -aG " in group
    assert "log in again" in group
    assert "usermod -aG dialout" in explain("/nowhere/ttyUSB0", PermissionError(errno.EACCES, "Permission denied"))


def test_a_busy_port_names_the_process() -> None:
    code = "import serial, sys; p = serial.Serial(sys.argv[1], exclusive=True); print('open', flush=True); input()"
    with emulated("um25c") as device:
        command = [sys.executable, "-c", code, device.port]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            with pytest.raises(BadInputError, match=rf"is in use by \S+ \(pid {other.pid}\)\. End it"):
                open_meter(f"um25c:{device.port}", WallClock())
            other.kill()


def test_another_kind_says_which_answered() -> None:
    with emulated("tc66c") as device, pytest.raises(BadInputError, match=r"no answer within 0\.5 s"):
        open_meter(f"um25c:{device.port}?first_reply_s=0.5", WallClock())  # it does not answer F0
    with emulated("csv") as device:
        match = r"another device answers there, with text that begins '.*'"
        with pytest.raises(BadInputError, match=match):
            open_meter(f"um25c:{device.port}?first_reply_s=0.5", WallClock())
    with emulated("avhzy") as device, pytest.raises(BadInputError, match="no answer within"):
        open_meter(f"csv:{device.port}?first_reply_s=0.5", WallClock())  # it streams only when it is told to
    with (
        line_that_says(lambda: encode(Reading(5.1, 0.3, 1.53, 27.0), 0x09C9)) as port,
        pytest.raises(BadInputError, match=f"a meter of kind um25c speaks there; write um25c:{port}"),
    ):
        open_meter(f"tc66c:{port}?first_reply_s=0.5", WallClock())


def test_a_silent_port_says_what_is_plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with emulated("avhzy") as device:
        item = ListPortInfo(os.path.realpath(device.port), skip_link_detection=True)
        item.vid, item.product = 0x1915, "PPK2"
        monkeypatch.setattr("agent.meters.ports.list_ports.comports", lambda: [item])
        with pytest.raises(BadInputError, match="The system calls what is plugged in there 'PPK2'"):
            open_meter(f"um25c:{device.port}?first_reply_s=0.5", WallClock())


@pytest.mark.parametrize("kind", ["smartpower3", "csv", "avhzy"])
def test_garbage_names_the_baud_rate(kind: str) -> None:
    noise = bytes((37 * k * k + 11 * k) & 0xFF for k in range(64))
    with (
        line_that_says(lambda: noise) as port,
        pytest.raises(BadInputError, match=r"bytes of garbage came .* another baud rate than the port's \(115200"),
    ):
        open_meter(f"{kind}:{port}?first_reply_s=0.5", WallClock())


def test_an_unknown_model_is_named_in_hexadecimal() -> None:
    frame = bytearray(encode(Reading(5.1, 0.3, 1.53, 27.0), 0x09C9))
    frame[:2] = b"\x0e\x11"
    with (
        line_that_says(lambda: bytes(frame)) as port,
        pytest.raises(BadInputError, match="unknown model number 0x0E11: this driver does not know it"),
    ):
        open_meter(f"um25c:{port}?first_reply_s=0.5", WallClock())


def test_power_that_disagrees_is_said() -> None:
    with line_that_says(lambda: b"5.100,0.742,9.784,0.012\r\n") as port:
        match = "something answers, but with line whose V · I disagrees with W: the units or columns are wrong"
        with pytest.raises(BadInputError, match=match):
            open_meter(f"smartpower2:{port}?first_reply_s=0.5", WallClock())


@pytest.mark.parametrize(
    ("columns", "line", "words"),
    [
        (
            "V,A",
            b"10,5.1,0.3\n",
            r"line with 3 columns instead of 2 \(V,A\): write the columns as the meter prints them",
        ),
        ("t_ms,V,A", b"time,mV,mA\n1,5100\n", "first: time,mV,mA"),
        ("t_ms,V,A", b"t_ms,mV,mA\n1,5100,742\n", "the header t_ms,mV,mA, which contradicts columns=t_ms,V,A"),
        ("t_ms,V,A", b'{"t": 1, "u": 5.1}\n', r"line without t_ms, V, A \(t_ms,V,A\)"),
        ("V,A", b"5.1,742\n", r"its first value is 742 A, far beyond the 3.2 A of this meter: are the units"),
        ("V,A", b"5100,0.7\n", r"its first value is 5100 V, far beyond the 36 V of this meter"),
    ],
)
def test_a_csv_whose_columns_do_not_match(columns: str, line: bytes, words: str) -> None:
    with line_that_says(lambda: line) as port, pytest.raises(BadInputError, match=words):
        open_meter(f"csv:{port}?columns={columns}&first_reply_s=0.5", WallClock())


def test_a_current_beyond_the_range_is_said() -> None:
    with emulated("csv", supply=StepSupply(idle_a=4.0)) as device:
        meter = open_meter(f"csv:{device.port}?max_current_a=3.2", WallClock())
        try:
            assert "the current was beyond the meter's range of 3.2 A" in losses_until(meter, "beyond")
        finally:
            meter.close()


def test_a_reversed_current_is_said() -> None:
    with line_that_says(lambda: b"5.1,-0.3\n") as port:
        meter = open_meter(f"csv:{port}?columns=V,A", WallClock())
        try:
            assert "the meter is wired the wrong way round" in losses_until(meter, "negative")
        finally:
            meter.close()


def test_a_meter_that_is_switched_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.meters.serial_meter.SWITCHED_OFF_S", 1.0)
    with emulated("um25c", Faults(silence=0.0)) as device:
        meter = open_meter(f"um25c:{device.port}?rate_hz=50", WallClock())
        device._faults = Faults(silence=1.0)
        try:
            assert "was it switched off, or is it out of reach?" in losses_until(meter, "has not answered for")
        finally:
            meter.close()
    with emulated("smartpower3") as device:
        meter = open_meter(f"smartpower3:{device.port}", WallClock())
        device._faults = Faults(silence=1.0)
        try:
            assert "was it switched off" in losses_until(meter, "silent for over 2 s")
        finally:
            meter.close()


def test_the_kinds_and_options_that_there_are_stand_in_the_sentence() -> None:
    with pytest.raises(BadInputError, match=r"There is no meter kind 'um26c'.*Nearest: um2"):
        open_meter("um26c:/dev/null", WallClock())
    with pytest.raises(BadInputError, match=r"there is no option 'colums'; this kind has:.*columns"):
        open_meter("csv:/dev/null?colums=V,A", WallClock())


@pytest.mark.parametrize("kind", sorted(set(kinds()) - {"auto"}))
def test_a_decoder_refuses_options_that_it_does_not_have(kind: str) -> None:
    with pytest.raises(BadInputError, match="there is no option 'colums'; this kind has: "):
        decoder(f"{kind}?colums=V,A")
