"""An emulated meter without a port, for discrete-event benchmarks and emulated devices that run faster than real
time.
"""

from __future__ import annotations

import threading

from agent.emulator.model import MeterModel
from agent.meters.base import Clock
from agent.meters.sampling import Freshness, SampleBuffer
from protos.types import MeterInfo, MeterSamples

POLL_SHARE = 0.8  # of the update period: somewhat faster than the meter updates


class InMemoryMeter:
    """The samples that a poller at rate_hz would have got from the model, in the clock's time; a `Meter`.

    rate_hz 0: 1.25 polls for every new value, as the UM25C driver does. With `streaming` it says every new value by
    itself, once, as SmartPower3 does.
    """

    def __init__(
        self, model: MeterModel, clock: Clock, rate_hz: float = 0.0, kind: str = "um25c", *, streaming: bool = False
    ) -> None:
        update_s = model.settings.update_s
        self._model = model
        self._clock = clock
        self._period_ns = round(1e9 / rate_hz) if rate_hz else round(POLL_SHARE * update_s * 1e9)
        self._streaming = streaming
        self._buffer = SampleBuffer(Freshness(0.0 if streaming else update_s, 0.2 * self._period_ns * 1e-9))
        self._due_ns: int | None = None
        self._lock = threading.Lock()  # closed while a thread that was given up still polls
        self.info = MeterInfo(kind, "memory", kind.upper(), rate_hz=1 / update_s, emulated=True)
        now_s = clock.now_ns() * 1e-9
        self._origin_s = now_s - (model.reading(now_s).device_time_s or 0.0)  # when the meter's own time began

    def start(self) -> None:
        if self._due_ns is None:
            self._due_ns = self._clock.now_ns()

    def stop(self) -> None:
        self._poll()
        with self._lock:
            self._due_ns = None

    def take(self) -> tuple[MeterSamples, tuple[str, ...]]:
        self._poll()
        return self._buffer.take()

    def close(self) -> None:
        self.stop()

    def _poll(self) -> None:
        with self._lock:
            self._due_ns = self._polled(self._due_ns)

    def _polled(self, due_ns: int | None) -> int | None:
        """Take what has come since `due_ns`; when the next one is due."""
        if due_ns is None:
            return None
        now_ns = self._clock.now_ns()
        if self._streaming:
            for reading in self._model.update(now_ns * 1e-9):
                t_ns = round((self._origin_s + (reading.device_time_s or 0.0)) * 1e9)
                if t_ns >= due_ns:
                    self._buffer.add(t_ns, reading)
            return due_ns
        while due_ns <= now_ns:
            self._buffer.add(due_ns, self._model.reading(due_ns * 1e-9))
            due_ns += self._period_ns
        return due_ns
