"""Latency evidence → a latency per operator with its uncertainty, and the latency of every whole network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lut_store.estimate.common_mode import CommonMode, common_mode
from lut_store.estimate.executions import NETWORK, OPERATOR, Array, Executions, IntArray, flatten
from lut_store.estimate.settings import MEAN, MEDIAN
from lut_store.estimate.statistic import SE_FACTORS, group_levels, log_level, weighted_levels
from protos.types import LatencyRound, RunSpec

Z95 = 1.959964
RESAMPLES = 200
FLOOR_SHARE = 5e-4  # of a network's latency: no operator needs to be known better than this
PLACEMENT_REL_SE = 0.002  # what repeating cannot see: where in memory this process put its weights and buffers
LEAST_BLOCKS = 4  # below this there is no bootstrap and no standard error
MEDIAN_SE = SE_FACTORS[MEDIAN]  # standard error of a median over that of a mean, for normal noise


@dataclass(frozen=True)
class LatencyEstimate:
    """I items and M networks, in the order of the run's specification; NaN where nothing was measured.

    item_s, network_s: the statistic, by default the median, in seconds with the machine's common mode taken out;
    *_se_s: standard errors, by block bootstrap for items; *_n: executions behind them; network_half_s (2, M): the same
    networks from odd and from even executions; disturbed_share: executions left out; spread: interquartile range of
    what is left of one execution, relative.
    """

    item_s: Array
    item_se_s: Array
    item_n: IntArray
    hot_item_s: Array
    network_s: Array
    network_se_s: Array
    network_n: IntArray
    network_half_s: Array
    other_context_s: Array
    disturbed_share: float
    spread: float


@dataclass(frozen=True)
class LatencyLook:
    """How far a run's latency evidence has come: per item n and relative 95 % half-width (NaN when unknown)."""

    n: IntArray
    rel_halfwidth: Array
    device_s: float


def estimate_latency(
    spec: RunSpec,
    streams: Sequence[Sequence[LatencyRound]],
    seed: int = 0,
    resamples: int = RESAMPLES,
    statistic: str = MEDIAN,
) -> LatencyEstimate:
    """Estimate from the clean rounds of each stream (one device, its tasks in order). The same evidence gives the same
    numbers. `statistic` ("median", "p10", "mean") is that of the same executions, for operators and networks alike."""
    ex = flatten(spec, streams)
    machine = common_mode(ex)
    se_log, n_items = _item_errors(ex, machine, seed, resamples, statistic)
    item_log_s, hot_log_s, network_log_s = _levels(ex, machine, statistic)
    hot_item_s = np.exp(hot_log_s)
    item_s = np.exp(item_log_s) if len(ex.timed_item) else hot_item_s
    network_s = np.exp(network_log_s)
    half_s, network_se_s, network_n = _networks(ex, machine, statistic)
    usual = machine.residual[machine.usual]
    spread = float(np.subtract(*np.nanquantile(usual, [0.75, 0.25]))) if len(usual) else float("nan")
    return LatencyEstimate(
        item_s=item_s,
        item_se_s=item_s * np.hypot(se_log, PLACEMENT_REL_SE),
        item_n=n_items,
        hot_item_s=hot_item_s,
        network_s=network_s,
        network_se_s=network_s * network_se_s,
        network_n=network_n,
        network_half_s=half_s,
        other_context_s=_other_context_s(spec, streams, statistic),
        disturbed_share=float(1 - machine.usual.mean()) if len(machine.usual) else 0.0,
        spread=spread,
    )


def _levels(ex: Executions, machine: CommonMode, statistic: str) -> tuple[Array, Array, Array]:
    """Log seconds: (items,) from paths, (items,) from hot loops, (networks,), weighted as the common mode is."""
    if statistic == MEDIAN:  # what the common mode itself was found with
        return machine.item_log_s, machine.hot_log_s, machine.network_log_s
    execution = ex.path_execution[ex.timed_path]
    timed = ex.timed_log_s - machine.offset[execution]
    items = group_levels(timed, ex.timed_item, ex.items, machine.weight[execution], statistic)
    total = ex.log_total - machine.offset
    hot, networks = (
        group_levels(total[of], ex.index[of], count, machine.weight[of], statistic)
        for of, count in ((ex.kind == OPERATOR, ex.items), (ex.kind == NETWORK, ex.networks))
    )
    return items, hot, networks


