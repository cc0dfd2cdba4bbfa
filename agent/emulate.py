"""Emulated boards in one process, each a device like any other: own session, own spool, own meter."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.daemon import Agent, Identity
from agent.emulator.checks import RATE_RANGE_HZ, check_settings
from agent.emulator.device import EmulatedDevice
from agent.emulator.device_types import device_types
from agent.emulator.meter import POLLED, RATE_HZ, RATES_HZ, Faults, InMemoryMeter, MeterModel, MeterSettings, PtyMeter
from agent.emulator.meters import protocols
from agent.emulator.runner import EmulatedRunner, ScaledClock
from agent.metering import EMULATED, NONE, Meters
from agent.meters import Clock, Meter
from agent.meters.spec import MeterSpec, parse_spec
from agent.options import check_name
from agent.spool import Spool
from protos.errors import BadInputError, unknown

METER_KIND = "um25c"
WITH_RATE = ("avhzy", "csv", "ppk2")  # drivers that are told the rate
POLL_SHARE = 1.25  # polls for each new value, as the driver does by itself
# A faster board's meter would be polled more often than a serial line allows, and every line needs descriptors and a
# thread of this process: beyond these the meters are in memory, without a port.
PTY_MAX_SPEED = 20.0
PTY_MAX_BOARDS = 64
PTY_MAX_SAMPLES_HZ = 200_000.0  # bytes of the PPK2's 100,000 samples a second are the most work


@dataclass(frozen=True)
class EmulatedMeterSpec:
    """`--meter` of an emulated board: a kind, how its meter falsifies the truth, and the faults of its link."""

    kind: str
    rate_hz: float
    settings: MeterSettings
    faults: Faults

    @classmethod
    def parse(cls, text: str, seed: int) -> EmulatedMeterSpec:
        """`emulated`, or KIND?setting=value&…: rate_hz, and any field of MeterSettings and Faults.

        Raises BadInputError that names an unknown kind or setting, or a value that the setting cannot have.
        """
        spec = parse_spec(text)
        kind = METER_KIND if spec.kind == EMULATED else spec.kind
        if kind not in protocols() or spec.port:
            raise unknown("emulated meter", text.partition("?")[0], (EMULATED, NONE, *protocols()))
        shaped, broken = _numbers(spec, MeterSettings), _numbers(spec, Faults)
        known = [field.name for kind_of in (MeterSettings, Faults) for field in dataclasses.fields(kind_of)]
        spec.only("rate_hz", *known)
        rate_hz = spec.number("rate_hz", RATES_HZ.get(kind, RATE_HZ), *RATE_RANGE_HZ)
        settings = MeterSettings() if rate_hz == RATE_HZ else MeterSettings.at_rate(rate_hz)
        settings = replace(settings, **{"seed": seed, **shaped})  # type: ignore[arg-type]  # as the fields say
        faults = replace(Faults(), **broken)  # type: ignore[arg-type]
        check_settings(settings, faults, f"meter {spec}")
        return cls(kind, rate_hz, settings, faults)

    @property
    def streaming(self) -> bool:
        return self.kind not in POLLED

    def fits_port(self, speed: float, boards: int) -> bool:
        """Whether its bytes can go over a pseudo-terminal."""
        slow_enough = self.kind != "ppk2" or 100_000.0 * speed <= PTY_MAX_SAMPLES_HZ
        return speed <= PTY_MAX_SPEED and boards <= PTY_MAX_BOARDS and slow_enough


def _numbers(spec: MeterSpec, of: type[MeterSettings] | type[Faults]) -> Mapping[str, float]:
    """The fields of a settings class that the spec names."""
    whole = {field.name for field in dataclasses.fields(of) if field.type == "int"}
    values = {
        field.name: spec.number(field.name, 0.0, -1e9, 1e9)
        for field in dataclasses.fields(of)
        if field.name in spec.options
    }
    return {name: int(value) if name in whole else value for name, value in values.items()}


def check(options: argparse.Namespace) -> None:
    """Raises BadInputError for options that no emulation can have."""
    if options.device_type not in device_types():
        raise unknown("device type", options.device_type, device_types())
    if options.count < 1 or options.seed < 0:
        raise BadInputError("--count must be at least 1, and --seed not negative")
    if options.count > 1 and (options.name or options.identity):
        raise BadInputError("--name and --identity are for one board; leave them away with --count")
    if options.name:
        check_name("--name", options.name)
    if not (math.isfinite(options.speed) and options.speed > 0):
        raise BadInputError(f"--speed is {options.speed}; it must be above 0")
    if options.meter == NONE:
        return
    meter = EmulatedMeterSpec.parse(options.meter, options.seed)
    if meter.faults != Faults(seed=meter.faults.seed) and not meter.fits_port(options.speed, options.count):
        raise BadInputError(
            f"--meter is {options.meter!r}: faults need a port, and a {meter.kind} has none at --speed "
            f"{options.speed:g}; take a lower one (at most {PTY_MAX_SPEED:g}, for ppk2 {PTY_MAX_SAMPLES_HZ / 1e5:g})"
        )


@contextlib.asynccontextmanager
async def emulated_agent(name: str, number: int, options: argparse.Namespace, state_dir: Path) -> AsyncIterator[Agent]:
    """The board with this number, its seed, under the options of `edgelut-agent emulate`."""
    device, clock = EmulatedDevice(options.device_type, options.seed + number), ScaledClock(options.speed)
    async with contextlib.AsyncExitStack() as stack:
        meters = Meters(NONE, clock)
        if options.meter != NONE:
            spec = EmulatedMeterSpec.parse(options.meter, options.seed + number)
            model = MeterModel(device.supply, spec.settings)
            if spec.fits_port(options.speed, options.count):
                meters = _on_pty(spec, model, clock, stack, state_dir / f"{name}-meter")
            else:
                meters = _in_memory(spec, model, clock)
        spool = Spool(state_dir / name)
        stack.callback(spool.close)
        identity = Identity(name, options.device_type, emulated=True, certificate=options.identity)
        yield Agent(identity, EmulatedRunner(device, clock), meters, spool, options.coordinator)


def _on_pty(
    spec: EmulatedMeterSpec, model: MeterModel, clock: ScaledClock, stack: contextlib.AsyncExitStack, link: Path
) -> Meters:
    """A meter that is opened and read like any other; the link leads to its port, also after a replug."""
    link.parent.mkdir(parents=True, exist_ok=True)
    pty = PtyMeter(model, clock, spec.kind, spec.faults, link)
    stack.push_async_callback(asyncio.to_thread, pty.close)
    options = "emulated=yes"
    if not spec.streaming:  # of wall time, in which the line is polled
        rate_hz, update_s = POLL_SHARE * clock.speed * spec.rate_hz, model.settings.update_s
        options += f"&rate_hz={min(rate_hz, 1000.0):g}&update_s={update_s:g}"
    elif spec.kind in WITH_RATE:
        options += f"&rate_hz={spec.rate_hz:g}"
    return Meters(f"{spec.kind}:{pty.port}?{options}", clock)


def _in_memory(spec: EmulatedMeterSpec, model: MeterModel, clock: ScaledClock) -> Meters:
    def opened(_spec: str, clock: Clock) -> Meter:
        return InMemoryMeter(model, clock, kind=spec.kind, streaming=spec.streaming)

    return Meters(f"{spec.kind}:memory", clock, opener=opened)


async def serve(agents: Sequence[Agent]) -> None:
    """Run all until each has stopped; the first failure ends all."""
    async with asyncio.TaskGroup() as group:
        for agent in agents:
            group.create_task(agent.run())
