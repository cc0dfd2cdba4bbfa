"""Which meter a run is measured with: the agent's own, none, another, or an emulated one that follows the worker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from agent.meters import Clock, Meter, open_meter
from agent.meters.emulated import EmulatedMeter
from agent.meters.spec import parse_spec
from agent.runner import UnfitError
from protos.errors import BadInputError
from protos.types import MeterInfo

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
    own meter where that is not a port.
    """

    def __init__(
        self, own: str, clock: Clock, follow: Follow | None = None, opener: Callable[[str, Clock], Meter] = open_meter
    ) -> None:
        self._own = own
        self._open_own = opener
        self._clock = clock
        self._follow = follow
        self._kept: Meter | None = None

    async def look(self) -> MeterInfo | None:
        """What the agent has, opening it. Raises BadInputError when it does not answer or cannot be."""
        if self._own == NONE:
            return None
        if self._follows_worker(self._own):
            rate_hz = parse_spec(self._own).number("rate_hz", EMULATED_RATE_HZ, 0.1, 1000.0)
            return MeterInfo(EMULATED, model="UM25C", rate_hz=rate_hz, emulated=True)
        self._kept = await asyncio.to_thread(self._open_own, self._own, self._clock)
        return self._kept.info

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
                yield meter
        elif spec == self._own:
            if self._kept is None:
                self._kept = await asyncio.to_thread(self._open_own, spec, self._clock)
            async with _sampling(self._kept):
                yield self._kept
        else:
            try:
                other = await asyncio.to_thread(open_meter, spec, self._clock)
            except BadInputError as error:  # the run's choice, not this board's fault
                raise UnfitError(str(error)) from error
            async with _sampling(other, close=True):
                yield other

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


@contextlib.asynccontextmanager
async def _sampling(meter: Meter, *, close: bool = False) -> AsyncIterator[None]:
    meter.start()
    try:
        yield
    finally:
        await asyncio.to_thread(meter.close if close else meter.stop)
        meter.take()  # what nobody asked for must not begin the next segment
