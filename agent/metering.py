"""Which meter a run is measured with: the agent's own, none, another, or an emulated one that follows the worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from agent.calibration_store import CalibrationStore, MeterKey
from agent.meters import Clock, Meter, open_meter
from agent.meters.emulated import EmulatedMeter
from agent.meters.spec import parse_spec
from agent.runner import UnfitError
from protos.errors import BadInputError
from protos.types import Calibration, MeterInfo, MeterSamples

log = logging.getLogger(__name__)

NONE, EMULATED = "none", "emulated"
EMULATED_RATE_HZ = 50.0  # unless its spec says another


@dataclass(frozen=True)
class Follow:
    """What an emulated meter needs: the process whose CPU time makes its current, and where to enter its own id."""

    worker_pid: Callable[[], int | None]
    own_pids: set[int]


class Meters:
    """Opens meters. `own` is the agent's: KIND:PORT, "none" or "emulated"; it is opened once and kept.

    Without `follow` (an emulated device) there is no process that an emulated meter could follow. `opener` opens the
    own meter where that is not a port. `calibrations`: where `edgelut-agent calibrate` left what it found of them.
    """

    def __init__(
        self,
        own: str,
        clock: Clock,
        follow: Follow | None = None,
        opener: Callable[[str, Clock], Meter] = open_meter,
        calibrations: CalibrationStore | None = None,
    ) -> None:
        self._own = own
        self._open_own = opener
        self._clock = clock
        self._follow = follow
        self._kept: Meter | None = None
        self._calibrations = calibrations

    async def look(self) -> MeterInfo | None:
        """What the agent has, opening it. Raises BadInputError when it does not answer or cannot be."""
        if self._own == NONE:
            return None
        if self._follows_worker(self._own):
            rate_hz = parse_spec(self._own).number("rate_hz", EMULATED_RATE_HZ, 0.1, 1000.0)
            kind = inner_kind(self._own)
            info = MeterInfo(EMULATED, model=kind.upper(), rate_hz=rate_hz, emulated=True)
            return replace(info, calibration=self._calibration(self._own, replace(info, kind=kind)))
        self._kept = await asyncio.to_thread(self._open_own, self._own, self._clock)
        return replace(self._kept.info, calibration=self._calibration(self._own, self._kept.info))

    @contextlib.asynccontextmanager
    async def running(self, wanted: str) -> AsyncIterator[Meter]:
        """The meter for a run that wants `wanted` (RunSpec.meter), sampling.

        Raises UnfitError when there is none or the run's own does not answer, BadInputError when the board's does not.
        """
        spec = wanted or self._own
        if spec == NONE:
            raise UnfitError("the run measures energy, but this board has no meter; start the agent with --meter")
        if self._follows_worker(spec):
            async with self._emulated(spec) as meter, _sampling(meter, close=True):
                yield self._calibrated(spec, meter)
        elif spec == self._own:
            if self._kept is None:
                self._kept = await asyncio.to_thread(self._open_own, spec, self._clock)
            async with _sampling(self._kept):
                yield self._calibrated(spec, self._kept)
        else:
            try:
                other = await asyncio.to_thread(open_meter, spec, self._clock)
            except BadInputError as error:  # the run's choice, not this board's fault
                raise UnfitError(str(error)) from error
            async with _sampling(other, close=True):
                yield self._calibrated(spec, other)

    def _calibrated(self, spec: str, meter: Meter) -> Meter:
        found = self._calibration(spec, meter.info)
        return meter if found is None else Calibrated(meter, found)

    def _calibration(self, spec: str, info: MeterInfo) -> Calibration | None:
        """Read anew for every task, so that a new one needs no restart."""
        if self._calibrations is None:
            return None
        try:
            return self._calibrations.load(MeterKey.of(spec, info))
        except BadInputError as error:  # it describes the meter; the measurement does not need it
            log.warning("%s", error)
            return None

    async def close(self) -> None:
        if self._kept is not None:
            await asyncio.to_thread(self._kept.close)

    @staticmethod
    def _follows_worker(spec: str) -> bool:
        """An emulated meter that was not told which process to follow."""
        parsed = parse_spec(spec)
        return parsed.kind == EMULATED and not parsed.port

    @contextlib.asynccontextmanager
    async def _emulated(self, spec: str) -> AsyncIterator[Meter]:
        """A meter emulator in a process of its own, whose current follows the worker's CPU time."""
        if self._follow is None:
            raise UnfitError("an emulated board has its own emulated meter: leave the run's --meter away")
        pid = self._follow.worker_pid()
        if pid is None:
            raise BadInputError("no worker runs that an emulated meter could follow")
        _, _, options = spec.partition("?")
        meter = await asyncio.to_thread(open_meter, f"{EMULATED}:{pid}?{options}", self._clock)
        assert isinstance(meter, EmulatedMeter)
        self._follow.own_pids.add(meter.process.pid)
        try:
            yield meter
        finally:
            self._follow.own_pids.discard(meter.process.pid)


class Calibrated:
    """A meter whose info says what is known of it."""

    def __init__(self, meter: Meter, calibration: Calibration) -> None:
        self._meter = meter
        self._calibration = calibration

    @property
    def info(self) -> MeterInfo:
        return replace(self._meter.info, calibration=self._calibration)

    def start(self) -> None:
        self._meter.start()

    def stop(self) -> None:
        self._meter.stop()

    def take(self) -> tuple[MeterSamples, tuple[str, ...]]:
        return self._meter.take()

    def close(self) -> None:
        self._meter.close()


def inner_kind(spec: str) -> str:
    """The kind that an emulated meter plays."""
    return parse_spec(spec).options.get("kind", "um25c")


@contextlib.asynccontextmanager
async def _sampling(meter: Meter, *, close: bool = False) -> AsyncIterator[None]:
    meter.start()
    try:
        yield
    finally:
        await asyncio.to_thread(meter.close if close else meter.stop)
        meter.take()  # what nobody asked for must not begin the next segment
