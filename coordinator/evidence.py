"""The evidence of runs, sorted out: which rounds and traces count, and in which order they ran."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from lut_store.records import StoredMeasurement
from protos.types import LatencyRound, Measurement, MeterInfo, PowerTrace

SEED_DIGITS = 15  # of the evidence's digest: the bootstrap is seeded from what it resamples


@dataclass(frozen=True)
class Evidence:
    """What was measured, sorted out. Streams and segments hold clean measurements in the order of time.

    A stream is what one device did in one run.
    """

    streams: tuple[tuple[LatencyRound, ...], ...]
    stream_devices: tuple[str, ...]
    segments: tuple[tuple[PowerTrace, ...], ...]
    segment_devices: tuple[str, ...]
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

    @property
    def meters(self) -> list[tuple[str, MeterInfo]]:
        """(device, meter), each pair once, in the order of the segments."""
        pairs = zip(self.segment_devices, self.segments, strict=True)
        return list(dict.fromkeys((device, trace.meter) for device, segment in pairs for trace in segment))

    def streams_of(self, device: str) -> tuple[tuple[LatencyRound, ...], ...]:
        return tuple(s for name, s in zip(self.stream_devices, self.streams, strict=True) if name == device)

    def segments_of(self, device: str) -> tuple[tuple[PowerTrace, ...], ...]:
        return tuple(s for name, s in zip(self.segment_devices, self.segments, strict=True) if name == device)


def gather(*runs: Sequence[StoredMeasurement]) -> Evidence:
    """Sort the measurements of one run, or of several whose items and networks are numbered alike.

    Flagged latency rounds are left out when at least half of the rounds are clean.
    """
    rounds = [(run, s) for run, stored in enumerate(runs) for s in stored if s.measurement.latency is not None]
    clean = [(run, s) for run, s in rounds if not s.measurement.flags]
    chosen = clean if 2 * len(clean) >= len(rounds) else rounds
    streams: dict[tuple[str, int], list[Measurement]] = {}
    for run, item in chosen:
        streams.setdefault((item.device, run), []).append(item.measurement)
    powers = [(run, s) for run, stored in enumerate(runs) for s in stored if s.measurement.power is not None]
    traces: dict[tuple[str, int], list[PowerTrace]] = {}
    seen_on: dict[tuple[str, int], str] = {}
    for run, item in powers:
        assert item.measurement.power is not None
        key = item.measurement.power.segment_id, run
        traces.setdefault(key, []).append(item.measurement.power)
        seen_on.setdefault(key, item.device)
    used = tuple(s.measurement for _, s in (*chosen, *powers))
    ids = "\n".join(sorted(m.id for m in used))
    return Evidence(
        streams=tuple(tuple(_in_time(own)) for _, own in sorted(streams.items())),
        stream_devices=tuple(device for device, _ in sorted(streams)),
        segments=tuple(tuple(sorted(own, key=lambda t: t.chunk)) for _, own in sorted(traces.items())),
        segment_devices=tuple(seen_on[key] for key in sorted(traces)),
        used=used,
        flagged=len(rounds) - len(clean),
        left_out=len(rounds) - len(chosen),
        devices=tuple(sorted({s.device for _, s in (*chosen, *powers)})),
        digest=hashlib.sha256(ids.encode()).hexdigest(),
    )


def _in_time(measurements: Sequence[Measurement]) -> list[LatencyRound]:
    rounds = [m.latency for m in measurements if m.latency is not None]
    return sorted(rounds, key=lambda r: r.started_ns)
