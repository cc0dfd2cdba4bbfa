"""The UM25C through real pseudo-terminals, with the faults of real links."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial
from serial.rfc2217 import PortManager

from agent.emulator.meter import Faults, MeterModel, MeterSettings, PtyMeter
from agent.meters import Meter, open_meter
from protos.errors import BadInputError
from protos.types import MeterSamples
from tests.agent.meters.helpers import StepSupply, WallClock, wait_for

QUIET = MeterSettings.at_rate(50, noise_a=0.002, noise_v=0.001)


def emulated(faults: Faults | None = None, kind: str = "um25c", link: Path | None = None) -> PtyMeter:
    return PtyMeter(MeterModel(StepSupply(), QUIET), WallClock(), kind, faults, link)


@pytest.fixture
def device() -> Iterator[PtyMeter]:
    meter = emulated()
    yield meter
    meter.close()


def collect(meter: Meter, count: int) -> tuple[MeterSamples, list[str]]:
    """At least `count` samples, and every loss that was reported meanwhile."""
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
        meter.stop()
    samples, lost = meter.take()
    parts.append(samples)
    columns = ("t_ns", "voltage_v", "current_a", "power_w", "fresh")
    joined = {name: tuple(x for part in parts for x in getattr(part, name)) for name in columns}
    return MeterSamples(**joined), losses + list(lost)


def test_samples_carry_the_truth_and_host_time(device: PtyMeter) -> None:
    clock = WallClock()
    before_ns = clock.now_ns()
    meter = open_meter(f"um25c:{device.port}?rate_hz=50", clock)
    try:
        samples, losses = collect(meter, 20)
        assert (meter.info.kind, meter.info.model, meter.info.emulated) == ("um25c", "UM25C", True)
    finally:
        meter.close()
    assert losses == []
    assert before_ns < samples.t_ns[0] <= samples.t_ns[-1] < clock.now_ns()
    assert sum(samples.current_a) / len(samples.current_a) == pytest.approx(0.24, abs=0.005)
    assert samples.voltage_v[0] == pytest.approx(5.076, abs=0.01)
    assert any(samples.fresh)


def test_the_meter_is_quiet_unless_started(device: PtyMeter) -> None:
    meter = open_meter(f"um25c:{device.port}?rate_hz=50", WallClock())
    try:
        assert meter.take()[0].t_ns == ()
        collect(meter, 3)
        assert threading.active_count() <= 3  # this thread, the emulated meter's, pytest-timeout's perhaps
        assert meter.take()[0].t_ns == ()
    finally:
        meter.close()


def test_bad_links_cost_samples_but_no_wrong_one_comes_through() -> None:
    faults = Faults(garbage=0.15, lost_byte=0.1, flipped_bit=0.1, half_frame=0.05, doubled=0.1, seed=3)
    device = emulated(faults)
    try:
        meter = open_meter(f"um25c:{device.port}?rate_hz=50", WallClock())
        try:
            samples, losses = collect(meter, 30)
        finally:
            meter.close()
    finally:
        device.close()
    assert losses
    assert all(0.2 < a < 0.28 for a in samples.current_a)
    assert all(5.0 < v < 5.15 for v in samples.voltage_v)


def test_unplugged_and_plugged_in_again(tmp_path: Path) -> None:
    device = emulated(link=tmp_path / "edgelut-meter")
    try:
        meter = open_meter(f"um25c:{device.port}?rate_hz=50", WallClock())
        try:
            collect(meter, 3)
            meter.start()
            device.unplug()
            broken: list[str] = []
            wait_for(lambda: bool(broken.extend(meter.take()[1]) or broken))
            device.plug()
            samples, losses = collect(meter, 3)
        finally:
            meter.close()
    finally:
        device.close()
    assert any("broke" in text for text in broken)
    assert any("the link was lost for" in text for text in [*broken, *losses])
    assert len(samples.t_ns) >= 3


def test_a_slow_first_reply_is_waited_for() -> None:
    device = emulated(Faults(first_reply_s=1.5))
    try:
        open_meter(f"um25c:{device.port}", WallClock()).close()
    finally:
        device.close()


def test_another_model_is_named(device: PtyMeter) -> None:
    with pytest.raises(BadInputError, match=f"a UM25C answers there; write um25c:{device.port}"):
        open_meter(f"um34c:{device.port}", WallClock())


def test_a_second_opener_gets_a_sentence(device: PtyMeter) -> None:
    meter = open_meter(f"um25c:{device.port}", WallClock())
    try:
        with pytest.raises(BadInputError, match="is in use by this very process"):
            open_meter(f"um25c:{device.port}", WallClock())
    finally:
        meter.close()
    open_meter(f"um25c:{device.port}", WallClock()).close()


def test_nobody_answers() -> None:
    master, slave = os.openpty()
    try:
        with pytest.raises(BadInputError, match=r"no answer within 0\.3 s"):
            open_meter(f"um25c:{os.ttyname(slave)}?first_reply_s=0.3", WallClock())
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("um25c:/dev/edgelut-nothing", "does not exist"),
        ("um25c:/dev/null", "is no serial port"),
        ("um25c:", "the port is missing"),
        ("um25:/dev/null", "Nearest: um25c"),
        ("um25c:nonsense://x", "cannot be opened"),
    ],
)
def test_what_cannot_be_opened_says_why(spec: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        open_meter(spec, WallClock())


def test_a_meter_on_another_host(device: PtyMeter) -> None:
    """A serial server: a socket in front of the port."""
    server = socket.create_server(("127.0.0.1", 0))
    fd = os.open(device.port, os.O_RDWR | os.O_NOCTTY)

    def pump(source: int, sink: int) -> None:
        with contextlib.suppress(OSError):  # the terminal goes away at the end of the test
            while data := os.read(source, 4096):
                os.write(sink, data)

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            threading.Thread(target=pump, args=(fd, connection.fileno()), daemon=True).start()
            pump(connection.fileno(), fd)

    threading.Thread(target=serve, daemon=True).start()
    meter = open_meter(f"um25c:socket://127.0.0.1:{server.getsockname()[1]}?rate_hz=50", WallClock())
    try:
        samples, _ = collect(meter, 5)
    finally:
        meter.close()
        server.close()
    assert samples.current_a[0] == pytest.approx(0.24, abs=0.03)
    assert not meter.info.emulated  # nothing says so through a socket; `emulated=yes` in the spec would


class PtySerial(serial.Serial):
    """A pseudo-terminal has no modem lines; its server takes what the client says about them and does nothing."""

    def _update_dtr_state(self) -> None: ...

    def _update_rts_state(self) -> None: ...


class PtyManager(PortManager):
    def check_modem_lines(self, force_notification: bool = False) -> None: ...


def test_a_meter_behind_rfc2217(device: PtyMeter) -> None:
    """As `ser2net` offers it: the port's settings travel with the data."""
    server = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        with PtySerial(device.port, timeout=0.02) as port, server.accept()[0] as connection:
            link = connection.makefile("rwb", buffering=0)
            manager = PtyManager(port, link)
            connection.settimeout(0.02)
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    data = connection.recv(1024)
                    if not data:
                        return
                    port.write(b"".join(manager.filter(data)))
                data = port.read(port.in_waiting or 1)
                if data:
                    connection.sendall(b"".join(manager.escape(data)))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        meter = open_meter(f"um25c:rfc2217://127.0.0.1:{server.getsockname()[1]}?rate_hz=20", WallClock())
        try:
            samples, _ = collect(meter, 3)
        finally:
            meter.close()
    finally:
        ended.set()
        thread.join()
        server.close()
    assert samples.current_a[0] == pytest.approx(0.24, abs=0.03)
