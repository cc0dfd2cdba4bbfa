"""Rules about the numbers of cells: what they imply, and whether they agree with each other.

A number with a standard error is compared within it: what differs by less than Z joint standard errors agrees. Where no
error is known (an imported table) plain ratios decide, which are given beside each rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lut_store.boards import board_of, idle_power_w
from lut_store.entries import Entries, name_of
from lut_store.lut import METRICS, Lut
from lut_store.metric import Array, BoolArray, Metric
from protos.types import BlockSpec, CellRef, Finding

Z = 3.0  # standard errors: of some two hundred true comparisons, half a one is found by chance
SKIP_SHARE = 0.05  # of the cheapest block of the layer: a skip is removed from the network, and costs nothing
TWIN_P = 1e-3  # of the hypothesis that all cells of one operator cost the same
TWIN_RATIO = 1.05  # dearest ÷ cheapest of one operator: below it nobody is misled
TWIN_ERROR = 1.5  # in the median, from which the table cannot be trusted
FALL_SHARE = 0.05  # without standard errors: a larger block that is cheaper by less than this may be noise
LEAST_SAMPLES = 8  # fresh meter samples behind an energy
_UNITS = {"latency": ((1.0, "s"), (1e3, "ms"), (1e6, "µs")), "energy": ((1.0, "J"), (1e3, "mJ"), (1e6, "µJ"))}


def amount(metric: str, value: float) -> str:
    """``12.1 ms``, ``340 µJ``."""
    scale, unit = next(((s, u) for s, u in _UNITS[metric] if abs(value) * s >= 1), _UNITS[metric][-1])
    return f"{value * scale:.3g} {unit}"


def _measured(lut: Lut) -> list[tuple[str, Metric]]:
    metrics: list[tuple[str, Metric | None]] = [(name, getattr(lut, name)) for name in METRICS]
    return [(name, metric) for name, metric in metrics if metric is not None]


def _chosen(entries: Entries, mask: BoolArray) -> tuple[CellRef, ...]:
    return tuple(entries.cells[index] for index in np.flatnonzero(mask))


# ---- power ----------------------------------------------------------------------------------------------------------


def implied_power(lut: Lut) -> list[Finding]:
    """energy ÷ latency above idle must lie between nothing and what the board can draw."""
    if lut.latency is None or lut.energy is None:
        return []
    entries = Entries.of(lut.space)
    time_s, energy_j = entries.pick(lut.latency, "value"), entries.pick(lut.energy, "value")  # (N,)
    with np.errstate(divide="ignore", invalid="ignore"):
        power_w = energy_j / time_s
        relative = np.hypot(entries.pick(lut.latency, "se") / time_s, entries.pick(lut.energy, "se") / energy_j)
    margin_w = Z * np.nan_to_num(np.abs(power_w) * relative)
    known = np.isfinite(power_w)
    found = [*_no_power(entries, known & (power_w + margin_w <= 0), int(known.sum()))]
    board = board_of(lut)
    idle_w = idle_power_w(lut, board)
    if board is None or idle_w is None:
        return found
    beyond = known & (power_w - margin_w > board.supply_w - idle_w)
    limits = [(beyond, "error", board.supply_w, "its supply can give")]
    if board.busy_w is not None:
        above = known & (power_w - margin_w > board.busy_w - idle_w)
        limits.append((above, "warning", board.busy_w, "it draws with every core busy"))
    for mask, severity, limit_w, what in limits:
        if mask.any():
            worst = int(np.argmax(np.where(mask, power_w, -np.inf)))
            sentence = (
                f"{int(mask.sum())} of {int(known.sum())} cells imply more than {limit_w - idle_w:.2f} W above idle, "
                f"which with {idle_w:.2f} W at rest is the {limit_w:.2f} W that {what}; the most is "
                f"{power_w[worst]:.1f} W ({name_of(lut, entries.cells[worst])})"
            )
            found.append(Finding("implied-power", severity, sentence, "energy", _chosen(entries, mask)))
    return found


def _no_power(entries: Entries, mask: BoolArray, known: int) -> list[Finding]:
    if not mask.any():
        return []
    sentence = (
        f"{int(mask.sum())} of {known} cells imply no power above idle, or less than none: they were not measured"
    )
    return [Finding("implied-power", "error", sentence, "energy", _chosen(entries, mask))]


# ---- skip -----------------------------------------------------------------------------------------------------------


def expensive_skip(lut: Lut) -> list[Finding]:
    """A chosen skip is removed from the network, so that it costs nothing."""
    skip = np.array([[c.spec is not None and c.spec.kind == "skip" for c in row.cells] for row in lut.space.layers])
    found = []
    for name, metric in _measured(lut):
        blocks = np.where(lut.allowed & ~skip, metric.value, np.nan)
        cheapest = np.min(np.nan_to_num(blocks, nan=np.inf), axis=1, keepdims=True)  # (L, 1)
        share = np.where(skip & np.isfinite(cheapest) & (cheapest > 0), metric.value / cheapest, np.nan)
        dear = share > SKIP_SHARE
        if dear.any():
            low, high, layers = float(share[dear].min()), float(share[dear].max()), int(dear.any(axis=1).sum())
            sentence = (
                f"a skip costs {low:.0%} to {high:.0%} of the cheapest block on {layers} layers; it "
                "is removed from a network and costs nothing, so that is call overhead, which every number may hold"
            )
            cells = tuple(CellRef(int(layer), int(op)) for layer, op in np.argwhere(dear))
            found.append(Finding("expensive-skip", "error", sentence, name, cells))
    return found


# ---- twins ----------------------------------------------------------------------------------------------------------


def unequal_twins(lut: Lut) -> list[Finding]:
    """Cells that are the same operator have the same cost."""
    entries = Entries.of(lut.space)
    groups = [places for places in entries.operators().values() if len(places) > 1]
    found = []
    for name, metric in _measured(lut):
        value, se = entries.pick(metric, "value"), entries.pick(metric, "se")
        ratios, differing = [], []
        for places in groups:
            own = places[np.isfinite(value[places]) & (value[places] > 0)]
            if len(own) < 2:
                continue
            ratios.append(float(value[own].max() / value[own].min()))
            if _differ(value[own], se[own], ratios[-1]):
                differing.append((ratios[-1], own))
        if differing:
            found.append(_twins(lut, entries, name, value, ratios, differing))
    return found


def _differ(value: Array, se: Array, ratio: float) -> bool:
    """Whether the numbers of one operator disagree: Cochran's Q where their errors are known, else their ratio."""
    if ratio <= TWIN_RATIO:
        return False
    if not (np.isfinite(se).all() and (se > 0).all()):
        return True
    from scipy.special import chdtrc

    weight = 1 / se**2
    mean = (weight * value).sum() / weight.sum()
    return bool(chdtrc(len(value) - 1, (weight * (value - mean) ** 2).sum()) < TWIN_P)


