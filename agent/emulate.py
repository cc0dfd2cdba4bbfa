"""Emulated boards in one process, each a device like any other: own session, own spool, own meter."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from agent.daemon import Agent, Identity
from agent.emulator.device import EmulatedDevice
from agent.emulator.device_types import device_types
from agent.emulator.meter import InMemoryMeter, MeterModel, MeterSettings, PtyMeter
from agent.emulator.runner import EmulatedRunner, ScaledClock
from agent.metering import EMULATED, NONE, Meters
from agent.meters import Clock, Meter
from agent.spool import Spool
from protos.errors import BadInputError, unknown

METER_KIND = "um25c"
POLL_SHARE = 1.25  # polls for each new value, as the driver does by itself
# A faster board's meter would be polled more often than a serial line allows, and every line needs descriptors and a
# thread of this process: beyond these the meters are in memory, without a port.
PTY_MAX_SPEED = 20.0
PTY_MAX_BOARDS = 64


def check(options: argparse.Namespace) -> None:
    """Raises BadInputError for options that no emulation can have."""
    if options.device_type not in device_types():
        raise unknown("device type", options.device_type, device_types())
    if options.meter not in (EMULATED, NONE):
        raise BadInputError(f"--meter is {options.meter!r}; an emulated device has an emulated meter or none")
    if options.count < 1 or options.seed < 0:
        raise BadInputError("--count must be at least 1, and --seed not negative")
    if not (math.isfinite(options.speed) and options.speed > 0):
        raise BadInputError(f"--speed is {options.speed}; it must be above 0")


@contextlib.asynccontextmanager
async def emulated_agent(name: str, number: int, options: argparse.Namespace, state_dir: Path) -> AsyncIterator[Agent]:
    """The board with this number, its seed, under the options of `edgelut-agent emulate`."""
    device, clock = EmulatedDevice(options.device_type, options.seed + number), ScaledClock(options.speed)
    async with contextlib.AsyncExitStack() as stack:
        meters = Meters(NONE, clock)
        if options.meter == EMULATED:
            model = MeterModel(device.supply, MeterSettings(seed=options.seed + number))
            on_ports = options.speed <= PTY_MAX_SPEED and options.count <= PTY_MAX_BOARDS
            meters = _on_pty(model, clock, stack) if on_ports else _in_memory(model, clock)
        spool = Spool(state_dir / name)
        stack.callback(spool.close)
        identity = Identity(name, options.device_type, emulated=True)
        yield Agent(identity, EmulatedRunner(device, clock), meters, spool, options.coordinator)


def _on_pty(model: MeterModel, clock: ScaledClock, stack: contextlib.AsyncExitStack) -> Meters:
    """A meter that is opened and read like any other."""
    pty = PtyMeter(model, clock, METER_KIND)
    stack.push_async_callback(asyncio.to_thread, pty.close)
    update_s = model.settings.update_s
    rate_hz = POLL_SHARE * clock.speed / update_s  # of wall time, in which the line is polled
    return Meters(f"{METER_KIND}:{pty.port}?rate_hz={rate_hz:g}&update_s={update_s:g}", clock)


def _in_memory(model: MeterModel, clock: ScaledClock) -> Meters:
    def opened(_spec: str, clock: Clock) -> Meter:
        return InMemoryMeter(model, clock, kind=METER_KIND)

    return Meters(f"{METER_KIND}:memory", clock, opener=opened)


async def serve(agents: Sequence[Agent]) -> None:
    """Run all until each has stopped; the first failure ends all."""
    async with asyncio.TaskGroup() as group:
        for agent in agents:
            group.create_task(agent.run())
