"""Finds the meter that is connected to this machine.

Configuration to paste::

    edgelut-agent run --meter auto

Ports are tried in this order: meters that their USB identity names; Bluetooth ports (bound with rfcomm), as UM25C,
then ATORCH; other USB ports, which are first listened to (SmartPower, csv, ATORCH and others speak by themselves) and
then asked as a TC66C; sensors that the kernel knows. A port that another program holds is left alone. Name the meter
when several are connected.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from agent.meters import Clock, Meter, identify
from agent.meters import decoder as decoder_for
from agent.meters import open_meter as open_any
from agent.meters.errors import OtherMeterError
from agent.meters.ports import PORT_ERRORS, open_port
from agent.meters.spec import MeterSpec
from protos.errors import BadInputError

AVHZY_ID = (0x0483, 0xFFFE)
AVHZY_NAMES = re.compile("korona|yk003c|shizuku", re.IGNORECASE)
PPK2_ID = (0x1915, 0xC00A)
LISTEN = "listen"  # stands for the kinds that speak by themselves
LISTEN_S = 2.5
LISTEN_BAUD = 115200
_TALKERS = ("smartpower2", "csv")  # recognised by several lines in a row, as their form is common


@dataclass(frozen=True)
class Candidate:
    """A port where a meter may be, what the system calls it, and the kinds to try there in order."""

    port: str
    what: str
    kinds: tuple[str, ...]


def candidates(ports: Iterable[ListPortInfo]) -> list[Candidate]:
    """Where to look, the surest first. A PPK2's second port carries no data and is left out."""
    ranked: list[tuple[int, Candidate]] = []
    for item in ports:
        words = " ".join(filter(None, (item.manufacturer, item.product, item.description)))
        identity = (item.vid, item.pid)
        if identity == AVHZY_ID or AVHZY_NAMES.search(words):
            ranked.append((0, Candidate(item.device, words, ("avhzy",))))
        elif identity == PPK2_ID:
            if not (item.location or "1").endswith(("3", "4")):
                ranked.append((0, Candidate(item.device, words, ("ppk2",))))
        elif "rfcomm" in item.device:
            ranked.append((1, Candidate(item.device, words, ("um25c", "atorch"))))
        elif item.vid is not None:
            ranked.append((2, Candidate(item.device, words, (LISTEN, "tc66c"))))
    return [candidate for _, candidate in sorted(ranked, key=lambda pair: (pair[0], pair[1].port))]


def open_meter(spec: MeterSpec, clock: Clock) -> Meter:
    """The first candidate that answers; BadInputError says what was tried."""
    spec.only()
    tried: list[str] = []
    for candidate in candidates(list_ports.comports()):
        meter = try_candidate(candidate, clock, tried)
        if meter is not None:
            return meter
    try:
        return open_any("hwmon", clock)
    except BadInputError as error:
        tried.append(str(error))
    raise BadInputError("no meter was found. Tried: " + " ".join(tried) + " Name it with --meter KIND:PORT.")


def try_candidate(candidate: Candidate, clock: Clock, tried: list[str]) -> Meter | None:
    """Open the meter at a port by the kinds that it may be; what did not work is added to `tried`."""
    for kind in candidate.kinds:
        name = heard_kind(candidate.port) if kind == LISTEN else kind
        if not name:
            tried.append(f"{candidate.port} says nothing that is known.")
            continue
        try:
            return open_any(f"{name}:{candidate.port}", clock)
        except OtherMeterError as error:
            return open_any(f"{error.kind}:{candidate.port}", clock)
        except BadInputError as error:
            tried.append(str(error))
    return None


def heard_kind(port: str) -> str:
    """The kind that speaks on a port by itself; empty when none does. Nothing is written to the port."""
    data = b""
    try:
        with open_port(port, LISTEN_BAUD, "meter auto") as line:
            deadline = time.monotonic() + LISTEN_S
            while time.monotonic() < deadline:
                data += line.read(4096)
    except (BadInputError, *PORT_ERRORS):
        return ""
    talkers = (kind for kind in _TALKERS if len(decoder_for(kind).feed(data)) > 1)
    return identify(data) or next(talkers, "")


def decoder(kind: str, options: Mapping[str, str]) -> NoReturn:  # noqa: ARG001 - it never has one
    raise BadInputError(f"{kind} is no kind of meter but a search for one: it has no decoder.")
