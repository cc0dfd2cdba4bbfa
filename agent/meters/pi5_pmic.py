"""The power chip of a Raspberry Pi 5: currents and voltages of its twelve board rails.

Configuration to paste (nothing to connect; the user must be in the group `video`)::

    edgelut-agent run --meter pi5-pmic

Options: `rate_hz` (10; each reading starts a process and loads the measured processor itself).

This is the power of the board's rails, *not* of its input: converter losses and everything on USB are missing, and
`current_a` is that of a single line at the input's voltage which would carry the same power. The meter is called
"board rails" wherever it appears. Never mix its tables with those of an input meter. Rails are paired by name, as
their numbers change between firmwares.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence

from agent.meters.base import Clock, LineDecoder, Meter, Reading
from agent.meters.polled import PolledMeter
from agent.meters.spec import MeterSpec
from protos.errors import BadInputError
from protos.types import MeterInfo

COMMAND = ("vcgencmd", "pmic_read_adc")
MODEL = "board rails"
INPUT_RAIL, LAST_RAIL = "EXT5V", "BATT"  # volts only
RAILS = 12
_LINE = re.compile(r"(\w+)_([AV]) +(?:current|volt)\(\d+\)=(-?\d+\.\d+)\2", re.ASCII)
_LAST_LINE = re.compile(rb"(?:^|\n) *BATT_V volt\(\d+\)=-?\d+\.\d+V\Z")


class PmicDecoder(LineDecoder):
    """The command's lines; a set ends with the battery's voltage (its unit ends that line) or an empty line. A set in
    which one line is damaged is dropped.
    """

    encoding = "latin-1"

    def __init__(self) -> None:
        super().__init__()
        self._volts: dict[str, float] = {}
        self._amps: dict[str, float] = {}

    def feed(self, data: bytes) -> list[Reading]:
        return super().feed(data + b"\n" if _LAST_LINE.search(self._tail + data) else data)

    def _line(self, line: str) -> Sequence[Reading] | str:
        line = line.strip(" ")
        match = _LINE.fullmatch(line)
        if line and match is None:
            self._clear()
            return "line of another form"
        if match is not None:
            column = self._amps if match[2] == "A" else self._volts
            if match[1] in column:  # the line that ended the set before was lost
                self.rejected["set without its end"] += 1
                self._clear()
            column[match[1]] = float(match[3])
        if match is None or match[1] == LAST_RAIL:
            return self._finish()
        return ()

    def _finish(self) -> Sequence[Reading] | str:
        volts, amps = self._volts, self._amps
        self._volts, self._amps = {}, {}
        if not volts and not amps:
            return ()
        paired = [rail for rail in amps if rail in volts]
        if len(paired) != RAILS or len(amps) != RAILS or set(volts) - set(amps) - {INPUT_RAIL, LAST_RAIL}:
            return f"set with {len(paired)} rails instead of {RAILS}"
        power_w = sum(volts[rail] * amps[rail] for rail in paired)
        voltage_v = volts.get(INPUT_RAIL, 0.0)
        if voltage_v <= 0:
            return "set without an input voltage"
        return (Reading(voltage_v, power_w / voltage_v, power_w, model=MODEL),)

    def _clear(self) -> None:
        self._volts.clear()
        self._amps.clear()

    def reset(self) -> None:
        self._tail.clear()
        self._clear()


def decoder(kind: str, options: Mapping[str, str]) -> PmicDecoder:
    MeterSpec(kind, "", options).only()
    return PmicDecoder()


def _read() -> bytes:
    try:
        return subprocess.run(COMMAND, capture_output=True, check=True, timeout=2).stdout + b"\n"
    except subprocess.SubprocessError as error:
        raise OSError(f"vcgencmd failed: {error}") from error


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    spec.only("rate_hz")
    info = MeterInfo("pi5-pmic", "", MODEL, rate_hz=spec.number("rate_hz", 10.0, 0.1, 20.0))
    meter = PolledMeter(info, clock, PmicDecoder(), _read, 0.0)
    try:
        reading = meter.once()
    except OSError as error:
        raise BadInputError(
            f"meter {spec}: `{' '.join(COMMAND)}` cannot be run ({error}). It needs a Raspberry Pi 5 and the "
            "group video (`sudo usermod -aG video $USER`)."
        ) from error
    if reading is None:
        raise BadInputError(f"meter {spec}: the power chip does not name {RAILS} rails; only a Raspberry Pi 5 does.")
    return meter
