"""The one way to sample a meter on a serial port, polled or streaming; a driver says how its kind differs."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import serial

from agent.meters.base import Clock, Decoder, Reading
from agent.meters.counters import EnergyCheck
from agent.meters.errors import OtherMeterError
from agent.meters.ports import PORT_ERRORS, READ_S, is_pseudo_terminal, open_port
from agent.meters.sampling import DeviceTime, Freshness, Limits, SampleBuffer, SamplingMeter, far_beyond
from agent.meters.spec import MeterSpec
from agent.meters.trouble import no_reading
from protos.errors import BadInputError
from protos.types import MeterInfo

QUIET_S = 0.2  # a reply that pauses for this long will not be completed
RETRY_S = 0.5  # between attempts to open a port that was lost
SLACK = 0.2  # share of the reading period by which a reader may come early
BATCH_S = 0.02  # of samples that carry the meter's own time; well within the 4 kB that a port holds
MOST_BYTES = 1 << 16  # heard at once; a line of a fast meter holds 4 kB and is filled again meanwhile
SLICE_S = 0.05  # of listening, in which a meter's clock and ours are compared
AHEAD_S = 0.02  # that a meter's clock may gain in a slice beyond half of it
CALM_SLICES = 2  # in step one after the other: a backlog may pause, too
CATCH_UP_S = 5.0  # a backlog that lasts longer is no backlog
SEEN_BYTES = 4096  # of what a port said while the meter did not answer, kept to find out who speaks there
SWITCHED_OFF_S = 5.0  # of requests without any answer: more than a bad link
SWITCHED_OFF = ": was it switched off, or is it out of reach?"


@dataclass(frozen=True)
class SerialDriver:
    """How one kind of meter is read.

    With `request` it is asked for each value, and the sample's time is the midpoint of request and reply; without, it
    speaks by itself after `start_commands`, and the sample's time is its own clock mapped to host time, or the arrival
    when it has none. `accept` says what is wrong with a first reading ("" when it is the right meter).
    """

    kind: str
    make_decoder: Callable[[], Decoder]
    baud: int
    rate_hz: float  # readings a second that the meter can take or gives
    update_s: float  # period of new values inside the meter
    limits: Limits
    request: bytes = b""
    reply_bytes: int = 1
    start_commands: tuple[bytes, ...] = ()
    stop_commands: tuple[bytes, ...] = ()
    first_reply_s: float = 10.0
    reply_s: float = 2.0
    other_kind: Callable[[Reading], str] = field(default=lambda _: "")


def open_serial(driver: SerialDriver, spec: MeterSpec, clock: Clock) -> SerialMeter:
    """Open the port of `spec`, wait for the meter's first reading, and leave it quiet.

    BadInputError: the port cannot be opened; nothing answers; something else answers.
    """
    port = open_port(spec.port, driver.baud, f"meter {spec}")
    try:
        link = _Link(port, driver, threading.Event())
        reading = link.first_reading()
        if reading is None:
            raise link.no_reading(f"meter {spec}")
        other = driver.other_kind(reading)
        if other:
            raise OtherMeterError(f"meter {spec}: a {reading.model} answers there; write {other}:{spec.port}.", other)
        beyond = far_beyond(reading, driver.limits)
        if beyond:
            raise BadInputError(f"meter {spec}: its first value is {beyond}: are the units or the columns right?")
    except PORT_ERRORS as error:
        port.close()
        raise BadInputError(
            f"meter {spec}: the link broke while the meter was asked for its first value: {error}."
        ) from error
    except BadInputError:
        port.close()
        raise
    info = MeterInfo(
        driver.kind,
        str(spec.port),
        reading.model or driver.kind,
        reading.serial,
        reading.firmware,
        min(driver.rate_hz, 1 / driver.update_s) if driver.update_s else driver.rate_hz,
        spec.flag("emulated", is_pseudo_terminal(spec.port)),
    )
    return SerialMeter(info, clock, driver, spec, link)


class _Link:
    """An open port and the decoder of what comes from it; waiting ends early when `stopping` is set."""

    def __init__(self, port: serial.Serial, driver: SerialDriver, stopping: threading.Event) -> None:
        self.port = port
        self.driver = driver
        self.stopping = stopping
        self.decoder = driver.make_decoder()
        self._is_socket = str(port.port).startswith("socket://")
        self._seen = bytearray()

    def first_reading(self) -> Reading | None:
        """The first good reading within `first_reply_s`; the meter may still stream, sleep, or connect slowly."""
        deadline = time.monotonic() + self.driver.first_reply_s
        self.begin()
        reading = None
        while reading is None and time.monotonic() < deadline and not self.stopping.is_set():
            # A request that is lost is repeated; a slow link answers the first one late.
            patience_s = min(self.driver.reply_s, deadline - time.monotonic())
            reading = self.ask(patience_s) if self.driver.request else self._hear(deadline)
        self.end()
        return reading

    def begin(self) -> None:
        """Start a stream (nothing to do for a meter that is asked)."""
        self.port.reset_input_buffer()
        self.decoder.reset()
        for command in self.driver.start_commands:
            self.port.write(command)

    def end(self) -> None:
        for command in self.driver.stop_commands:
            self.port.write(command)

    def ask(self, patience_s: float) -> Reading | None:
        """One request and its reading; None when no good reply comes in time. A broken reply is drained until quiet."""
        self.port.reset_input_buffer()
        self.decoder.reset()
        self.port.write(self.driver.request)
        deadline = time.monotonic() + patience_s
        heard = deadline
        came = 0
        while time.monotonic() < min(deadline, heard + QUIET_S) and not self.stopping.is_set():
            data = self._read(max(1, self.driver.reply_bytes - came))
            if data:
                came += len(data)
                heard = time.monotonic()
                readings = self.decoder.feed(data)
                if readings:
                    return readings[-1]
        return None

    def hear(self) -> list[Reading]:
        """What a streaming meter has said, after waiting for it a little."""
        data = self._read(1)
        if data and self._is_socket:  # it cannot say how much there is: take what comes without waiting
            self.port.timeout = 0
            try:
                data += self._read(MOST_BYTES)
            finally:
                self.port.timeout = READ_S
        while not self._is_socket and len(data) < MOST_BYTES and (waiting := self.port.in_waiting):
            data += self._read(waiting)
        return self.decoder.feed(data)

    def _hear(self, deadline: float) -> Reading | None:
        while time.monotonic() < deadline and not self.stopping.is_set():
            readings = self.hear()
            if readings:
                return readings[-1]
        return None

    def _read(self, size: int) -> bytes:
        data: bytes = self.port.read(size)
        if data and len(self._seen) < SEEN_BYTES:
            self._seen += data
        return data

    def no_reading(self, who: str) -> BadInputError:
        """Why there was no first reading, from the bytes that came instead."""
        driver = self.driver
        opened, rejected = f"{driver.baud} baud", self.decoder.rejected
        return no_reading(
            who, driver.kind, str(self.port.port), opened, driver.first_reply_s, bytes(self._seen), rejected
        )


class SerialMeter(SamplingMeter):
    """A meter on a serial port. A lost link is opened again until `stop`; what was missed is reported."""

    def __init__(self, info: MeterInfo, clock: Clock, driver: SerialDriver, spec: MeterSpec, link: _Link) -> None:
        slack_s = SLACK / driver.rate_hz
        super().__init__(info, clock, SampleBuffer(Freshness(driver.update_s, slack_s), driver.limits))
        self._driver = driver
        self._spec = spec
        self._link: _Link | None = link
        link.stopping = self._stopping
        self._reported: Counter[str] = Counter()
        self._energy = EnergyCheck()
        self._disagreed = False  # said once in a run
        self._last_device_s: float | None = None

    def _add(self, t_ns: int, reading: Reading) -> None:
        self.buffer.add(t_ns, reading)
        self._energy.add(t_ns, reading)
        if not self._disagreed and (words := self._energy.disagreement()):
            self._disagreed = True
            self.buffer.lose(words)

    def _run(self) -> None:
        self._energy, self._disagreed = EnergyCheck(), False
        lost_s = 0.0
        while not self._stopping.is_set():
            try:
                if self._link is None:
                    self._link = self._reopen()
                    if self._link is None:
                        self._stopping.wait(RETRY_S)
                        continue
                    self.buffer.lose(f"the link was lost for {time.monotonic() - lost_s:.1f} s")
                if self._driver.request:
                    self._poll(self._link)
                else:
                    self._listen(self._link)
            except PORT_ERRORS as error:
                lost_s = time.monotonic()
                self.buffer.lose(f"the link to {self._spec.port} broke: {error}")
                self._drop_link()

    def _poll(self, link: _Link) -> None:
        period_s = 1 / self._driver.rate_hz
        due = heard = time.monotonic()
        told = False
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + period_s, time.monotonic())
            asked_ns = self.clock.now_ns()
            reading = link.ask(self._driver.reply_s)
            answered_ns = self.clock.now_ns()
            if reading is None and self._stopping.is_set():
                return
            if reading is None:
                self.buffer.lose("no good reply to a request")
                if not told and time.monotonic() - heard > SWITCHED_OFF_S:
                    told = True
                    self.buffer.lose(f"the meter has not answered for {SWITCHED_OFF_S:g} s{SWITCHED_OFF}")
            else:
                heard, told = time.monotonic(), False
            if reading is not None and not self._refused(reading):
                self._add((asked_ns + answered_ns) // 2, reading)
            self._report(link)

    def _listen(self, link: _Link) -> None:
        device_time = DeviceTime()
        link.begin()
        self._catch_up(link)
        self._reported = link.decoder.rejected.copy()  # what was cut off by beginning is no loss
        heard = time.monotonic()
        silent = timed = False
        while not self._stopping.is_set():
            if timed:
                self._stopping.wait(BATCH_S)  # its own clock says when: fewer, larger reads cost less
            readings = link.hear()
            timed = self._take(readings, device_time)
            if readings:
                heard, silent = time.monotonic(), False
            elif not silent and time.monotonic() - heard > self._driver.reply_s:
                silent = True
                self.buffer.lose(f"the meter was silent for over {self._driver.reply_s:g} s{SWITCHED_OFF}")
                link.begin()  # it may have restarted and wait for the command
            self._report(link)
        if device_time.jumps:
            self.buffer.lose("the meter's clock jumped", device_time.jumps)
        link.end()

    def _catch_up(self, link: _Link) -> None:
        """Drop what piled up while nobody read: a meter that always speaks has said it long ago, and would now say it
        faster than it was measured.
        """
        if link.driver.start_commands:
            return
        deadline_s = time.monotonic() + CATCH_UP_S
        device_s = began_s = math.nan
        calm = 0
        while calm < CALM_SLICES and time.monotonic() < deadline_s and not self._stopping.is_set():
            newest_s = self._heard_until(link, time.monotonic() + SLICE_S)
            now_s = self.clock.now_ns() * 1e-9
            if newest_s is None:  # nothing waits, or it has no clock of its own
                return
            in_step = newest_s - device_s <= 1.5 * (now_s - began_s) + AHEAD_S
            calm = calm + 1 if in_step else 0
            device_s, began_s = newest_s, now_s

    def _heard_until(self, link: _Link, until_s: float) -> float | None:
        """The newest of the meter's own times that was heard until then, without a pause."""
        newest_s = None
        while time.monotonic() < until_s and not self._stopping.is_set():
            for reading in link.hear():
                newest_s = reading.device_time_s
        return newest_s

    def _take(self, readings: list[Reading], device_time: DeviceTime) -> bool:
        """Add what came together; whether it carries the meter's own time."""
        arrived_ns = self.clock.now_ns()
        for reading in readings:
            if reading.device_time_s is not None:
                device_time.observe(reading.device_time_s, arrived_ns)
        for reading in readings:
            device_s = reading.device_time_s
            if device_s is None:
                self._add(arrived_ns, reading)
            elif device_s == self._last_device_s:
                self.buffer.lose("sample that came twice")
            else:
                self._add(device_time.host_ns(device_s), reading)
            self._last_device_s = device_s
        return bool(readings) and readings[-1].device_time_s is not None

    def _refused(self, reading: Reading) -> bool:
        """Another meter answers (after a replug): its values are not taken."""
        wrong = bool(self._driver.other_kind(reading)) or reading.model not in ("", self._info.model)
        if wrong:
            self.buffer.lose(f"a {reading.model} answers instead of the {self._info.model}")
        return wrong

    def _report(self, link: _Link) -> None:
        rejected = link.decoder.rejected
        if rejected != self._reported:
            for reason, times in (rejected - self._reported).items():
                self.buffer.lose(reason, times)
            self._reported = rejected.copy()

    def _reopen(self) -> _Link | None:
        try:
            port = open_port(self._spec.port, self._driver.baud, f"meter {self._spec}")
        except BadInputError:
            return None
        self._reported = Counter()
        link = _Link(port, self._driver, self._stopping)
        try:
            return link if link.first_reading() is not None else self._close(link)
        except PORT_ERRORS:
            return self._close(link)

    @staticmethod
    def _close(link: _Link) -> None:
        with contextlib.suppress(*PORT_ERRORS):  # the device has gone; there is nothing to give back
            link.port.close()

    def _drop_link(self) -> None:
        if self._link is not None:
            self._close(self._link)
            self._link = None

    def _release(self) -> None:
        self._drop_link()
