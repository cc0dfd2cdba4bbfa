"""An analytic board whose true latency and energy of every operator and network are known numbers.

It stands in for a Raspberry Pi where there is none. Its world has another form than the estimators that are tested on
it: networks are not exactly the sum of their operators, because caches and predecessors matter; power is not a constant
per operator; the chip warms up with two time constants and leaks; other processes come and go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.emulator.device_board import Board
from agent.emulator.device_cache import Cache
from agent.emulator.device_disturbance import WINDOW_POWER_SD, Settings
from agent.emulator.device_operators import Array, IntArray
from agent.emulator.device_space import Chain, SpaceModel
from agent.emulator.device_supply import BoardSupply
from agent.emulator.device_truth import Cost, Truth, cells_of, loop, swept, true_network, true_operators
from agent.emulator.device_types import DeviceType, device_type
from protos.errors import BadInputError, NotFoundError
from protos.types import CONTEXTS, BlockSpec, CellRef, SearchSpace

SETUP_S = 2e-3  # before an execution: modules and input are fetched
GAP_S, GAP_SD = 0.15, 0.2  # before a load; relative spread of its duration and power
LOOP_SLICE_S = 0.5  # what disturbs a loop is looked at so often
PROBE_CALLS = 1.5  # the probe's untimed call is half of what is timed


@dataclass(frozen=True)
class Execution:
    """A chain with all its calls: after a sweep, or after so many untimed warm-up calls."""

    chain: Chain
    swept: bool
    warmup: int
    calls: int


@dataclass(frozen=True)
class Timings:
    """What a sequence of executions took, in the order in which they ran."""

    started_s: float
    ended_s: float
    times_s: tuple[Array, ...]  # per execution: (calls, n)
    probes_s: tuple[float, ...]  # before each execution and after the last


@dataclass(frozen=True)
class Loop:
    """A chain that ran back to back `count` times, after a gap in which it was set up."""

    requested_s: float
    started_s: float
    ended_s: float
    count: int


@dataclass(frozen=True)
class _Visit:
    """One call of a chain as the cache saw it, and how often it came the same way."""

    chain: Chain
    previous: IntArray
    missing: Array
    times: int


class EmulatedDevice:
    """One board. The same type, seed, settings and calls give the same times.

    `supply` is what a meter measures. Device time goes on only by what the board is asked to do. Raises BadInputError
    for a type that does not exist.
    """

    def __init__(self, kind: str | DeviceType, seed: int = 0, settings: Settings | None = None) -> None:
        self.type = device_type(kind) if isinstance(kind, str) else kind
        self.settings = settings or Settings()
        self.board = Board(self.type, seed, self.settings)
        self._cache = Cache.of(self.type)
        self._models: dict[tuple[str, int], SpaceModel] = {}
        self._truths: dict[tuple[str, int, str], Truth] = {}

    @property
    def now_s(self) -> float:
        return self.board.now_s

    @property
    def supply(self) -> BoardSupply:
        return self.board.supply

    def model(self, space: SearchSpace, threads: int) -> SpaceModel:
        """The space on this board; raises BadInputError when the board has fewer cores than that."""
        if not 1 <= threads <= self.type.cores:
            raise BadInputError(
                f"{threads} threads cannot be measured on {self.type.name}: it has {self.type.cores} cores."
            )
        key = space.digest, threads
        if key not in self._models:
            self._models[key] = SpaceModel(self.type, space, threads)
        return self._models[key]

    # ---- the truth

    def truth(self, space: SearchSpace, context: str, threads: int = 1) -> Truth:
        """Every operator of the space; takes some seconds the first time. Raises BadInputError for another context."""
        _check_context(context)
        key = space.digest, threads, context
        if key not in self._truths:
            self._truths[key] = true_operators(self.model(space, threads), context)
        return self._truths[key]

    def true_operator(
        self, space: SearchSpace, operator: BlockSpec | CellRef, context: str, threads: int = 1
    ) -> tuple[float, float]:
        """(latency_s, energy_j) of one cell, or the mean over all cells that hold the operator.

        Latency: the mean over random paths in the context. Energy: that times the power of the operator's hot loop.
        """
        cost = self.operator_cost(space, operator, context, threads)
        return cost.latency_s, cost.energy_j

    def operator_cost(self, space: SearchSpace, operator: BlockSpec | CellRef, context: str, threads: int = 1) -> Cost:
        """The same, with the power apart. Raises NotFoundError for an operator that the space does not have."""
        cells = cells_of(space, operator) if isinstance(operator, BlockSpec) else (operator,)
        if not cells:
            raise NotFoundError(f"Space {space.name} does not hold the operator that was asked for: {operator}.")
        return self.truth(space, context, threads).of(cells)

    def true_network(
        self, space: SearchSpace, choices: Sequence[int], context: str, threads: int = 1
    ) -> tuple[float, float]:
        """(latency_s, energy_j) of a whole network. Raises ValueError for a choice that is not allowed."""
        cost = self.network_cost(space, choices, context, threads)
        return cost.latency_s, cost.energy_j

    def network_cost(self, space: SearchSpace, choices: Sequence[int], context: str, threads: int = 1) -> Cost:
        """The same, with the power apart."""
        _check_context(context)
        space.check_choices(tuple(choices))
        return true_network(self.model(space, threads), choices, context)

    # ---- work, which takes device time

    def restart(self) -> None:
        """A new worker process: its modules lie elsewhere in memory."""
        self.board.scatter.restart()

    def rest_until(self, time_s: float) -> None:
        self.board.rest_until(time_s)

    def build(self, model: SpaceModel, chains: Sequence[Chain], start_s: float) -> None:
        """Build the modules of all chains and call each once; before, the start of the process takes start_s."""
        kind = self.type
        self.board.run(start_s + kind.build_s * sum(len(chain.rows) for chain in chains), kind.power.gap_w, 1)
        seconds, joules = swept(model, chains)
        self.board.run(float(seconds.sum()), float(joules.sum() / seconds.sum()), model.table.threads)

    def execute(
        self, model: SpaceModel, executions: Sequence[Execution], sweep_bytes: int = 0, probes: bool = True
    ) -> Timings:
        """Run executions one after another, with a probe before each and after the last unless probes are left out."""
        started_s = self.now_s
        visits = [self._visit(execution, sweep_bytes) for execution in executions]
        costs = self._costs(model, [visit for both in visits for visit in both])
        times_s, probes_s = [], []
        position = 0
        for execution, both in zip(executions, visits, strict=True):
            mine = costs[position : position + len(both)]
            position += len(both)
            if probes:
                probes_s.append(self._probe(model))
            self.board.run(SETUP_S, model.table.busy_w, model.table.threads)
            if execution.swept:
                self._sweep(model, sweep_bytes)
            base_s = np.concatenate([np.tile(s, (v.times, 1)) for v, (s, _) in zip(both, mine, strict=True)])
            joules = sum(v.times * float(j.sum()) for v, (_, j) in zip(both, mine, strict=True))
            took_s = self._timed(execution.chain, base_s)
            self.board.run(float(took_s.sum()), joules / float(base_s.sum()), model.table.threads)
            times_s.append(took_s[execution.warmup :])
        if probes:
            probes_s.append(self._probe(model))
        return Timings(started_s, self.now_s, tuple(times_s), tuple(probes_s))

    def loop(self, model: SpaceModel, chain: Chain, duration_s: float) -> Loop:
        """Set a chain up and run it back to back until duration_s is over, as in an energy window."""
        scatter, threads = self.board.scatter, model.table.threads
        requested_s = self.now_s
        self.board.run(scatter.around(GAP_S, GAP_SD), scatter.around(self.type.power.gap_w, GAP_SD), 1)
        seconds, joules = loop(model, chain, self._cache)
        placed_s = float((seconds * scatter.placed(chain.weights)).sum())
        power_w = scatter.around(float(joules.sum() / seconds.sum()), WINDOW_POWER_SD)
        started_s, count = self.now_s, 0
        while self.now_s < started_s + duration_s - 1e-9:
            call_s = placed_s * self.board.slowdown()
            calls = max(1, int(np.ceil(min(LOOP_SLICE_S, started_s + duration_s - self.now_s) / call_s - 1e-9)))
            took_s = calls * call_s * scatter.mean(calls)
            for burst in self.board.bursts(took_s):
                took_s += (burst.slowdown - 1) * burst.overlap_s(self.now_s, self.now_s + took_s)
            self.board.run(took_s, power_w, threads)
            count += calls
        return Loop(requested_s, started_s, self.now_s, count)

    def _visit(self, execution: Execution, sweep_bytes: int) -> list[_Visit]:
        """Go through the cache. From the second call on everything repeats: what is left in it is the chain's own."""
        chain, cache = execution.chain, self._cache
        calls = execution.warmup + execution.calls
        if execution.swept:
            cache.sweep(sweep_bytes)
            first = _Visit(chain, chain.after_nothing, chain.walk_swept(cache, self.type.memory), 1)
        else:
            first = _Visit(chain, chain.after_nothing, chain.walk(cache), 1)
        if calls == 1:
            return [first]
        return [first, _Visit(chain, chain.after_itself, chain.walk(cache), calls - 1)]

    @staticmethod
    def _costs(model: SpaceModel, visits: Sequence[_Visit]) -> list[tuple[Array, Array]]:
        """(seconds, joules) of the operators of each visit, all calculated at once."""
        if not visits:
            return []
        seconds, joules = model.table.cost(
            np.concatenate([visit.chain.rows for visit in visits]),
            np.concatenate([visit.previous for visit in visits]),
            np.concatenate([visit.missing for visit in visits]),
            np.concatenate([visit.chain.footprint for visit in visits]),
        )
        cuts = np.cumsum([len(visit.chain.rows) for visit in visits])[:-1]
        return list(zip(np.split(seconds, cuts), np.split(joules, cuts), strict=True))

    def _timed(self, chain: Chain, base_s: Array) -> Array:
        """(calls, n) durations from now on, with all that disturbs them."""
        took_s = self.board.scatter.calls(base_s * self.board.scatter.placed(chain.weights)) * self.board.slowdown()
        total_s = float(took_s.sum())
        for burst in self.board.bursts(total_s):
            starts_s = self.now_s + (np.cumsum(took_s) - took_s.ravel()).reshape(took_s.shape)
            during = (starts_s >= burst.started_s) & (starts_s < burst.ended_s)
            took_s = took_s * np.where(during, burst.slowdown, 1.0)
        return took_s

    def _probe(self, model: SpaceModel) -> float:
        board = self.board
        took_s = self.type.probe_s * board.slowdown() * board.scatter.short()
        if board.bursts(took_s):
            took_s *= board.bursts(took_s)[0].slowdown
        board.run(PROBE_CALLS * took_s, model.table.busy_w + self.type.power.compute_w[0] / 2, model.table.threads)
        return took_s

    def _sweep(self, model: SpaceModel, size_bytes: int) -> None:
        """Read and write a buffer."""
        took_s = 2 * size_bytes / model.table.dram_rate * self.board.slowdown()
        self.board.run(took_s, model.table.busy_w + self.type.power.dram_w, model.table.threads)


def _check_context(context: str) -> None:
    if context not in CONTEXTS:
        raise BadInputError(f"The context is {context!r}; it must be one of {', '.join(CONTEXTS)}.")
