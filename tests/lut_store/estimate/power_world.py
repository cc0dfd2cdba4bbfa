"""A small world with known powers, for testing the energy estimator. It shares no formula with it: the meter's lag
has two poles (or whatever is asked for), leakage follows two temperatures, and other processes burst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from agent.energy import schedule
from protos.types import (
    BlockSpec,
    Cell,
    CellRef,
    Layer,
    MeasurementPlan,
    MeterInfo,
    MeterSamples,
    Network,
    PlanItem,
    PowerTrace,
    PowerWindow,
    RunSpec,
    SearchSpace,
)

Array = NDArray[np.float64]
Filter = Callable[[Array, float], Array]

DT_S = 0.01
SUPPLY_V = 5.1
SERIES_OHM = 0.12
IDLE_W = 0.24 * SUPPLY_V
SET_UP_W = 0.6
SET_UP_S = 0.15


def space(layers: int, candidates: int) -> SearchSpace:
    def cell(layer: int, op: int) -> Cell:
        kernel, expansion = 1 + 2 * (op % 4), 1 + op // 4
        return Cell(
            BlockSpec("mbconv", 16 + layer, 17 + layer, kernel, expansion=expansion, input_height=8, input_width=8)
        )

    return SearchSpace(
        "test",
        tuple(f"op{op}" for op in range(candidates)),
        tuple(Layer(tuple(cell(layer, op) for op in range(candidates))) for layer in range(layers)),
    )


def run_spec(layers: int = 10, candidates: int = 10, networks: int = 40, seed: int = 0, **plan: float) -> RunSpec:
    it = space(layers, candidates)
    items = tuple(
        PlanItem(spec, (CellRef(layer, op),))
        for layer in range(layers)
        for op in range(candidates)
        if (spec := it.spec(layer, op)) is not None
    )
    choices = np.random.default_rng(seed).integers(0, candidates, (networks, layers))
    roles = ("fit", "validation")
    nets = tuple(Network(roles[j % 2], tuple(map(int, row))) for j, row in enumerate(choices))
    return RunSpec("test", it, items, nets, MeasurementPlan(**{"energy_budget_s": 1500.0, **plan}), seed=seed)  # type: ignore[arg-type]


def two_poles(first_s: float = 0.32, second_s: float = 0.18) -> Filter:
    def apply(x: Array, dt_s: float) -> Array:
        for tau_s in (first_s, second_s):
            a = -np.expm1(-dt_s / tau_s)
            x = lfilter([a], [1, a - 1], x - x[0]) + x[0]
        return x

    return apply


@dataclass
class World:
    """Truth, and a meter that looks at it. Powers in W above idle, latencies in s; all by item or network."""

    spec: RunSpec
    seed: int = 0
    lag: Filter = field(default_factory=two_poles)
    delay_s: float = 0.12
    rate_hz: float = 2.0
    noise_a: float = 5e-3
    resolution_a: float = 1e-4
    drift_w: float = 0.05
    leakage: float = 1.0
    bursts_per_s: float = 1 / 120
    poll_jitter_s: float = 0.01
    poll_s: float = 0.4  # between two polls of a meter that updates more slowly; 0: every value is seen at once
    set_up_spread: float = 0.2
    structure: float = 1.03
    structure_sd: float = 0.01

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.latency_s = rng.uniform(0.02, 0.15, len(self.spec.items))
        self.power_w = SUPPLY_V * rng.uniform(0.1, 0.5, len(self.spec.items))
        where = {(cell.layer, cell.op): i for i, item in enumerate(self.spec.items) for cell in item.cells}
        chosen = [[where[layer, op] for layer, op in enumerate(n.choices)] for n in self.spec.networks]
        self.seconds = np.zeros((len(chosen), len(self.latency_s)))  # (networks, items)
        for row, items in zip(self.seconds, chosen, strict=True):
            np.add.at(row, items, self.latency_s[items])
        factor = self.structure * (1 + self.structure_sd * rng.standard_normal(len(chosen)))
        self.network_latency_s = self.seconds.sum(1)
        self.network_power_w = factor * (self.seconds @ self.power_w) / self.network_latency_s

    def segments(self, count: int | None = None) -> list[list[PowerTrace]]:
        plan = self.spec.plan
        count = max(1, round(plan.energy_budget_s / plan.segment_s)) if count is None else count
        return [self.segment(index) for index in range(count)]

    def segment(self, index: int, chunks: int = 3) -> list[PowerTrace]:
        """The same every time that it is asked for."""
        self.rng = np.random.default_rng([self.seed, index])
        windows, load_w = self._windows(index)
        start_s = 1000.0 * index + 12.3
        samples = self._sample(self._at_the_board(load_w), start_s)
        windows = [
            PowerWindow(w.subject, w.started_ns + int(start_s * 1e9), w.ended_ns + int(start_s * 1e9), w.index, w.count)
            for w in windows
        ]
        return cut(f"segment-{index}", windows, samples, chunks)

    def _windows(self, index: int) -> tuple[list[PowerWindow], Array]:
        """The windows from time 0, and the load's power on the fine grid (W)."""
        windows, powers = [], []
        now_s = 0.0

        def add(subject: str, number: int, duration_s: float, power_w: float, count: int = 0) -> None:
            nonlocal now_s
            windows.append(PowerWindow(subject, int(now_s * 1e9), int((now_s + duration_s) * 1e9), number, count))
            now_s += duration_s
            powers.append((now_s, power_w))

        for step in schedule(self.spec.plan, len(self.spec.items), len(self.spec.networks), self.spec.seed, index):
            if step.subject == "idle":
                add("idle", 0, step.duration_s, 0.0)
                continue
            item = step.subject == "item"
            each_s = (self.latency_s if item else self.network_latency_s)[step.index]
            count = max(1, round(step.duration_s / each_s))
            power_w = (self.power_w if item else self.network_power_w)[step.index]
            add("gap", 0, SET_UP_S, SET_UP_W * (1 + self.set_up_spread * self.rng.standard_normal()))
            add(step.subject, step.index, count * each_s, power_w, count)
        ends, watts = np.array(powers).T
        # exact areas on the grid: the cumulative energy is interpolated, then differenced
        energy = np.concatenate(([0.0], np.cumsum(np.diff(ends, prepend=0.0) * watts)))
        grid = np.arange(0.0, now_s + DT_S, DT_S)
        return windows, np.diff(np.interp(grid, np.concatenate(([0.0], ends)), energy)) / DT_S

    def _at_the_board(self, load_w: Array) -> Array:
        """Leakage by two temperatures, slow drift and bursts of other processes on top of idle and load (W)."""
        n, rng = len(load_w), self.rng
        total = IDLE_W + load_w
        for tau_s, kelvin_per_w in ((60.0, 2.0), (250.0, 10.0)):
            a = DT_S / tau_s
            total = total + self.leakage * 0.005 * lfilter([a], [1, a - 1], kelvin_per_w * load_w)
        knots = np.arange(0, n * DT_S + 40, 20.0)
        walk = np.cumsum(rng.standard_normal(len(knots))) * self.drift_w / 4
        total = total + np.interp(np.arange(n) * DT_S, knots, walk - walk.mean())
        for at in rng.uniform(0, n, rng.poisson(self.bursts_per_s * n * DT_S)).astype(int):
            total[at : at + int(rng.exponential(1.0) / DT_S) + 1] += 0.06 * SUPPLY_V
        return total

    def _sample(self, power_w: Array, start_s: float) -> MeterSamples:
        rng = self.rng
        current = (SUPPLY_V - np.sqrt(SUPPLY_V**2 - 4 * SERIES_OHM * power_w)) / (2 * SERIES_OHM)
        voltage = SUPPLY_V - SERIES_OHM * current
        grid_s = (np.arange(len(power_w)) + 0.5) * DT_S
        at_s = np.arange(rng.uniform(0.1, 0.1 + 1 / self.rate_hz), grid_s[-1] - self.delay_s - 0.05, 1 / self.rate_hz)
        a = np.interp(at_s, grid_s, self.lag(current, DT_S)) + self.noise_a * rng.standard_normal(len(at_s))
        v = np.interp(at_s, grid_s, self.lag(voltage, DT_S))
        if self.resolution_a:
            a, v = np.round(a / self.resolution_a) * self.resolution_a, np.round(v, 3)
        if self.poll_s:
            polls_s = np.arange(at_s[0] + self.delay_s, at_s[-1] + self.delay_s, self.poll_s)
            polls_s += rng.uniform(0, self.poll_jitter_s, len(polls_s))
            shown = np.searchsorted(at_s + self.delay_s, polls_s, side="right") - 1
        else:
            shown = np.arange(len(at_s))
            polls_s = at_s + self.delay_s
        fresh = np.diff(shown, prepend=-1) > 0
        a, v = a[shown], v[shown]
        t_ns = [int((start_s + t) * 1e9) for t in polls_s]
        return MeterSamples(
            tuple(t_ns), tuple(v.tolist()), tuple(a.tolist()), tuple((v * a).tolist()), tuple(fresh.tolist())
        )


