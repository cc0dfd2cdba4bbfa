"""A meter that always speaks, on a line that nobody read for a while."""

from __future__ import annotations

import os
import socket
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from agent.meters import Meter, open_meter
from agent.meters.sampling import DeviceTime
from tests.agent.meters.helpers import WallClock, wait_for

STEP_MS = 10
OLD_A, LIVE_A = 0.9, 0.2


class Speaker:
    """A csv meter: t_ms, volts, amperes; what it measured while nobody read it says later, all at once."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._origin_s = time.monotonic()
        self._n = 0
        self.held = False
        self.said = 0
        self.ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        waiting: list[bytes] = []
        while not self.ended:
            due = int((time.monotonic() - self._origin_s) * 1000) // STEP_MS
            while self._n < due:
                self._n += 1
                current_a = OLD_A if self.held else LIVE_A
                waiting.append(f"{self._n * STEP_MS},5.1,{current_a}\r\n".encode())
            while waiting and not self.held:
                self._write(waiting.pop(0))
                self.said += 1
            time.sleep(0.002)

    def end(self) -> None:
        self.ended = True
        self._thread.join()


@contextmanager
def on_a_terminal() -> Iterator[tuple[Speaker, str]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    speaker = Speaker(lambda data: os.write(master, data))
    try:
        yield speaker, os.ttyname(slave)
    finally:
        threading.Thread(target=os.read, args=(slave, 1 << 16), daemon=True).start()
        speaker.end()
        os.close(master)
        os.close(slave)


def current_of(meter: Meter) -> list[float]:
    found: list[float] = []
    meter.start()
    try:
        wait_for(lambda: found.extend(meter.take()[0].current_a) or len(found) >= 20)
    finally:
        meter.stop()
    return found


def test_what_piled_up_is_dropped() -> None:
    with on_a_terminal() as (speaker, port):
        meter = open_meter(f"csv:{port}?columns=t_ms,V,A", WallClock())
        try:
            assert set(current_of(meter)) == {LIVE_A}
            speaker.held = True
            time.sleep(3.0)  # 300 lines, more than a terminal holds
            speaker.held = False
            before = speaker.said
            meter.start()
            wait_for(lambda: speaker.said > before + 450)
            meter.stop()
            samples, _ = meter.take()
            assert samples.current_a.count(OLD_A) <= 10
            assert samples.current_a.count(LIVE_A) >= 20
        finally:
            meter.close()


def test_a_streaming_meter_behind_a_socket_is_heard_in_full() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        accepted: list[socket.socket] = []
        threading.Thread(target=lambda: accepted.append(server.accept()[0]), daemon=True).start()
        speaker = Speaker(lambda data: accepted[0].sendall(data) if accepted else None)
        meter = open_meter(f"csv:socket://127.0.0.1:{address[1]}?columns=t_ms,V,A", WallClock())
        try:
            meter.start()
            before = speaker.said
            wait_for(lambda: speaker.said > before + 300)
            time.sleep(0.2)
            meter.stop()
            samples, _ = meter.take()
            assert len(samples.t_ns) >= 200
        finally:
            speaker.end()
            meter.close()
            accepted[0].close()


def test_a_late_sample_is_late_and_no_new_clock() -> None:
    mapping = DeviceTime()
    for n in range(100):
        mapping.observe(n * 0.1, round((50 + n * 0.1) * 1e9))
    mapping.observe(10.0, round(65.0e9))  # five seconds late
    assert mapping.host_ns(10.0) == pytest.approx(60e9, abs=1e6)
    assert mapping.jumps == 0
    mapping.observe(0.5, round(66.0e9))  # the meter was switched on again
    assert mapping.jumps == 1
    assert mapping.host_ns(0.5) == pytest.approx(66e9, abs=1e6)
