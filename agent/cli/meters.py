"""`edgelut-agent meters`: what is plugged in."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from agent.calibration_store import CalibrationStore, MeterKey
from agent.cli.opened import MonotonicClock
from agent.meters import Meter, hwmon, open_meter, rapl
from agent.meters.discover import Candidate, candidates, heard_kind, try_candidate
from agent.meters.errors import OtherMeterError
from agent.meters.ports import PORT_ERRORS, open_port
from protos.errors import BadInputError
from protos.types import Calibration, MeterInfo

ASKED_FIRST_REPLY_S = 3.0  # of a port that was named: Bluetooth may need longer, and says so
# What a named port is asked as, after it was listened to; the first three are asked without starting a stream.
NAMED_KINDS = ("um25c", "tc66c", "avhzy", "ppk2")
PMIC_TOOL = Path("/dev/vcio")


@dataclass(frozen=True)
class Found:
    """A place where a meter may be: the meter, or why there is none."""

    port: str
    what: str  # as the system calls it
    spec: str = ""  # to paste
    info: MeterInfo | None = None
    calibration: Calibration | None = None
    reason: str = ""

    def document(self) -> dict[str, object]:
        info = None if self.info is None else asdict(replace(self.info, calibration=self.calibration))
        return {"port": self.port, "what": self.what, "spec": self.spec, "meter": info, "reason": self.reason}


def main(options: argparse.Namespace) -> int:
    """Exit status 0, also when nothing is found."""
    store = CalibrationStore(options.calibrations)
    found = [
        with_calibration(item, store)
        for item in (map(ask_named, options.ports) if options.ports else look(list_ports.comports()))
    ]
    if options.json:
        print(json.dumps([item.document() for item in found], indent=2))
    else:
        print(table(found))
    return 0


def look(ports: Iterable[ListPortInfo]) -> Iterator[Found]:
    """Everything that this machine has: serial ports, then what the kernel knows."""
    ports = list(ports)
    asked = candidates(ports)
    for candidate in asked:
        yield ask(candidate)
    for item in ports:
        if not any(candidate.port == item.device for candidate in asked):
            words = item.description if item.description != "n/a" else ""
            reason = f"not asked: it is not USB. If a meter is there: edgelut-agent meters {item.device}"
            if item.vid is not None:
                reason = "not asked: a meter's second port, which carries no data"
            yield Found(item.device, words, reason=reason)
    yield from _of_the_kernel()


def ask(candidate: Candidate) -> Found:
    """What answers at a port that the system lists."""
    blocked = _blocked(candidate.port)
    if blocked:
        return Found(candidate.port, candidate.what, reason=blocked)
    tried: list[str] = []
    try:
        meter = try_candidate(candidate, MonotonicClock(), tried)
    except BadInputError as error:
        return Found(candidate.port, candidate.what, reason=str(error))
    if meter is None:
        return Found(candidate.port, candidate.what, reason=" ".join(tried))
    return _described(meter, candidate.port, candidate.what)


def ask_named(port: str) -> Found:
    """What answers at a port that somebody names; every kind that can be asked is tried."""
    blocked = _blocked(port)
    if blocked:
        return Found(port, "", reason=blocked)
    kinds = [heard_kind(port), *NAMED_KINDS]
    for kind in filter(None, dict.fromkeys(kinds)):
        try:
            return _described(_open(kind, port), port, "")
        except OtherMeterError as error:
            try:
                return _described(_open(error.kind, port), port, "")
            except BadInputError:
                continue
        except BadInputError:
            continue
    return Found(port, "", reason=f"nothing that is known answers (tried: listening, {', '.join(NAMED_KINDS)})")


def _open(kind: str, port: str) -> Meter:
    patience = "" if kind in ("ppk2", "atorch") else f"?first_reply_s={ASKED_FIRST_REPLY_S:g}"
    return open_meter(f"{kind}:{port}{patience}", MonotonicClock())


def _blocked(port: str) -> str:
    """Why a port cannot be opened; empty when it can."""
    try:
        open_port(port, 115200, "").close()
    except BadInputError as error:
        return str(error).removeprefix(": ")
    except PORT_ERRORS as error:
        return f"{port} cannot be opened: {error}"
    return ""


def _described(meter: Meter, port: str, what: str) -> Found:
    info = meter.info
    meter.close()
    return Found(port, what, f"{info.kind}:{port}", info)


def _of_the_kernel() -> Iterator[Found]:
    """Sensors and counters that need no port."""
    sensors = {
        folder.joinpath("name").read_text().strip()
        for folder in hwmon.ROOT.glob("hwmon*")
        if (folder / "name").exists()
    }
    specs = [(f"hwmon:{name}", name) for name in hwmon.NAMES if name in sensors]
    specs += [(f"rapl:{path.joinpath('name').read_text().strip()}", "processor energy counter") for path in _domains()]
    if PMIC_TOOL.exists():
        specs.append(("pi5-pmic", "power chip of a Raspberry Pi 5"))
    for spec, what in specs:
        try:
            meter = open_meter(spec, MonotonicClock())
        except BadInputError as error:
            yield Found(spec, what, spec, reason=str(error))
        else:
            info = meter.info
            meter.close()
            yield Found(spec, what, spec, info)


def _domains() -> list[Path]:
    return [path for path in sorted(rapl.ROOT.glob("*rapl:*")) if (path / "name").exists()]


def with_calibration(item: Found, store: CalibrationStore) -> Found:
    if item.info is None:
        return item
    try:
        return replace(item, calibration=store.load(MeterKey.of(item.spec, item.info)))
    except BadInputError as error:
        print(f"edgelut-agent: {error}", file=sys.stderr)
        return item


def table(found: list[Found]) -> str:
    """For people: a block per place, those with a meter first."""
    lines = []
    for item in sorted(found, key=lambda item: item.info is None):
        if item.info is None:
            lines.append(f"–  {item.port}{f'  ({item.what})' if item.what else ''}\n     {item.reason}")
            continue
        info = item.info
        words = [f"{info.rate_hz:.4g} new values/s"]
        words += [f"no. {info.serial}"] if info.serial else []
        words += [f"firmware {info.firmware}"] if info.firmware else []
        words += ["emulated"] if info.emulated else []
        lines.append(f"✓  {info.model}  --meter {item.spec}\n     {', '.join(words)}; {_calibrated(item.calibration)}")
    if not any(item.info for item in found):
        lines.append(
            "No meter answers. Is it switched on and, over Bluetooth, bound (docs/meters.md)? A port that is not "
            "listed can be named: edgelut-agent meters PORT"
        )
    return "\n".join(lines)


def _calibrated(calibration: Calibration | None) -> str:
    if calibration is None:
        return "not calibrated"
    return f"calibrated ({calibration.id}): lag {calibration.lag_s:.3f} s, noise {calibration.noise_w * 1e3:.1f} mW"
