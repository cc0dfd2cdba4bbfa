"""`coordinator devices`: the boards that there are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coordinator.cli.options import CoordinatorOption, JsonOption, console, print_json
from coordinator.units import NOT_KNOWN, bytes_text, duration
from protos.types import Device

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {"idle": "green", "busy": "cyan", "broken": "red", "gone": "dim"}


def devices(coordinator: CoordinatorOption = "", as_json: JsonOption = False) -> None:
    """List the devices: their state, meter and host.

    [bold]Examples[/bold]

    coordinator devices

    coordinator devices --coordinator lab:7443 --json
    """
    from coordinator.cli.connect import connected

    with connected(coordinator) as link:
        known = link.client.devices()
    if as_json:
        print_json(known)
    elif known:
        console().print(table(known, time.time()))
    else:
        print("No device yet. On a board: edgelut-agent run --coordinator HOST:PORT --device-type TYPE")
        print("Without hardware:        edgelut-agent emulate --device-type rpi3b")


def table(known: Sequence[Device], now_s: float) -> Table:
    """One row per device; `now_s` is wall time."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("name", "type", "state", "meter", "model", "memory", "°C", "torch", "seen"):
        found.add_column(column, no_wrap=column != "model")
    for device in known:
        temperature = device.host.temp_c if device.host else None
        found.add_row(
            device.name,
            device.device_type + (" (emulated)" if device.emulation == "device" else ""),
            f"{device.state}: {device.reason}" if device.reason else device.state,
            _meter(device),
            device.facts.model or NOT_KNOWN,
            bytes_text(device.facts.memory_bytes or None),
            NOT_KNOWN if temperature is None else f"{temperature:.1f}",
            device.facts.torch_version or NOT_KNOWN,
            f"{duration(now_s - device.last_seen_s)} ago" if device.last_seen_s else NOT_KNOWN,
            style=STYLES.get(device.state, ""),
        )
    return found


def _meter(device: Device) -> str:
    if device.meter is None:
        return "none"
    model = device.meter.model or device.meter.kind
    return f"{model}, emulated" if device.meter.emulated else f"{model} {device.meter.port}"
