"""Clocks of emulated boards (`agent.runner.Clock`): one that jumps, and one that runs faster than real time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time

from protos.errors import BadInputError

QUIET_TURNS = 8  # more than the chain of awaits between two sleeps usually has


class VirtualClock:
    """Discrete events: no wall time passes.

    The sleeper that is due first is woken after some turns of the event loop, so that whoever was woken before can go
    on and sleep anew. What waits for something else than this clock (a socket, a thread) does not hold it back.
    """

    def __init__(self) -> None:
        self._now_ns = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []  # wake-up time, order, future
        self._order = itertools.count()

    def now_ns(self) -> int:
        return self._now_ns

    async def sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        due_ns = self._now_ns + max(0, math.ceil(seconds * 1e9))
        heapq.heappush(self._sleepers, (due_ns, next(self._order), woken))
        if len(self._sleepers) == 1:
            loop.call_soon(self._wake, loop, QUIET_TURNS)
        await woken

    def _wake(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        """Called turn after turn as long as somebody sleeps."""
        if turns:
            loop.call_soon(self._wake, loop, turns - 1)
            return
        due_ns, _, woken = heapq.heappop(self._sleepers)
        if not woken.cancelled():
            self._now_ns = due_ns
            woken.set_result(None)
        if self._sleepers:
            loop.call_soon(self._wake, loop, QUIET_TURNS)


class ScaledClock:
    """Device time is `speed` × wall time since the clock was made; to sleep takes its wall time."""

    def __init__(self, speed: float = 1.0) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise BadInputError(f"The speed of an emulated device is {speed}; it must be above 0.")
        self.speed = speed
        self._started_ns = time.perf_counter_ns()

    def now_ns(self) -> int:
        return int((time.perf_counter_ns() - self._started_ns) * self.speed)

    async def sleep(self, seconds: float) -> None:
        due_ns = self.now_ns() + math.ceil(seconds * 1e9)
        while (left_ns := due_ns - self.now_ns()) > 0:
            await asyncio.sleep(left_ns / self.speed * 1e-9)
