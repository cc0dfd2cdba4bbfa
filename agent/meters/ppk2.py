"""Nordic Power Profiler Kit II: 100,000 samples a second, up to 1 A (a Pi Zero; a Pi 4 or 5 needs more).

Configuration to paste (the board's voltage must be given: the kit measures current alone)::

    edgelut-agent run --meter "ppk2:/dev/serial/by-id/usb-Nordic_Semiconductor_PPK2_...-if01?mode=ampere&vdd_mv=5000"
    edgelut-agent run --meter "ppk2:/dev/ttyACM0?mode=source&vdd_mv=5000"

Options: `mode` (ampere: the kit stands in another supply's line; source: it supplies the board, which is switched on
and stays so), `vdd_mv` (5000), `rate_hz` (100: means over 1000 samples each; up to 10000).

Sample: u32 with 14 bits of ADC, 3 of range, 6 of counter, 8 of logic inputs; calibration comes as text (`Key: value`
until END). Nordic's software replaces three samples after each change of range by a rolling mean; so does this
(IRNAS/ppk2-api-python, pc-nrfconnect-ppk). The decoder apart from a port (`ppk2?block=1`: means over so many samples)
takes that text at the beginning of its stream, and the text's VDD where `vdd_mv` is not given.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping

import serial

from agent.meters.base import Clock, Meter
from agent.meters.ports import PORT_ERRORS, is_pseudo_terminal, open_port
from agent.meters.ppk2_samples import SAMPLE_HZ, VDD_MV, VDD_RANGE_MV, Calibration, Ppk2Decoder
from agent.meters.sampling import DeviceTime, Freshness, Limits, SampleBuffer, SamplingMeter
from agent.meters.spec import MeterSpec
from protos.errors import BadInputError
from protos.types import MeterInfo

METADATA, AMPERE, SOURCE, START, STOP = b"\x19", b"\x11\x01", b"\x11\x02", b"\x06", b"\x07"
POWER_ON = b"\x0c\x01"
REGULATOR = b"\x0d"  # and the voltage in mV, big-endian
SOURCE_MV, AMPERE_MV = 5000, VDD_RANGE_MV[1]  # most that the kit supplies, and bears
SILENT_S = 1.0
RETRY_S = 0.5
BATCH_S = 0.004  # 1.6 kB: the port must not overflow
Kit = tuple[serial.Serial, Calibration]


def decoder(kind: str, options: Mapping[str, str]) -> Ppk2Decoder:
    spec = MeterSpec(kind, "", options)
    spec.only("block", "vdd_mv")
    vdd_mv = spec.number("vdd_mv", VDD_MV, *VDD_RANGE_MV) if "vdd_mv" in options else None
    return Ppk2Decoder(None, vdd_mv, round(spec.number("block", 1, 1, 1e6)))


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    spec.only("mode", "vdd_mv", "rate_hz", "emulated")
    mode = spec.options.get("mode", "ampere")
    if mode not in ("ampere", "source"):
        raise BadInputError(f"meter {spec}: mode={mode} must be ampere or source.")
    vdd_mv = round(spec.number("vdd_mv", 5000.0, 800.0, SOURCE_MV if mode == "source" else AMPERE_MV))
    rate_hz = spec.number("rate_hz", 100.0, 1.0, 10_000.0)

    def connect() -> Kit:
        return _connect(spec, mode, vdd_mv)

    port, calibration = connect()
    emulated = spec.flag("emulated", is_pseudo_terminal(spec.port))
    info = MeterInfo("ppk2", spec.port, "PPK2", firmware=calibration.hardware, rate_hz=rate_hz, emulated=emulated)
    return Ppk2Meter(info, clock, connect, port, Ppk2Decoder(calibration, vdd_mv, round(SAMPLE_HZ / rate_hz)))


def _connect(spec: MeterSpec, mode: str, vdd_mv: int) -> Kit:
    """Open the port, read the calibration, set mode and voltage (and the board's power); BadInputError says what
    failed.
    """
    port = open_port(spec.port, 115200, f"meter {spec}")
    try:
        calibration = read_calibration(port)
        if calibration is None:
            raise BadInputError(f"meter {spec}: no calibration text came. Is this the kit's data port (…-if01)?")
        port.write(AMPERE if mode == "ampere" else SOURCE)
        port.write(REGULATOR + min(vdd_mv, SOURCE_MV).to_bytes(2, "big"))
        if mode == "source":
            port.write(POWER_ON)
    except PORT_ERRORS as error:
        port.close()
        raise BadInputError(f"meter {spec}: the link broke while the kit was set up: {error}.") from error
    except BadInputError:
        port.close()
        raise
    return port, calibration


def read_calibration(port: serial.Serial, patience_s: float = 5.0) -> Calibration | None:
    """Stop the stream, drain what is left of it, and ask for the calibration, which comes in pieces; None: it did
    not.
    """
    port.write(STOP)
    deadline = time.monotonic() + patience_s
    while port.read(4096) and time.monotonic() < deadline:
        continue
    port.write(METADATA)
    text = b""
    while time.monotonic() < deadline:
        text += port.read(4096)
        if b"END" in text:
            return Calibration.parse(text.decode("ascii", "replace"))
    return None


class Ppk2Meter(SamplingMeter):
    """Reads the stream in blocks; a lost link is opened and set up again until `stop`."""

    def __init__(
        self, info: MeterInfo, clock: Clock, connect: Callable[[], Kit], port: serial.Serial, decoder: Ppk2Decoder
    ) -> None:
        super().__init__(info, clock, SampleBuffer(Freshness(0.0, 0.0), Limits(5.5, 1.0)))
        self._connect = connect
        self._port: serial.Serial | None = port
        self._decoder = decoder

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._port is None:
                    self._port, self._decoder.calibration = self._connect()
                    self.buffer.lose("the link was lost and is there again")
                self._listen(self._port)
            except PORT_ERRORS as error:
                self.buffer.lose(f"the link to {self._info.port} broke: {error}")
                self._release()
            except BadInputError:  # not there yet
                self._stopping.wait(RETRY_S)

    def _listen(self, port: serial.Serial) -> None:
        mapping = DeviceTime()
        port.reset_input_buffer()
        self._decoder.reset()
        port.write(START)
        heard = time.monotonic()
        while not self._stopping.wait(BATCH_S):
            data = port.read(4)
            data += port.read(port.in_waiting)
            arrived_ns = self.clock.now_ns()
            readings = self._decoder.feed(data)
            for reading in readings:
                mapping.observe(reading.device_time_s or 0.0, arrived_ns)
            for reading in readings:
                self.buffer.add(mapping.host_ns(reading.device_time_s or 0.0), reading)
            if data:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENT_S:
                heard = time.monotonic()
                self.buffer.lose(f"the meter was silent for over {SILENT_S:g} s")
            rejected, self._decoder.rejected = self._decoder.rejected, Counter()
            for reason, times in rejected.items():
                self.buffer.lose(reason, times)
        port.write(STOP)

    def _release(self) -> None:
        if self._port is not None:
            with contextlib.suppress(*PORT_ERRORS):  # the kit has gone
                self._port.close()
            self._port = None
