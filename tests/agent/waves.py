"""A board that is busy and idle in turn, seen by an emulated meter in virtual time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.cli.calibrate import wave
from agent.emulator.memory_meter import InMemoryMeter
from agent.emulator.model import MeterModel, MeterSettings
from protos.types import MeterSamples
from tests.agent.meters.helpers import ManualClock

IDLE_A, BUSY_A = 0.24, 0.74
STEP_W = BUSY_A * (5.1 - 0.12 * BUSY_A) - IDLE_A * (5.1 - 0.12 * IDLE_A)
Edges = list[tuple[float, bool]]


class SquareSupply:
    """IDLE_A and BUSY_A by the edges; `leak_a` more comes slowly while the board is warm."""

    def __init__(self, edges: Edges, leak_a: float = 0.0) -> None:
        self._at_s = np.array([at for at, _ in edges])
        self._busy = np.array([False, *(busy for _, busy in edges)])
        self._leak_a = leak_a
        self._warm = 0.0

    def sample(self, start_s: float, stop_s: float, step_s: float) -> tuple[list[float], list[float]]:
        times_s = start_s + step_s * np.arange(round((stop_s - start_s) / step_s))
        busy = self._busy[np.searchsorted(self._at_s, times_s, side="right")]
        current_a = np.where(busy, BUSY_A, IDLE_A)
        if self._leak_a:
            warm = np.empty(len(busy))
            for index, is_busy in enumerate(busy):
                self._warm += (float(is_busy) - self._warm) * step_s / 12.0
                warm[index] = self._warm
            current_a = current_a + self._leak_a * warm
        return list(5.1 - 0.12 * current_a), list(current_a)


def recorded(
    settings: MeterSettings, duration_s: float, seed: int, *, streaming: bool, leak_a: float = 0.0
) -> tuple[MeterSamples, Edges]:
    """What a meter says of a square wave, and the edges of the wave."""
    at_s, edges = 100.0, []
    for half in wave(duration_s, seed):
        edges.append((at_s, half.busy))
        at_s += half.duration_s
    edges = edges[1:]
    clock = ManualClock(100.0)
    meter = InMemoryMeter(MeterModel(SquareSupply(edges, leak_a), settings), clock, streaming=streaming)
    meter.start()
    clock.advance(at_s - 100.0)
    return meter.take()[0], edges


def seconds(samples: MeterSamples) -> NDArray[np.float64]:
    return np.array(samples.t_ns) * 1e-9
