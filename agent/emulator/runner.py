"""A runner (`agent.runner.Runner`) for an emulated board: what the real worker does, in the board's own time."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TypeVar

import numpy as np

from agent.emulator.clocks import ScaledClock, VirtualClock
from agent.emulator.device import EmulatedDevice, Execution
from agent.emulator.device_operators import Array
from agent.emulator.device_space import SUPERNET, Chain, SpaceModel, weights_name
from agent.host import sweep_bytes
from agent.rounds import KINDS, OTHER_TIMED_CALLS, OTHER_WARMUP_CALLS, compose, hot_calls
from agent.runner import Clock, RunnerError, UnfitError
from nas.opstats import space_memory_bytes
from protos.errors import BadInputError
from protos.types import (
    HostFacts,
    HostState,
    LatencyRound,
    Lease,
    NetworkTimings,
    OperatorTimings,
    PathTimings,
    PlanItem,
    PowerWindow,
    RunSpec,
)

__all__ = ["EmulatedRunner", "ScaledClock", "VirtualClock"]

SYSTEM_BYTES = 230 << 20  # operating system, daemon, and the worker with its framework
TEMP_STEP_C = 0.5  # what the sensor resolves
NS = 1e9
Timings = TypeVar("Timings", NetworkTimings, OperatorTimings)


@dataclass(frozen=True)
class _Prepared:
    run: RunSpec
    model: SpaceModel
    sweep_bytes: int  # 0 when nothing is measured cold
    networks: tuple[Chain, ...]
    operators: tuple[Chain, ...]


class EmulatedRunner:
    """Executes on `device` and lets the time that it takes pass on `clock`.

    The board rests while nothing is asked of it. What was begun goes on to its end, even when the caller was cancelled:
    the next request waits for it.
    """

    def __init__(self, device: EmulatedDevice, clock: Clock) -> None:
        self.device = device
        self.clock: Clock = clock
        self._busy = asyncio.Lock()
        self._prepared: _Prepared | None = None
        self._started = False  # the worker process, which loads the framework
        self._last_state_s: float | None = None

    async def facts(self) -> HostFacts:
        """Those of a real board of the type, marked as emulated."""
        kind = self.device.type
        return HostFacts(
            model=f"{kind.model} (emulated)",
            machine="aarch64",
            kernel="6.6.31+rpt-rpi-v8",
            cpu_count=kind.cores,
            memory_bytes=kind.memory_bytes,
            l2_bytes=kind.cache_bytes,
            llc_bytes=kind.cache_bytes,
            python_version=platform.python_version(),
            torch_version="2.9.1",
            torch_build="emulated",
            edgelut_version=metadata.version("edgelut"),
        )

    async def state(self) -> HostState:
        """The emulated board now; other_cpu_share covers the time since the last call, None on the first."""
        board, now_ns = self.device.board, self.clock.now_ns()
        self.device.rest_until(now_ns / NS)
        return HostState(
            monotonic_ns=now_ns,
            wall_time_s=time.time(),
            temp_c=round(board.temp_c / TEMP_STEP_C) * TEMP_STEP_C,
            frequency_hz=board.frequency_hz,
            governor="performance",
            throttled_bits=board.throttled_bits,
            load_1m=round(board.load_1m, 2),
            memory_available_bytes=self._free_bytes(self._prepared.run if self._prepared is not None else None),
            other_cpu_share=self._other_cpu(now_ns / NS),
        )

    async def prepare(self, run: RunSpec) -> None:
        """Raises UnfitError for what the board cannot do: more threads than cores, more modules than memory."""
        async with self._busy:
            if self._prepared is not None and self._prepared.run == run:
                return
            plan, kind = run.plan, self.device.type
            try:
                model = self.device.model(run.space, plan.threads)
            except BadInputError as error:
                raise UnfitError(str(error)) from error
            swept = plan.sweep_bytes or sweep_bytes(kind.cache_bytes, kind.cache_bytes)
            cold = plan.context == "cold" or plan.other_context_every > 0
            networks = tuple(model.network(n.choices, SUPERNET + 1 + index) for index, n in enumerate(run.networks))
            operators = tuple(_operator(model, index, item) for index, item in enumerate(run.items))
            if self._free_bytes(run) < 0:
                raise UnfitError(
                    f"the worker would be killed: {run.space.name} with {len(run.networks)} networks needs "
                    f"{-self._free_bytes(run) / 1e6:.0f} MB more than {kind.name} has"
                )
            await self._begin()
            self.device.restart()
            supernet = operators if plan.method == "isolated" else model.cells()
            self.device.build(model, (*supernet, *networks), 0.0 if self._started else kind.start_s)
            self._started = True
            self._prepared = _Prepared(run, model, swept if cold else 0, networks, operators)
            await self._end()

    async def latency_round(self, lease: Lease, round_index: int) -> LatencyRound:
        """The same random paths, in the same order, as the real worker times for this lease and round."""
        async with self._busy:
            ready = self._ready()
            content = compose(ready.run, lease.seed, round_index)
            paths = [ready.model.network(choices) for choices in content.paths]
            chains = {"path": paths, "network": ready.networks, "operator": ready.operators}
            cold = ready.run.plan.context == "cold"
            executions = [
                self._execution(chains[kind][index], cold and kind != "operator") for kind, index in content.executions
            ]
            others = [
                Execution(ready.networks[index], False, OTHER_WARMUP_CALLS, OTHER_TIMED_CALLS)
                if cold
                else self._execution(ready.networks[index], True)
                for index in content.other_context
            ]
            await self._begin()
            timings = self.device.execute(ready.model, executions, ready.sweep_bytes)
            other = self.device.execute(ready.model, others, ready.sweep_bytes, probes=False)
            await self._end()
        rows = {kind: content.positions(kind) for kind in KINDS}
        index = [ran[1] for ran in content.executions]
        network_rows = [(index[k], timings.times_s[k]) for k in rows["network"]]
        operator_rows = [(index[k], timings.times_s[k]) for k in rows["operator"]]
        return LatencyRound(
            round_index=round_index,
            started_ns=_ns(timings.started_s),
            ended_ns=_ns(other.ended_s),
            sweep_bytes=ready.sweep_bytes,
            threads=ready.run.plan.threads,
            paths=_path_timings(
                ready.model, [(content.paths[index[k]], paths[index[k]], timings.times_s[k]) for k in rows["path"]]
            ),
            networks=_totals(NetworkTimings, network_rows),
            operators=_totals(OperatorTimings, operator_rows),
            order=content.order(),
            probe_ns=tuple(_ns(probe_s) for probe_s in timings.probes_s),
            other_context=_totals(NetworkTimings, list(zip(content.other_context, other.times_s, strict=True))),
        )

    def _execution(self, chain: Chain, cold: bool) -> Execution:
        """One call after a sweep, or a hot loop."""
        return Execution(chain, True, 0, 1) if cold else Execution(chain, False, *hot_calls(self._ready().run.plan))

    async def load(self, subject: str, index: int, duration_s: float) -> tuple[PowerWindow, ...]:
        """A gap, then the item or the network back to back. Raises RunnerError when there is none of that index."""
        async with self._busy:
            ready = self._ready()
            chains = {"item": ready.operators, "network": ready.networks}.get(subject, ())
            if not 0 <= index < len(chains):
                raise RunnerError(f"{subject} {index} does not exist: this run has {len(chains)} of that kind")
            await self._begin()
            loop = self.device.loop(ready.model, chains[index], duration_s)
            await self._end()
        gap = PowerWindow("gap", _ns(loop.requested_s), _ns(loop.started_s), index)
        return gap, PowerWindow(subject, _ns(loop.started_s), _ns(loop.ended_s), index, loop.count)

    async def idle(self, duration_s: float) -> PowerWindow:
        async with self._busy:
            await self._begin()
            started_s = self.device.now_s
            self.device.rest_until(started_s + duration_s)
            await self._end()
        return PowerWindow("idle", _ns(started_s), _ns(self.device.now_s))

    async def close(self) -> None:
        """The worker is gone; `prepare` may start another one."""
        self._prepared, self._started = None, False

    def _ready(self) -> _Prepared:
        if self._prepared is None:
            raise RunnerError("no worker runs; prepare the run again")
        return self._prepared

    async def _begin(self) -> None:
        """Wait for what still runs on the board, and let it rest until now."""
        await self._end()
        self.device.rest_until(self.clock.now_ns() / NS)

    async def _end(self) -> None:
        """Let the clock go on to where the board has got."""
        while (left_ns := _ns(self.device.now_s) - self.clock.now_ns()) > 0:
            await self.clock.sleep(left_ns / NS)

    def _other_cpu(self, now_s: float) -> float | None:
        """Cores that other processes used since the last time, on average."""
        since_s, self._last_state_s = self._last_state_s, now_s
        if since_s is None or now_s <= since_s:
            return None
        bursts = self.device.board.disturbances.bursts(since_s, now_s)
        return sum(burst.overlap_s(since_s, now_s) for burst in bursts) / (now_s - since_s)

    def _free_bytes(self, run: RunSpec | None) -> int:
        """Memory that is left beside everything that `run` needs."""
        needed_bytes = space_memory_bytes(run.space, run.networks) if run is not None else 0
        return self.device.type.memory_bytes - SYSTEM_BYTES - needed_bytes


def _operator(model: SpaceModel, index: int, item: PlanItem) -> Chain:
    """The operator in the first cell that the item stands for."""
    row = model.row(item.cells[0])
    if row < 0:
        raise RunnerError(f"item {index} is a skip: there is nothing to measure")
    return model.alone(row, weights_name(item.cells[0]))


def _ns(seconds: float) -> int:
    return round(seconds * NS)


def _path_timings(model: SpaceModel, rows: Sequence[tuple[tuple[int, ...], Chain, Array]]) -> PathTimings | None:
    """Of (choices, chain, seconds of its blocks (calls, n)) in the order in which they ran."""
    if not rows:
        return None
    space, calls = model.space, len(rows[0][2])
    slots = len(space.stem) + len(space.layers) + len(space.head)
    block_ns = np.zeros((len(rows), calls, slots), np.int64)
    for row, (_, chain, blocks_s) in enumerate(rows):
        block_ns[row][:, chain.slots] = np.maximum(1, np.rint(blocks_s * NS))
    return PathTimings(
        calls=calls,
        choices=tuple(choice for choices, _, _ in rows for choice in choices),
        block_ns=tuple(block_ns.ravel().tolist()),
        total_ns=tuple(block_ns.sum(axis=2).ravel().tolist()),
    )


def _totals(cls: type[Timings], rows: Sequence[tuple[int, Array]]) -> Timings | None:
    """Of whole networks or operators: (index, seconds of its blocks (calls, n)); None when there were none."""
    if not rows:
        return None
    total_ns = [max(1, _ns(float(call_s))) for _, blocks_s in rows for call_s in blocks_s.sum(axis=1)]
    return cls(len(rows[0][1]), tuple(index for index, _ in rows), tuple(total_ns))
