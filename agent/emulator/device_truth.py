"""The truth about an emulated board: what operators and networks cost without noise, in each context.

Energy is above idle: the power that the board draws while it runs the operator (or the network) back to back, as in an
energy window, times the latency in the context.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.emulator.device_cache import Cache
from agent.emulator.device_operators import Array, IntArray
from agent.emulator.device_space import Chain, SpaceModel
from protos.types import FIXED_LAYER, BlockSpec, CellRef, SearchSpace

TRUTH_PATHS = 6000  # random paths: a cell of nine candidates is on 667 of them, and its mean is known to 0.1–0.3 %
_PATHS_AT_ONCE = 500  # so that the arrays stay small


@dataclass(frozen=True)
class Cost:
    """Latency in the context, power above idle in an energy window, and their product."""

    latency_s: float
    power_w: float

    @property
    def energy_j(self) -> float:
        return self.latency_s * self.power_w


@dataclass(frozen=True)
class Truth:
    """The operators of a space in one context; arrays (layers, candidates) and (stem + head,), NaN where not allowed.

    latency_s: mean over random paths. power_w: above idle, in a hot loop of the operator alone. path_power_w: the same
    of the operator inside paths that run back to back; it differs a little, because other things are in the cache.
    """

    latency_s: Array
    power_w: Array
    path_power_w: Array
    fixed_latency_s: Array
    fixed_power_w: Array
    fixed_path_power_w: Array

    @property
    def energy_j(self) -> Array:
        return self.latency_s * self.power_w

    @property
    def fixed_energy_j(self) -> Array:
        return self.fixed_latency_s * self.fixed_power_w

    def of(self, cells: Sequence[CellRef]) -> Cost:
        """Of one operator that stands in several cells: their mean."""

        def mean(fixed: Array, layers: Array) -> float:
            values = [fixed[c.op] if c.layer == FIXED_LAYER else layers[c.layer, c.op] for c in cells]
            return float(np.mean(values))

        return Cost(mean(self.fixed_latency_s, self.latency_s), mean(self.fixed_power_w, self.power_w))


def cells_of(space: SearchSpace, spec: BlockSpec) -> tuple[CellRef, ...]:
    """Every cell of the space that holds this operator."""
    fixed = [CellRef(FIXED_LAYER, op) for op, found in enumerate(space.stem + space.head) if found == spec]
    cells = [
        CellRef(layer, op)
        for layer, row in enumerate(space.layers)
        for op, cell in enumerate(row.cells)
        if cell.spec == spec
    ]
    return (*fixed, *cells)


def true_network(model: SpaceModel, choices: Sequence[int], context: str) -> Cost:
    """A whole network."""
    chain = model.network(choices)
    hot_s, hot_j = loop(model, chain, Cache.of(model.board))
    if context == "steady":
        return Cost(float(hot_s.sum()), float(hot_j.sum() / hot_s.sum()))
    cold_s, _ = swept(model, [chain])
    return Cost(float(cold_s.sum()), float(hot_j.sum() / hot_s.sum()))


def true_operators(model: SpaceModel, context: str, paths: int = TRUTH_PATHS) -> Truth:
    """Every operator: the mean over random paths, in which every candidate of a layer appears equally often."""
    slots = len(model.space.stem) + len(model.space.layers) + len(model.space.head)
    shape = (slots, len(model.table.operators))
    steady_s, steady_j, cold_s, count = (np.zeros(shape) for _ in range(4))
    drawn = _balanced_paths(model, paths)
    for start in range(0, paths, _PATHS_AT_ONCE):
        chains = [model.network(choices) for choices in drawn[start : start + _PATHS_AT_ONCE]]
        at = (np.concatenate([c.slots for c in chains]), np.concatenate([c.rows for c in chains]))
        seconds, joules = repeated(model, chains)
        np.add.at(steady_s, at, seconds)
        np.add.at(steady_j, at, joules)
        np.add.at(count, at, 1)
        if context == "cold":
            np.add.at(cold_s, at, swept(model, chains)[0])
    with np.errstate(invalid="ignore"):  # 0 / 0: an operator that never stands in this slot
        latency_s = (cold_s if context == "cold" else steady_s) / count
        path_power_w = steady_j / steady_s
    return _arranged(model, latency_s, path_power_w)


def _arranged(model: SpaceModel, latency_s: Array, path_power_w: Array) -> Truth:
    """From (slots, rows of the cost table) to cells. A skip costs nothing, by definition."""
    space, (layers, candidates) = model.space, model.space.shape
    stem, fixed = len(space.stem), len(space.stem) + len(space.head)
    hot_w = [_hot_power_w(model, row) for row in range(len(model.table.operators))]
    cells = np.full((3, layers, candidates), np.nan)
    for layer in range(layers):
        for op in space.allowed(layer):
            row = model.row(CellRef(layer, op))
            cells[:, layer, op] = (
                (latency_s[stem + layer, row], hot_w[row], path_power_w[stem + layer, row]) if row >= 0 else 0.0
            )
    ends = np.zeros((3, fixed))
    for op in range(fixed):
        row, slot = model.row(CellRef(FIXED_LAYER, op)), op if op < stem else op + layers
        ends[:, op] = (latency_s[slot, row], hot_w[row], path_power_w[slot, row])
    return Truth(*cells, *ends)


def _hot_power_w(model: SpaceModel, row: int) -> float:
    seconds, joules = loop(model, model.alone(row), Cache.of(model.board))
    return float(joules.sum() / seconds.sum())


def _balanced_paths(model: SpaceModel, count: int) -> list[tuple[int, ...]]:
    """`count` random paths. Layers are independent; on each, every allowed candidate comes equally often."""
    rng, columns = random.Random("truth"), []
    for layer in range(len(model.space.layers)):
        allowed = model.space.allowed(layer)
        column = [allowed[index % len(allowed)] for index in range(count)]
        rng.shuffle(column)
        columns.append(column)
    return list(zip(*columns, strict=True))


def swept(model: SpaceModel, chains: Sequence[Chain]) -> tuple[Array, Array]:
    """(seconds, joules) of all operators of all chains, each called once after a sweep; (n,)."""
    missing = [chain.walk_swept(Cache.of(model.board), model.board.memory) for chain in chains]
    return _cost(model, chains, [chain.after_nothing for chain in chains], missing)


def repeated(model: SpaceModel, chains: Sequence[Chain]) -> tuple[Array, Array]:
    """(seconds, joules) of all operators of all chains, each in its second call in a row; a third would be the same."""
    missing = []
    for chain in chains:
        cache = Cache.of(model.board)
        chain.walk(cache)
        missing.append(chain.walk(cache))
    return _cost(model, chains, [chain.after_itself for chain in chains], missing)


def loop(model: SpaceModel, chain: Chain, cache: Cache) -> tuple[Array, Array]:
    """(seconds, joules) of the operators of one chain that runs back to back; leaves the cache as the loop does."""
    chain.walk(cache)
    return model.table.cost(chain.rows, chain.after_itself, chain.walk(cache), chain.footprint)


def _cost(
    model: SpaceModel, chains: Sequence[Chain], previous: Sequence[IntArray], missing: Sequence[Array]
) -> tuple[Array, Array]:
    rows = np.concatenate([chain.rows for chain in chains])
    footprint = np.concatenate([chain.footprint for chain in chains])
    return model.table.cost(rows, np.concatenate(previous), np.concatenate(missing), footprint)
