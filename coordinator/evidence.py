"""The evidence of a run, sorted out: which rounds and traces count, and in which order they ran."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from lut_store.records import StoredMeasurement
from protos.types import LatencyRound, Measurement, MeterInfo, PowerTrace

SEED_DIGITS = 15  # of the evidence's digest: the bootstrap is seeded from what it resamples


@dataclass(frozen=True)
class Evidence:
    """What a run has measured, sorted out. Streams and segments hold clean measurements in the order of time."""

    streams: tuple[tuple[LatencyRound, ...], ...]  # one per device
    segments: tuple[tuple[PowerTrace, ...], ...]
    used: tuple[Measurement, ...]
    flagged: int
    left_out: int  # of the flagged rounds
    devices: tuple[str, ...]
    digest: str

    @property
    def seed(self) -> int:
        return int(self.digest[:SEED_DIGITS], 16)

    @property
    def meter(self) -> MeterInfo | None:
        return next((trace.meter for segment in self.segments for trace in segment), None)


def gather(stored: Sequence[StoredMeasurement]) -> Evidence:
    """Sort a run's measurements. Flagged latency rounds are left out when at least half of the rounds are clean."""
    rounds = [s for s in stored if s.measurement.latency is not None]
    clean = [s for s in rounds if not s.measurement.flags]
    chosen = clean if 2 * len(clean) >= len(rounds) else rounds
    streams: dict[str, list[Measurement]] = {}
    for item in chosen:
        streams.setdefault(item.device, []).append(item.measurement)
    traces: dict[str, list[PowerTrace]] = {}
    powers = [s for s in stored if s.measurement.power is not None]
    for item in powers:
        assert item.measurement.power is not None
        traces.setdefault(item.measurement.power.segment_id, []).append(item.measurement.power)
    used = tuple(s.measurement for s in (*chosen, *powers))
    ids = "\n".join(sorted(m.id for m in used))
    return Evidence(
        streams=tuple(tuple(_in_time(own)) for _, own in sorted(streams.items())),
        segments=tuple(tuple(sorted(own, key=lambda t: t.chunk)) for _, own in sorted(traces.items())),
        used=used,
        flagged=len(rounds) - len(clean),
        left_out=len(rounds) - len(chosen),
        devices=tuple(sorted({s.device for s in (*chosen, *powers)})),
        digest=hashlib.sha256(ids.encode()).hexdigest(),
    )


def _in_time(measurements: Sequence[Measurement]) -> list[LatencyRound]:
    rounds = [m.latency for m in measurements if m.latency is not None]
    return sorted(rounds, key=lambda r: r.started_ns)