def _other_context_s(spec: RunSpec, streams: Sequence[Sequence[LatencyRound]], statistic: str) -> Array:
    """(networks,) seconds of the calls in the other context; NaN where there were none."""
    calls_ns: list[list[int]] = [[] for _ in spec.networks]
    for round_ in (r for rounds in streams for r in rounds):
        timings = round_.other_context
        if timings is not None:
            for row, network in enumerate(timings.network):
                calls_ns[network] += timings.total_ns[row * timings.calls : (row + 1) * timings.calls]

    def seconds(calls: list[int]) -> float:
        log_ns = np.log(np.asarray(calls, float))
        return float(np.exp(log_level(log_ns, np.ones(len(calls)), statistic)) * 1e-9)

    return np.array([seconds(own) if own else np.nan for own in calls_ns])


def look(spec: RunSpec, streams: Sequence[Sequence[LatencyRound]]) -> LatencyLook:
    """Is the estimate tight enough? Half-widths below the floor for tiny operators count as that floor."""
    estimate = estimate_latency(spec, streams, resamples=RESAMPLES // 2)
    halfwidth_s = Z95 * estimate.item_se_s
    floor_s = FLOOR_SHARE * _typical_network_s(spec, estimate)
    relative = np.where(halfwidth_s <= floor_s, 0.0, halfwidth_s / estimate.item_s)
    return LatencyLook(estimate.item_n, relative, device_seconds(streams))


def device_seconds(streams: Sequence[Sequence[LatencyRound]]) -> float:
    """Device time that the rounds took."""
    return sum(r.ended_ns - r.started_ns for rounds in streams for r in rounds) * 1e-9


def _typical_network_s(spec: RunSpec, estimate: LatencyEstimate) -> float:
    measured = estimate.network_s[np.isfinite(estimate.network_s)]
    if len(measured):
        return float(np.median(measured))
    return float(np.nanmean(estimate.item_s)) * len(spec.space.layers)


def _item_errors(
    ex: Executions, machine: CommonMode, seed: int, resamples: int, statistic: str
) -> tuple[Array, IntArray]:
    """(items,) standard error of the log latency, by bootstrap over blocks of executions; (items,) executions behind
    it."""
    if len(ex.timed_item):
        execution, item = ex.path_execution[ex.timed_path], ex.timed_item
        value = ex.timed_log_s - machine.offset[execution]
    else:
        execution = np.flatnonzero(ex.kind == OPERATOR)
        item, value = ex.index[execution], ex.log_total[execution] - machine.offset[execution]
    block_of = np.unique(ex.block, return_inverse=True)[1]
    count = int(block_of.max()) + 1 if len(block_of) else 0
    n = np.bincount(item[machine.usual[execution]], minlength=ex.items)
    error = np.full(ex.items, np.nan)
    if count < LEAST_BLOCKS:
        return error, n
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)  # (resamples, blocks)
    order = np.lexsort((value, item))
    value, item, block = value[order], item[order], block_of[execution[order]]
    weight = machine.weight[execution[order]]
    bounds = np.searchsorted(item, np.arange(ex.items + 1))
    for number in range(ex.items):
        own = slice(bounds[number], bounds[number + 1])
        if bounds[number + 1] - bounds[number] >= LEAST_BLOCKS:
            error[number] = np.nanstd(weighted_levels(value[own], drawn[:, block[own]] * weight[own], statistic))
    return error, n


def _networks(ex: Executions, machine: CommonMode, statistic: str) -> tuple[Array, Array, IntArray]:
    """(2, networks) seconds from odd and even executions, (networks,) relative standard error, (networks,)
    executions."""
    half_s = np.full((2, ex.networks), np.nan)
    error = np.full(ex.networks, np.nan)
    chosen = ex.kind == NETWORK
    index, value = ex.index[chosen], (ex.log_total - machine.offset)[chosen]
    weights = machine.weight[chosen]
    for number in range(ex.networks):
        own, weight = value[index == number], weights[index == number]
        if len(own) < 2:
            continue
        half_s[:, number] = [np.exp(log_level(own[start::2], weight[start::2], statistic)) for start in (0, 1)]
        # A mean moves with every value, so its error is that of the plain spread; the others are robust.
        middle = np.average(own, weights=weight) if statistic == MEAN else log_level(own, weight, MEDIAN)
        distance = np.abs(own - middle)
        robust = log_level(distance, weight, MEDIAN) * 1.4826
        spread = np.sqrt(np.average(distance**2, weights=weight)) if statistic == MEAN else robust
        error[number] = SE_FACTORS[statistic] * spread * np.sqrt((weight**2).sum()) / weight.sum()
    n: NDArray[np.int64] = np.bincount(index[machine.usual[chosen]], minlength=ex.networks)
    return half_s, error, n
