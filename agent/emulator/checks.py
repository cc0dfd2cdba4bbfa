"""Which settings an emulated meter can have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from agent.emulator.cpu import process_time_ns
from agent.emulator.model import MeterSettings
from agent.emulator.pty_meter import Faults
from protos.errors import BadInputError

RATE_RANGE_HZ = (0.1, 1000.0)
PID_MAX = 1 << 22  # of Linux
_ANY = (-math.inf, math.inf)
_NOT_NEGATIVE = (0.0, 1e6)
_RANGES = {
    "rate_hz": RATE_RANGE_HZ,
    "update_s": (1e-3, 3600.0),
    "step_s": (1e-5, 3600.0),
    "offset_a": (-100.0, 100.0),
    "temp_c": (0.0, 200.0),
    "seed": _ANY,
    **dict.fromkeys(("garbage", "lost_byte", "flipped_bit", "half_frame", "doubled", "silence"), (0.0, 1.0)),
}  # all others are not negative


def check_numbers(values: Mapping[str, float], what: str) -> None:
    """BadInputError for the first value that its setting cannot have; `what` begins the sentence."""
    for name, value in values.items():
        low, high = _RANGES.get(name, _NOT_NEGATIVE)
        if not low <= value <= high:
            raise BadInputError(f"{what}: {name}={value:g} is not a number from {low:g} to {high:g}.")


def check_settings(settings: MeterSettings, faults: Faults, what: str) -> None:
    """BadInputError for settings that no emulated meter can have."""
    check_numbers({**dataclasses.asdict(settings), **dataclasses.asdict(faults)}, what)


def check_process(pid: int, what: str) -> None:
    """BadInputError when there is no process to follow; 0 is none, on purpose."""
    if pid and not (0 < pid < PID_MAX and process_time_ns(pid) is not None):
        raise BadInputError(f"{what}: there is no process {pid} to follow; 0 follows none.")