def _twins(
    lut: Lut,
    entries: Entries,
    name: str,
    value: Array,
    ratios: Sequence[float],
    differing: Sequence[tuple[float, Any]],
) -> Finding:
    median, (worst, places) = float(np.median(ratios)), max(differing, key=lambda pair: pair[0])
    extremes = places[np.argmax(value[places])], places[np.argmin(value[places])]
    where = " and ".join(name_of(lut, entries.cells[index]) for index in extremes)
    sentence = (
        f"{len(differing)} of {len(ratios)} operators that stand on several layers have costs that differ: the dearest "
        f"cell costs {median:.2f} times the cheapest in the median, {worst:.2f} times at worst ({where})"
    )
    cells = tuple(entries.cells[index] for _, own in differing for index in own)
    return Finding("unequal-twins", "error" if median > TWIN_ERROR else "warning", sentence, name, cells)


# ---- costs that fall ------------------------------------------------------------------------------------------------


def cost_falls(lut: Lut) -> list[Finding]:
    """More channels inside a block, or a larger kernel, is more work and costs no less."""
    entries = Entries.of(lut.space)
    pairs = {what: _ordered_pairs(entries, what) for what in ("expansion", "kernel")}
    found = []
    for name, metric in _measured(lut):
        value, se = entries.pick(metric, "value"), entries.pick(metric, "se")
        for what, (small, large) in pairs.items():
            fall = value[small] - value[large]  # (P,)
            joint = np.hypot(se[small], se[large])
            certain = np.where(np.isfinite(joint), fall > Z * joint, fall > FALL_SHARE * value[small])
            mask = np.isfinite(fall) & certain & (fall > 0)
            if not mask.any():
                continue
            share = fall[mask] / value[small][mask]
            worst = int(np.argmax(share))
            a, b = small[mask][worst], large[mask][worst]
            sentence = (
                f"{int(mask.sum())} of {len(fall)} times a larger {what} costs less, by up to {share[worst]:.0%}: "
                f"{name_of(lut, entries.cells[a])} takes {amount(name, float(value[a]))}, "
                f"{lut.space.op_names[entries.cells[b].op]} {amount(name, float(value[b]))}"
            )
            cells = tuple(entries.cells[index] for index in large[mask])
            found.append(Finding("cost-falls", "warning", sentence, name, cells))
    return found


def _ordered_pairs(entries: Entries, what: str) -> tuple[Any, Any]:
    """(P,) and (P,): positions of neighbours on one layer that differ in `what` alone, the smaller one first."""
    pairs: list[tuple[int, int]] = []
    for _, places in entries.within_layers():
        families: dict[tuple[object, ...], list[int]] = {}
        for index in places:
            families.setdefault(_without(entries.specs[index], what), []).append(index)
        for family in families.values():
            pairs += pairwise(sorted(family, key=lambda index: getattr(entries.specs[index], what)))
    table = np.array(pairs, np.intp).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _without(spec: BlockSpec, what: str) -> tuple[object, ...]:
    return tuple(value for name, value in vars(spec).items() if name not in (what, "operator_id"))


# ---- samples --------------------------------------------------------------------------------------------------------


def few_meter_samples(lut: Lut) -> list[Finding]:
    """An energy rests on fresh values of the meter, not on repeats."""
    if lut.energy is None or not lut.provenance.get("meter"):
        return []
    entries = Entries.of(lut.space)
    samples = entries.pick(lut.energy, "n")
    known = np.isfinite(entries.pick(lut.energy, "value"))
    mask = known & (samples < LEAST_SAMPLES)
    if not mask.any():
        return []
    sentence = (
        f"{int(mask.sum())} of {int(known.sum())} energies rest on fewer than {LEAST_SAMPLES} fresh meter samples, the "
        f"least on {int(samples[mask].min())}; profile longer or use a faster meter"
    )
    return [Finding("few-meter-samples", "warning", sentence, "energy", _chosen(entries, mask))]