def cut(segment_id: str, windows: list[PowerWindow], samples: MeterSamples, chunks: int) -> list[PowerTrace]:
    """The trace in chunks, as the agent sends it: each with the windows that ended in it and the samples until then."""
    bounds = np.linspace(0, len(windows), chunks + 1).astype(int)
    times = np.array(samples.t_ns)
    out, first = [], 0
    for chunk in range(chunks):
        part = windows[bounds[chunk] : bounds[chunk + 1]]
        last = len(times) if chunk == chunks - 1 else int(np.searchsorted(times, part[-1].ended_ns))
        out.append(
            PowerTrace(
                segment_id, chunk, tuple(part), take(samples, range(first, last)), MeterInfo("test", rate_hz=2.0)
            )
        )
        first = last
    return out


def take(samples: MeterSamples, rows: Sequence[int]) -> MeterSamples:
    """Some of the samples, in the given order."""
    return MeterSamples(
        **{
            name: tuple(getattr(samples, name)[row] for row in rows)
            for name in ("t_ns", "voltage_v", "current_a", "power_w", "fresh")
        }
    )


def moving_average(width_s: float) -> Filter:
    def apply(x: Array, dt_s: float) -> Array:
        n = round(width_s / dt_s)
        return lfilter(np.ones(n) / n, [1], x - x[0]) + x[0]

    return apply
