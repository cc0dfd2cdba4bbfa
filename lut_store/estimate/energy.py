"""Power per operator and network from one least-squares fit of all traces of a run.

The meter shows a delayed, smeared version of the true power. Every load (item, network, set-up gap) is one unknown step
height above a slowly drifting baseline, and the meter's lag, whatever its shape, is fitted with everything else. Robust
weights keep bursts of other work out. Why one fit, and what it is worth: docs/decisions/0004-energy-from-one-fit.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lut_store.estimate.correction import counts
from lut_store.estimate.energy_error import uncertainty
from lut_store.estimate.energy_fit import Fit, fit
from lut_store.estimate.energy_lag import Lag
from lut_store.estimate.energy_peak import Peaks, peaks
from lut_store.estimate.energy_trace import IDLE, Segment, duration_s, read_segment
from lut_store.estimate.executions import slot_items
from lut_store.estimate.settings import PEAK, PLATEAU
from protos.errors import BadInputError
from protos.types import PowerTrace, RunSpec

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_ROWS = 30_000  # of the fit: what comes faster is averaged, to bins of 0.05 s in 25 minutes
LEAST_SAMPLES = 1.0  # a load that the samples show less than this, in sum, was not seen
LEAST_VOLTAGE_V = 0.1  # a meter without a supply shows zero
DISTURBED = 0.5  # robust weight below which a sample counts as disturbed
SPREAD_STEPS = 50  # of the iteration for the structural spread; it settles in a few


_DOCUMENTED = (
    *("idle_power_w", "idle_power_sd_w", "idle_current_a", "voltage_v", "delay_s", "lag_s"),
    *("noise_w", "inflation", "disturbed_share", "ticks_known"),
)


@dataclass(frozen=True, eq=False)
class PowerEstimate:
    """I items and M networks, in the order of the run; NaN where nothing was seen, which is never filled in.

    *_power_w: above idle, without what the warmed chip leaks more; *_se_w: its standard error; *_current_a: current
    above idle, so that V × (I_dynamic − I_idle) × t with a fixed V can be had; *_samples: fresh samples taken under
    that load; *_windows and *_active_s: how often and how long it ran. covariance_w2 (I + M, I + M) is that of items,
    then networks: they share the baseline and the lag, so their errors go together.
    """

    item_power_w: Array
    item_se_w: Array
    item_current_a: Array
    item_samples: IntArray
    item_windows: IntArray
    item_active_s: Array
    network_power_w: Array
    network_se_w: Array
    network_current_a: Array
    network_samples: IntArray
    network_windows: IntArray
    network_active_s: Array
    covariance_w2: Array
    idle_power_w: float  # mean over the traces
    idle_power_sd_w: float  # how it wandered
    idle_current_a: float
    voltage_v: float
    delay_s: float  # of the first meter: dead time of its answer to a step; negative where its times lag behind
    lag_s: float  # mean of the answer after the dead time
    noise_w: float  # of one sample, robust
    inflation: float  # of the variances, for what is common to the samples of a window
    disturbed_share: float  # of the samples, left out as bursts of other work
    samples: int
    ticks_known: float  # share of the segments in which the times of the meter's values could be told

    @property
    def item_total_w(self) -> Array:
        """(I,) idle included."""
        return self.item_power_w + self.idle_power_w

    @property
    def network_total_w(self) -> Array:
        """(M,) idle included."""
        return self.network_power_w + self.idle_power_w

    def energy_se_j(self, seconds: Array) -> Array:
        """Standard error (…,) of Σ power × seconds, from the powers alone; seconds (…, I) are spent in each item.

        NaN where an item without a power is asked for.
        """
        items = len(self.item_power_w)
        known = np.isfinite(self.item_power_w)
        spent = np.where(known, seconds, 0.0)
        covariance = np.where(np.outer(known, known), self.covariance_w2[:items, :items], 0.0)
        se_j = np.sqrt(np.einsum("...i,ij,...j->...", spent, covariance, spent))
        return np.where(np.any(np.where(known, 0.0, seconds) != 0, axis=-1), np.nan, se_j)

    def document(self) -> dict[str, float | int | None]:
        """What the provenance of a LUT keeps; None where it is not known."""
        values = {name: float(getattr(self, name)) for name in _DOCUMENTED}
        return {"samples": self.samples} | {n: v if np.isfinite(v) else None for n, v in values.items()}


def estimate_power(spec: RunSpec, segments: Sequence[Sequence[PowerTrace]], statistic: str = PLATEAU) -> PowerEstimate:
    """Fit all segments together: a power per load, a baseline per segment, a lag per meter.

    Each segment is its chunks in any order; segments may come from several boards of a type, which then share the
    powers. `statistic`: "plateau", or "peak", what a reader of the display would note (energy_peak). Everything is NaN
    when there is no usable sample. Raises BadInputError for traces that contradict
    themselves, and for traces without any idle time, above which nothing could be measured.
    """
    bin_s = sum(map(duration_s, segments)) / MOST_ROWS
    read = [segment for chunks in segments if (segment := read_segment(spec, chunks, bin_s)) is not None]
    items, loads = len(spec.items), len(spec.items) + len(spec.networks)
    if not read:
        return _nothing(items, loads)
    if not any((segment.load_at(segment.time_s) == IDLE).any() for segment in read):
        raise BadInputError("the power traces hold no idle time, so there is nothing to measure the loads above")
    found = fit(read, loads)
    windows, active_s = _visits(read, loads)
    error = uncertainty(found, windows)
    lags = [Lag.of(row) for row in found.parameters.lags]
    samples, seen = _samples(found, lags, loads)
    known = (seen >= LEAST_SAMPLES) & (windows > 0)
    power_w = np.where(known, found.solution.coefficients[:loads], np.nan)
    se_w = np.where(known, np.sqrt(np.diag(error.covariance_w2)), np.nan)
    amps = _currents(found)
    current_a = np.where(known, amps[:loads], np.nan)
    knots = slice(found.prior.first, found.prior.first + len(found.prior.roughness))
    hats = found.traces.baseline[0]
    idle_w, idle_a = hats @ found.solution.coefficients[knots], hats @ amps[knots]
    covariance_w2 = np.where(np.outer(known, known), error.covariance_w2, np.nan)
    if statistic == PEAK:
        power_w, se_w, current_a, covariance_w2 = _tops(peaks(found, lags, loads, idle_w, idle_a), known)
    first = lags[found.traces.meters.index(read[0].meter)]
    return PowerEstimate(
        item_power_w=power_w[:items],
        item_se_w=se_w[:items],
        item_current_a=current_a[:items],
        item_samples=samples[:items],
        item_windows=windows[:items],
        item_active_s=active_s[:items],
        network_power_w=power_w[items:],
        network_se_w=se_w[items:],
        network_current_a=current_a[items:],
        network_samples=samples[items:],
        network_windows=windows[items:],
        network_active_s=active_s[items:],
        covariance_w2=covariance_w2,
        idle_power_w=float(idle_w.mean()),
        idle_power_sd_w=float(idle_w.std()),
        idle_current_a=float(idle_a.mean()),
        voltage_v=float(np.mean(np.concatenate([s.voltage_v for s in read]))),
        delay_s=first.delay_s,
        lag_s=first.centre_s - first.delay_s,
        noise_w=found.noise_w,
        inflation=error.inflation,
        disturbed_share=float(np.mean(found.robust < DISTURBED)),
        samples=int(sum(s.count.sum() for s in read)),
        ticks_known=float(np.mean([s.ticks_known for s in read])),
    )


def _tops(top: Peaks, known: NDArray[np.bool_]) -> tuple[Array, Array, Array, Array]:
    """Power, its standard error, current (loads,) and covariance (loads, loads) of the peaks of the known loads."""
    known = known & np.isfinite(top.power_w)
    power_w, se_w, current_a = (np.where(known, v, np.nan) for v in (top.power_w, top.power_se_w, top.current_a))
    # The noise that makes the peaks is each window's own.
    return power_w, se_w, current_a, np.where(np.outer(known, known), np.diag(np.nan_to_num(se_w) ** 2), np.nan)


def _visits(segments: Sequence[Segment], loads: int) -> tuple[IntArray, Array]:
    """How many windows each load had, and how long they were in all (s); (loads,)."""
    windows, active_s = np.zeros(loads, np.int64), np.zeros(loads)
    for segment in segments:
        length_s = np.diff(segment.start_s, append=segment.end_s)
        mine = (segment.load >= 0) & (segment.load < loads)
        np.add.at(windows, segment.load[mine], 1)
        np.add.at(active_s, segment.load[mine], length_s[mine])
    return windows, active_s


def _samples(found: Fit, lags: Sequence[Lag], loads: int) -> tuple[IntArray, Array]:
    """Fresh samples that were taken under each load, and the weight with which samples show it in all; (loads,)."""
    samples = np.zeros(loads, np.int64)
    for segment in found.traces.segments:
        lag = lags[found.traces.meters.index(segment.meter)]
        load = segment.load_at(segment.time_s - lag.centre_s)
        mine = load >= 0
        np.add.at(samples, load[mine], segment.count[mine].astype(np.int64))
    design = found.solution.normal.design[:, :loads]
    return samples, np.asarray(abs(design).T @ (found.weight > 0).astype(np.float64))


def _currents(found: Fit) -> Array:
    """The same fit of the currents: coefficients (p,) in A."""
    segments = found.traces.segments
    current_a = np.concatenate([s.current_a for s in segments])
    voltage_v = float(np.mean(np.concatenate([s.voltage_v for s in segments])))
    prior_a = found.prior.mean / max(voltage_v, LEAST_VOLTAGE_V)
    right = found.solution.normal.weighted.T @ current_a + found.prior.precision * prior_a
    return found.solution.inverse(right)


@dataclass(frozen=True)
class NetworkRatio:
    """Measured power of networks over the time-weighted mean of their operators' powers.

    factor with its standard error se; spread: standard deviation of single networks around it, beyond what the meter
    explains; networks: how many there were. NaN without any.
    """

    factor: float
    se: float
    spread: float
    networks: int


def network_ratio(
    spec: RunSpec, estimate: PowerEstimate, item_latency_s: Array, networks: Sequence[int] | None = None
) -> NetworkRatio:
    """How much more or less power networks draw than their operators say.

    item_latency_s (I,) weighs the operators; `networks` are the indices of those to use, all by default (for a
    correction, give those of role "fit"). Networks with an operator or a power that is not known are left out. A
    random-effects mean (DerSimonian and Laird 1986) with the full covariance of networks and operators.
    """
    items = len(spec.items)
    chosen = np.arange(len(spec.networks)) if networks is None else np.asarray(networks, np.int64)
    architectures = [spec.networks[index].choices for index in chosen]
    seconds = counts(spec, architectures, *slot_items(spec)) * np.nan_to_num(item_latency_s)  # (n, I)
    unknown = ~np.isfinite(item_latency_s * estimate.item_power_w)
    missing = counts(spec, architectures, *slot_items(spec))[:, unknown].any(axis=1)
    usable = np.isfinite(estimate.network_power_w[chosen]) & ~missing & (seconds.sum(axis=1) > 0)
    chosen, seconds = chosen[usable], seconds[usable]
    if not len(chosen):
        return NetworkRatio(float("nan"), float("nan"), float("nan"), 0)
    share = seconds / seconds.sum(axis=1, keepdims=True)
    mean_w = share @ np.nan_to_num(estimate.item_power_w)
    ratio = estimate.network_power_w[chosen] / mean_w
    gradient = np.zeros((len(chosen), items + len(spec.networks)))
    gradient[:, :items] = -share * (ratio / mean_w)[:, None]
    gradient[np.arange(len(chosen)), items + chosen] = 1 / mean_w
    covariance = gradient @ np.nan_to_num(estimate.covariance_w2) @ gradient.T
    return _random_effects(ratio, covariance)


def _random_effects(ratio: Array, covariance: Array) -> NetworkRatio:
    """Generalised least-squares mean of (n,) ratios; the spread is raised until they scatter as much as they should."""
    n = len(ratio)

    def mean(spread2: float) -> tuple[float, float, float]:
        inverse = np.linalg.inv(covariance + spread2 * np.eye(n))
        information = float(inverse.sum())
        centre = float(inverse.sum(axis=0) @ ratio) / information
        return centre, information, float((ratio - centre) @ inverse @ (ratio - centre))

    low, high = 0.0, float(np.var(ratio)) * 2 + 1e-12
    if n < 2 or mean(1e-12)[2] <= n - 1:
        high = 1e-12
    for _ in range(SPREAD_STEPS if high > 1e-12 else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle)[2] > n - 1 else (low, middle)
    centre, information, _ = mean(high)
    spread = float(np.sqrt(high)) if high > 1e-12 else 0.0
    return NetworkRatio(centre, information**-0.5, spread, n)


def _nothing(items: int, loads: int) -> PowerEstimate:
    def unknown(count: int) -> Array:
        return np.full(count, np.nan)

    def none(count: int) -> IntArray:
        return np.zeros(count, np.int64)

    nan, networks = float("nan"), loads - items
    return PowerEstimate(
        item_power_w=unknown(items),
        item_se_w=unknown(items),
        item_current_a=unknown(items),
        item_samples=none(items),
        item_windows=none(items),
        item_active_s=np.zeros(items),
        network_power_w=unknown(networks),
        network_se_w=unknown(networks),
        network_current_a=unknown(networks),
        network_samples=none(networks),
        network_windows=none(networks),
        network_active_s=np.zeros(networks),
        covariance_w2=np.full((loads, loads), np.nan),
        idle_power_w=nan,
        idle_power_sd_w=nan,
        idle_current_a=nan,
        voltage_v=nan,
        delay_s=nan,
        lag_s=nan,
        noise_w=nan,
        inflation=nan,
        disturbed_share=nan,
        samples=0,
        ticks_known=0.0,
    )
