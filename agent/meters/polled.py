"""Meters that are read with a function of this machine, not over a port."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from agent.meters.base import Clock, Decoder, Reading
from agent.meters.sampling import Freshness, Limits, SampleBuffer, SamplingMeter
from protos.types import MeterInfo

EARLY = 0.2  # share of the period by which a reading may come early


class PolledMeter(SamplingMeter):
    """Reads text from `read`, decodes it, and stamps the reading with the midpoint of the call."""

    def __init__(
        self,
        info: MeterInfo,
        clock: Clock,
        decoder: Decoder,
        read: Callable[[], bytes],
        update_s: float,
        limits: Limits | None = None,
        *,
        over_interval: bool = False,
    ) -> None:
        super().__init__(info, clock, SampleBuffer(Freshness(update_s, EARLY / info.rate_hz), limits))
        self._decoder = decoder
        self._read = read
        self._over_interval = over_interval  # a reading is the mean since the one before

    def once(self) -> Reading | None:
        """One reading now, to see that it works."""
        readings = self._decoder.feed(self._read())
        return readings[-1] if readings else None

    def _run(self) -> None:
        period_s = 1 / self._info.rate_hz
        due = time.monotonic()
        last_ns = 0
        self._decoder.reset()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + period_s, time.monotonic())
            asked_ns = self.clock.now_ns()
            try:
                text = self._read()
            except OSError as error:
                self.buffer.lose(f"the meter could not be read: {error}")
                continue
            t_ns = (asked_ns + self.clock.now_ns()) // 2
            for reading in self._decoder.feed(text):
                self.buffer.add((last_ns + t_ns) // 2 if self._over_interval else t_ns, reading)
            last_ns = t_ns
            rejected, self._decoder.rejected = self._decoder.rejected, Counter()
            for reason, times in rejected.items():
                self.buffer.lose(reason, times)

    def _release(self) -> None:
        return  # nothing is held
