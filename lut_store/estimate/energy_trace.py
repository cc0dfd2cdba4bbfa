"""Power traces as arrays: when the meter took each value, and which load ran when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lut_store.estimate.energy_clock import tick_times
from protos.errors import BadInputError
from protos.types import PowerTrace, PowerWindow, RunSpec

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

IDLE, GAP, UNKNOWN = -1, -2, -3  # loads that are neither item nor network
SET_UP_S = 0.5  # time between two windows up to this is set-up; in more of it anything may have happened
OVERLAP_S = 1e-3
POLLED_SD_S = 0.01  # between segments: of the age of values whose ticks are not known


@dataclass(frozen=True, eq=False)
class Segment:
    """One trace in seconds from its first window; n values, and m windows without a hole between them.

    load: item index, or items + network index, or IDLE, GAP or UNKNOWN. The first window reaches back for ever and is
    UNKNOWN. count: the meter's values behind each of the n, more than one where they are averages.
    """

    meter: str
    time_s: Array  # (n,)
    time_sd_s: float  # how well the times are known, in common
    ticks_known: bool  # the times are those of the meter's ticks, not of the polls
    power_w: Array  # (n,)
    current_a: Array  # (n,)
    voltage_v: Array  # (n,)
    count: Array  # (n,)
    start_s: Array  # (m,)
    load: IntArray  # (m,)
    end_s: float

    def load_at(self, time_s: Array) -> IntArray:
        """The load at each time (n,)."""
        return _load_at(self.start_s, self.load, time_s)


def duration_s(chunks: Sequence[PowerTrace]) -> float:
    """From the beginning of the first window to the end of the last."""
    times_ns = [t for chunk in chunks for w in chunk.windows for t in (w.started_ns, w.ended_ns)]
    return (max(times_ns) - min(times_ns)) * 1e-9 if times_ns else 0.0


def read_segment(spec: RunSpec, chunks: Sequence[PowerTrace], bin_s: float = 0.0) -> Segment | None:
    """The chunks of one segment, in any order; None when they hold no window or no fresh value.

    Values that come faster than one in bin_s are averaged over that time: the lag that is fitted then contains it.

    Raises BadInputError when windows overlap or name an item or network that the run does not have.
    """
    chunks = sorted(chunks, key=lambda chunk: chunk.chunk)
    windows = sorted((w for chunk in chunks for w in chunk.windows), key=lambda w: w.started_ns)
    if not windows:
        return None
    name, zero_ns = chunks[0].segment_id, windows[0].started_ns
    start_s, load, end_s = _loads(spec, name, windows)
    t_ns = np.array([t for chunk in chunks for t in chunk.samples.t_ns], np.int64)
    fresh = np.array([f for chunk in chunks for f in chunk.samples.fresh], bool)
    voltage_v = np.array([v for chunk in chunks for v in chunk.samples.voltage_v], np.float64)
    current_a = np.array([a for chunk in chunks for a in chunk.samples.current_a], np.float64)
    order = np.argsort(t_ns, kind="stable")
    polled_s, fresh = _seconds(t_ns[order] - zero_ns), fresh[order]
    ticks = tick_times(polled_s, fresh)
    time_s, time_sd_s = ticks if ticks is not None else (polled_s, POLLED_SD_S)
    used = fresh & (time_s >= 0) & (time_s <= end_s) & (_load_at(start_s, load, time_s) != UNKNOWN)
    if not used.any():
        return None
    volts, amps = voltage_v[order][used], current_a[order][used]
    columns, count = _binned(time_s[used], np.stack([time_s[used], volts * amps, amps, volts]), bin_s)
    meter = chunks[0].meter
    return Segment(
        f"{meter.kind} {meter.model} {meter.serial} {meter.port}",
        columns[0],
        time_sd_s,
        ticks is not None,
        columns[1],
        columns[2],
        columns[3],
        count,
        start_s,
        load,
        end_s,
    )


def _loads(spec: RunSpec, name: str, windows: Sequence[PowerWindow]) -> tuple[Array, IntArray, float]:
    """Starts and loads of windows without a hole (m,), and the last's end; what nobody logged is GAP or UNKNOWN."""
    start_s, load = [-np.inf], [UNKNOWN]
    end_s = 0.0
    for window in windows:
        begin_s = (window.started_ns - windows[0].started_ns) * 1e-9
        if begin_s < end_s - OVERLAP_S:
            raise BadInputError(f"power trace {name}: two windows overlap at {begin_s:.3f} s; it cannot be used")
        if begin_s > end_s + OVERLAP_S:
            start_s.append(end_s)
            load.append(GAP if begin_s - end_s <= SET_UP_S else UNKNOWN)
        start_s.append(max(begin_s, end_s))
        load.append(_load(spec, name, window))
        end_s = max(end_s, (window.ended_ns - windows[0].started_ns) * 1e-9)
    return np.array(start_s), np.array(load, np.int64), end_s


def _load(spec: RunSpec, name: str, window: PowerWindow) -> int:
    if window.subject in ("idle", "gap"):
        return IDLE if window.subject == "idle" else GAP
    items = len(spec.items)
    first, count = (0, items) if window.subject == "item" else (items, len(spec.networks))
    if not 0 <= window.index < count:
        raise BadInputError(f"power trace {name}: {window.subject} {window.index} is not among the run's {count}")
    return first + window.index


def _seconds(ns: IntArray) -> Array:
    return ns.astype(np.float64) * 1e-9


def _load_at(start_s: Array, load: IntArray, time_s: Array) -> IntArray:
    found: IntArray = load[np.maximum(np.searchsorted(start_s, time_s, side="right") - 1, 0)]
    return found


def _binned(time_s: Array, columns: Array, bin_s: float) -> tuple[Array, Array]:
    """columns (c, n) averaged over bins of bin_s, and how many values are in each bin."""
    number = np.floor(time_s / bin_s) if bin_s > 0 else np.arange(len(time_s))
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    count = np.diff(starts, append=len(time_s)).astype(np.float64)
    return np.add.reduceat(columns, starts, axis=1) / count, count
