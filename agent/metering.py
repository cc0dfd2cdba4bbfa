"""Which meter a run is measured with: the agent's own, none, another, or an emulated one that follows the worker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from agent.meters import Clock, Meter, open_meter
from agent.runner import UnfitError
from protos.errors import BadInputError
from protos.types import MeterInfo

NONE, EMULATED = "none", "emulated"
EMULATED_RATE_HZ = 50.0  # fast, so that a demonstration without hardware takes minutes


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
        if self._own == EMULATED:
            self._followed()
            return MeterInfo(EMULATED, model="UM25C, emulated", rate_hz=EMULATED_RATE_HZ, emulated=True)
        self._kept = await asyncio.to_thread(self._open_own, self._own, self._clock)
        return self._kept.info

    @contextlib.asynccontextmanager
    async def running(self, wanted: str) -> AsyncIterator[Meter]:
        """The meter for a run that wants `wanted` (RunSpec.meter), sampling.

        Raises UnfitError when there is none, and BadInputError when it does not answer.
        """
        spec = wanted or self._own
        if spec == NONE:
            raise UnfitError("the run measures energy, but this board has no meter; start the agent with --meter")
        if spec == EMULATED:
            async with self._emulated() as meter, _sampling(meter):
                yield meter
        elif spec == self._own:
            if self._kept is None:
                self._kept = await asyncio.to_thread(self._open_own, spec, self._clock)
            async with _sampling(self._kept):
                yield self._kept
        else:
            other = await asyncio.to_thread(open_meter, spec, self._clock)
            async with _sampling(other, close=True):
                yield other

    async def close(self) -> None:
        if self._kept is not None:
            await asyncio.to_thread(self._kept.close)

    def _followed(self) -> Follow:
        if self._follow is None:
            raise BadInputError("an emulated device has its own emulated meter; leave --meter away")
        return self._follow

    @contextlib.asynccontextmanager
    async def _emulated(self) -> AsyncIterator[Meter]:
        """A meter emulator in a process of its own, whose current follows the worker's CPU time."""
        from agent.emulator.meter import spawn

        follow = self._followed()
        pid = follow.worker_pid()
        if pid is None:
            raise BadInputError("no worker runs that an emulated meter could follow")
        process = await asyncio.to_thread(spawn, "um25c", pid, EMULATED_RATE_HZ)
        follow.own_pids.add(process.pid)
        try:
            meter = await asyncio.to_thread(open_meter, process.spec, self._clock)
            try:
                yield meter
            finally:
                await asyncio.to_thread(meter.close)
        finally:
            follow.own_pids.discard(process.pid)
            await asyncio.to_thread(process.close)


@contextlib.asynccontextmanager
async def _sampling(meter: Meter, *, close: bool = False) -> AsyncIterator[None]:
    meter.start()
    try:
        yield
    finally:
        await asyncio.to_thread(meter.close if close else meter.stop)
        meter.take()  # what nobody asked for must not begin the next segment
