"""Meters that the Linux kernel knows: INA219, INA226, INA230, INA231, INA260 on I²C, and ChargerLAB KM002C and KM003C
over USB (`powerz`).

Configuration to paste (the chip's name, never the number of its folder, which changes at boot)::

    edgelut-agent run --meter hwmon:ina226
    edgelut-agent run --meter hwmon:powerz

Options: `rate_hz` (20). For the INA chips `shunt_resistor` (µΩ) in the same folder must be that of your board, and
`update_interval` says how often they have a new value. A read of a KM003C is a USB transaction; its current is signed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.meters.base import Clock, LineDecoder, Meter, Reading
from agent.meters.polled import PolledMeter
from agent.meters.sampling import Limits
from agent.meters.spec import MeterSpec
from protos.errors import BadInputError
from protos.types import MeterInfo

ROOT = Path("/sys/class/hwmon")
NAMES = ("ina219", "ina220", "ina226", "ina230", "ina231", "ina238", "ina260", "powerz")
_WHOLE = re.compile(r"-?[0-9]+")
_FILES = ("in0_input", "in1_input", "curr1_input", "power1_input")
DEFAULT_UPDATE_S = 0.002  # where the driver does not say


class HwmonDecoder(LineDecoder):
    """Lines `file value`, an empty line after each set; bus voltage is `in1_input`, with `powerz` `in0_input`. mV,
    mA, µW. A set in which one line is damaged is dropped.
    """

    encoding = "latin-1"

    def __init__(self, name: str = "ina226") -> None:
        super().__init__()
        self._bus = "in0_input" if name == "powerz" else "in1_input"
        self._values: dict[str, int] = {}

    def _line(self, line: str) -> Sequence[Reading] | str:
        if line.strip():
            name, _, text = line.partition(" ")
            if name not in _FILES or not _WHOLE.fullmatch(text):
                self._values = {}
                return "line that is no file and its value"
            value = int(text)
            ended = name not in self._values  # else the empty line after the set before was lost
            self._values = self._values | {name: value} if ended else {name: value}
            return () if ended else "set without its end"
        values, self._values = self._values, {}
        if not values:
            return ()
        if self._bus not in values or "curr1_input" not in values:
            return f"set without {self._bus} or curr1_input"
        voltage_v, current_a = values[self._bus] / 1e3, values["curr1_input"] / 1e3
        power_w = voltage_v * current_a
        chip_w = values.get("power1_input", power_w * 1e6) / 1e6
        if abs(abs(chip_w) - abs(power_w)) > 0.1 + 0.05 * abs(power_w):  # the chip's steps are coarse
            return "set whose V · I disagrees with W"
        return (Reading(voltage_v, current_a, power_w),)

    def reset(self) -> None:
        self._tail.clear()
        self._values.clear()


def find(name: str, root: Path = ROOT) -> Path:
    """The folder of the chip; BadInputError names what is there."""
    present: dict[str, Path] = {}
    for folder in sorted(root.glob("hwmon*")):
        label = folder / "name"
        if label.exists():
            present.setdefault(label.read_text().strip(), folder)
    wanted = [name] if name else [chip for chip in NAMES if chip in present]
    if not wanted or wanted[0] not in present:
        there = ", ".join(sorted(present)) or "none"
        raise BadInputError(
            f"meter hwmon:{name}: the kernel has no such sensor (there are: {there}). "
            "Load its driver or its device-tree overlay."
        )
    return present[wanted[0]]


def read_files(folder: Path) -> bytes:
    """One set as text for the decoder."""
    lines = [f"{name} {(folder / name).read_text().strip()}" for name in _FILES if (folder / name).exists()]
    return "\n".join([*lines, "", ""]).encode()


def decoder(kind: str, options: Mapping[str, str]) -> HwmonDecoder:
    MeterSpec(kind, "", options).only("name")
    return HwmonDecoder(options.get("name", "ina226"))


def open_meter(spec: MeterSpec, clock: Clock, root: Path = ROOT) -> Meter:
    spec.only("rate_hz")
    folder = find(spec.port, root)
    name = (folder / "name").read_text().strip()
    interval = folder / "update_interval"
    update_s = int(interval.read_text()) / 1e3 if interval.exists() else DEFAULT_UPDATE_S
    info = MeterInfo("hwmon", name, name, rate_hz=spec.number("rate_hz", 20.0, 0.1, 500.0))
    limits = Limits(26.0, 3.2) if name == "ina219" else Limits(36.0, 15.0)
    meter = PolledMeter(info, clock, HwmonDecoder(name), lambda: read_files(folder), update_s, limits)
    try:
        reading = meter.once()
    except OSError as error:
        raise BadInputError(f"meter {spec}: {folder} cannot be read: {error}.") from error
    if reading is None:
        raise BadInputError(f"meter {spec}: {folder} has no voltage and current that agree with each other.")
    return meter
