"""Timing blocks and networks, inside the worker: the only module of the agent that imports torch.

A round is one shuffled sequence of executions: random paths through the supernet (or hot loops over single operators)
and the run's whole networks. Before every execution and after the last one the probe runs, a short fixed computation
that tells how fast the machine was at that moment. In the context `cold` a buffer larger than the caches is swept
before an execution, which is then one call; in `steady` an execution is warm-up calls followed by timed calls, back
to back.

Durations come from `time.perf_counter_ns`: on Linux CLOCK_MONOTONIC, so that times of the worker and of the daemon
agree.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from agent.rounds import KINDS, OTHER_TIMED_CALLS, OTHER_WARMUP_CALLS, compose, hot_calls
from nas.blocks import build_block, build_cells, build_fixed, build_network
from protos.errors import BadInputError
from protos.types import (
    FIXED_LAYER,
    BlockSpec,
    LatencyRound,
    NetworkTimings,
    OperatorTimings,
    PathTimings,
    PowerWindow,
    RunSpec,
)

Call = Callable[[], list[int]]  # one call: its clock readings in ns
Times = list[list[int]]  # of every timed call
Timings = TypeVar("Timings", NetworkTimings, OperatorTimings)

# Short beside a network also on a Pi 3B (0.9 million multiply-adds in the two timed calls), and inside any L1 cache.
PROBE = BlockSpec("mbconv", 32, 32, kernel=3, expansion=3, input_height=8, input_width=8)


def time_call(module: nn.Module, x: Tensor) -> list[int]:
    """One call of a network, whatever its role, or of an operator: the clock readings around it in ns."""
    now = time.perf_counter_ns
    start = now()
    module(x)
    return [start, now()]


def time_path(modules: Sequence[nn.Module], x: Tensor) -> list[int]:
    """One call of a path: len(modules) + 1 clock readings in ns."""
    now = time.perf_counter_ns
    times = [now()]
    mark = times.append
    for module in modules:
        x = module(x)
        mark(now())
    return times


@dataclass(frozen=True)
class _Path:
    choices: tuple[int, ...]
    modules: tuple[nn.Module, ...]  # stem, chosen blocks without skips, head
    slots: tuple[int, ...]  # of each module, in stem + layers + head


class Bench:
    """Everything that one run measures, built once.

    `alive` is called between executions and while modules are built, so that whoever waits can tell slow from hung.
    Raises BadInputError when the run cannot be built.
    """

    def __init__(self, run: RunSpec, sweep_bytes: int, alive: Callable[[], None]) -> None:
        torch.set_num_threads(run.plan.threads)
        torch.manual_seed(run.seed)
        self._run = run
        self._plan = run.plan
        self._alive = alive
        self._inputs: dict[tuple[int, int, int, int], Tensor] = {}
        self._stem, self._cells, self._head = self._build_supernet()
        self._operators = [self._operator(index) for index in range(len(run.items))]
        self._networks = []
        for network in run.networks:
            self._networks.append(build_network(run.space, network.choices))
            alive()
        self._probe_block = _built(PROBE)
        self._probe_input = self._input(PROBE)
        self._image = self._input_of(run.space.input_shape)  # (N, C, H, W)
        # Swept by torch, not numpy: with several threads every core empties its own cache. One thread: the same loop.
        cold = run.plan.context == "cold" or run.plan.other_context_every > 0
        self._sweep = torch.ones(sweep_bytes // 4 if cold else 0)  # float32
        self._hot_calls = hot_calls(run.plan)
        self._warm_up()
        gc.unfreeze()
        gc.collect()
        gc.freeze()  # the modules live as long as the run; to look through them took 0.15 s before every window

    # ---- building

    def _build_supernet(self) -> tuple[list[nn.Module], list[list[nn.Module | None]], list[nn.Module]]:
        """Stem, a module per (layer, candidate), head; nothing for the method `isolated`, which needs its items
        alone.
        """
        if self._plan.method == "isolated":
            return [], [], []
        cells = build_cells(self._run.space)
        self._alive()
        stem, head = build_fixed(self._run.space)
        return stem, cells, head

    def _operator(self, index: int) -> nn.Module:
        """The module of an item: that of the first cell that it stands for, where there is a supernet."""
        item = self._run.items[index]
        self._alive()
        self._input(item.spec)
        cell = item.cells[0]
        if self._plan.method == "isolated":
            return _built(item.spec)
        module = (self._stem + self._head)[cell.op] if cell.layer == FIXED_LAYER else self._cells[cell.layer][cell.op]
        if module is None:
            raise BadInputError(f"item {index} is a skip: there is nothing to measure")
        return module

    def _input(self, spec: BlockSpec) -> Tensor:
        return self._input_of((spec.batch, spec.in_channels, spec.input_height, spec.input_width))

    def _input_of(self, shape: tuple[int, int, int, int]) -> Tensor:
        if shape not in self._inputs:
            self._inputs[shape] = torch.randn(shape)
        return self._inputs[shape]

    def _warm_up(self) -> None:
        """Call everything once: a first call makes what later ones find (kernels by shape, work spaces, pages)."""
        space = self._run.space
        specs = [*space.stem, *(cell.spec for layer in space.layers for cell in layer.cells), *space.head]
        modules = [*self._stem, *(module for layer in self._cells for module in layer), *self._head]
        pairs = list(zip(specs, modules, strict=True)) if modules else []
        pairs += [(item.spec, module) for item, module in zip(self._run.items, self._operators, strict=True)]
        with torch.inference_mode():
            for spec, module in pairs:
                if spec is not None and module is not None:
                    module(self._input(spec))
                    self._alive()
            for network in self._networks:
                network(self._image)
                self._alive()
            self._probe()

    # ---- latency

    def latency_round(self, seed: int, round_index: int) -> LatencyRound:
        """One round; the same seed and index give the same paths in the same order."""
        content = compose(self._run, seed, round_index)
        paths = [self._path(choices) for choices in content.paths]
        times: list[Times] = []
        probe_ns = []
        with _undisturbed():
            started_ns = time.perf_counter_ns()
            for kind, index in content.executions:
                probe_ns.append(self._probe())
                times.append(self._execute(kind, index, paths))
                self._alive()
            probe_ns.append(self._probe())
            other = [(index, self._other_context(index)) for index in content.other_context]
            ended_ns = time.perf_counter_ns()
        rows = {kind: [(content.executions[k][1], times[k]) for k in content.positions(kind)] for kind in KINDS}
        return LatencyRound(
            round_index=round_index,
            started_ns=started_ns,
            ended_ns=ended_ns,
            sweep_bytes=self._sweep.nbytes,
            threads=self._plan.threads,
            paths=self._path_timings([(paths[index], calls) for index, calls in rows["path"]]),
            networks=_timings(NetworkTimings, rows["network"]),
            operators=_timings(OperatorTimings, rows["operator"]),
            order=content.order(),
            probe_ns=tuple(probe_ns),
            other_context=_timings(NetworkTimings, other),
        )

    def _path(self, choices: tuple[int, ...]) -> _Path:
        blocks = [self._cells[layer][op] for layer, op in enumerate(choices)]
        modules = [*self._stem, *blocks, *self._head]
        kept = [(slot, module) for slot, module in enumerate(modules) if module is not None]
        return _Path(choices, tuple(module for _, module in kept), tuple(slot for slot, _ in kept))

    def _probe(self) -> int:
        """Two calls of the probe block, in ns, after one that brings it into the caches."""
        block, x = self._probe_block, self._probe_input
        block(x)
        start = time.perf_counter_ns()
        block(x)
        block(x)
        return time.perf_counter_ns() - start

    def _execute(self, kind: str, index: int, paths: Sequence[_Path]) -> Times:
        if kind == "operator":
            call = partial(time_call, self._operators[index], self._input(self._run.items[index].spec))
            return self._hot(call, *self._hot_calls)
        if kind == "path":
            call = partial(time_path, paths[index].modules, self._image)
        else:
            call = partial(time_call, self._networks[index], self._image)
        return self._cold(call) if self._plan.context == "cold" else self._hot(call, *self._hot_calls)

    def _other_context(self, index: int) -> Times:
        """A network in the context that the plan did not choose."""
        call = partial(time_call, self._networks[index], self._image)
        self._alive()
        return (
            self._hot(call, OTHER_WARMUP_CALLS, OTHER_TIMED_CALLS) if self._plan.context == "cold" else self._cold(call)
        )

    def _cold(self, call: Call) -> Times:
        """One call with whatever the caches held swept out."""
        self._sweep += 1.0
        return [call()]

    def _hot(self, call: Call, untimed: int, timed: int) -> Times:
        """Calls back to back; the first of them are not timed."""
        for _ in range(untimed):
            call()
        return [call() for _ in range(timed)]

    def _path_timings(self, rows: Sequence[tuple[_Path, Times]]) -> PathTimings | None:
        if not rows:
            return None
        slots = len(self._stem) + len(self._cells) + len(self._head)
        block_ns: list[int] = []
        total_ns = []
        for path, calls in rows:
            for marks in calls:
                row = [0] * slots
                for slot, start, end in zip(path.slots, marks, marks[1:], strict=False):
                    row[slot] = end - start
                block_ns += row
                total_ns.append(marks[-1] - marks[0])
        return PathTimings(
            calls=len(rows[0][1]),
            choices=tuple(choice for path, _ in rows for choice in path.choices),
            block_ns=tuple(block_ns),
            total_ns=tuple(total_ns),
        )

    # ---- energy

    def load(self, subject: str, index: int, duration_s: float) -> tuple[PowerWindow, PowerWindow]:
        """Run an item or a network back to back for about duration_s: the gap until its first call, then the window.

        Raises BadInputError when there is no such item or network.
        """
        requested_ns = time.perf_counter_ns()
        of_subject: dict[str, Sequence[nn.Module]] = {"item": self._operators, "network": self._networks}
        modules = of_subject.get(subject, ())
        if not 0 <= index < len(modules):
            raise BadInputError(f"{subject} {index} does not exist: this run has {len(modules)} of that kind")
        module = modules[index]
        x = self._input(self._run.items[index].spec) if subject == "item" else self._image
        now, count = time.perf_counter_ns, 0
        with _undisturbed():
            started_ns = ended_ns = now()
            until_ns = started_ns + round(duration_s * 1e9)
            while ended_ns < until_ns:
                module(x)
                count += 1
                ended_ns = now()
        gap = PowerWindow("gap", requested_ns, started_ns, index)
        return gap, PowerWindow(subject, started_ns, ended_ns, index, count)


def _built(spec: BlockSpec) -> nn.Module:
    module = build_block(spec)
    if module is None:
        raise BadInputError(f"{spec.label()} cannot be measured: there is nothing in it")
    return module


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Inference mode, and no garbage collection until the end."""
    gc.collect()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        gc.enable()


def _timings(cls: type[Timings], rows: Sequence[tuple[int, Times]]) -> Timings | None:
    """Of whole networks or operators, by index; None when there were none."""
    if not rows:
        return None
    total_ns = tuple(end - start for _, calls in rows for start, end in calls)
    return cls(len(rows[0][1]), tuple(index for index, _ in rows), total_ns)
