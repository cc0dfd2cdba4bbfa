"""Runs that were measured: real evidence of boards with a known truth, in a store, without an agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from lut_store.store import Store
from protos.types import (
    Device,
    HostFacts,
    HostState,
    LatencyRound,
    Measurement,
    MeterInfo,
    Network,
    PowerTrace,
    RunSpec,
)
from tests.lut_store.estimate.power_world import World, run_spec
from tests.lut_store.estimate.worlds import Machine

LAYERS, CANDIDATES, NETWORKS = 4, 3, 16
ROUNDS = 6
FACTS = HostFacts(
    model="Board 1.2",
    machine="aarch64",
    kernel="6.6.20",
    cpu_count=4,
    python_version="3.11.2",
    torch_version="2.9.1",
    torch_build="release",
    edgelut_version="0.1.0",
)


def spec_of(seed: int = 0, **plan: float) -> RunSpec:
    """A small space; its networks depend on the seed but for two anchors."""
    values = {"energy_budget_s": 120.0, "segment_s": 60.0, "sweep_bytes": 0, **plan}
    spec = run_spec(LAYERS, CANDIDATES, NETWORKS, seed, **values)
    anchors = tuple(Network("anchor", (choice,) * LAYERS) for choice in range(2))
    return replace(spec, device="rpi3b", networks=anchors + spec.networks)


@dataclass(frozen=True)
class Board:
    """One board: how much slower than the type's truth it is, how much more it draws, and what it says of itself."""

    name: str = "pi-01"
    slower: float = 1.0
    hungrier: float = 1.0
    governor: str = "performance"
    meter: MeterInfo = field(default_factory=lambda: MeterInfo("um25c", rate_hz=2.0))
    facts: HostFacts = FACTS
    device_type: str = "rpi3b"
    emulation: str = "none"

    def device(self) -> Device:
        return Device(self.name, self.device_type, self.emulation, facts=self.facts, meter=self.meter)


def record(
    store: Store,
    run_id: str,
    boards: Sequence[Board] = (Board(),),
    *,
    spec: RunSpec | None = None,
    energy: bool = True,
    seed: int = 0,
    state: str = "done",
) -> RunSpec:
    """A run on these boards, one task of rounds each and one of energy, ended."""
    spec = spec or spec_of()
    store.add_run(run_id, spec)
    for number, board in enumerate(boards):
        store.upsert_device(board.device())
        own = seed + 10 * number
        add_task(store, run_id, board, "latency", rounds_of(spec, own, board.slower))
        if energy:
            add_task(store, run_id, board, "energy", traces_of(spec, own, board))
    store.set_run(run_id, state)
    return spec


def true_latency_s(spec: RunSpec) -> list[float]:
    """Seconds of each item on a board that is as slow as its type."""
    return Machine(spec).item_s


@cache
def rounds_of(spec: RunSpec, seed: int, slower: float) -> tuple[LatencyRound, ...]:
    machine = Machine(spec, slow_share=0.1)
    machine.rng.seed(f"{seed} noise")
    machine.item_s = [slower * seconds for seconds in machine.item_s]
    return tuple(
        replace(machine.round(index), sweep_bytes=spec.plan.sweep_bytes, threads=spec.plan.threads)
        for index in range(ROUNDS)
    )


def traces_of(spec: RunSpec, seed: int, board: Board) -> tuple[PowerTrace, ...]:
    return tuple(
        replace(trace, segment_id=f"{board.name}-{trace.segment_id}", meter=board.meter)
        for trace in _traces_of(spec, seed, board.hungrier)
    )


@cache
def _traces_of(spec: RunSpec, seed: int, hungrier: float) -> tuple[PowerTrace, ...]:
    world = World(spec)  # the same truth for every seed
    world.power_w, world.network_power_w = hungrier * world.power_w, hungrier * world.network_power_w
    world.seed = seed
    return tuple(trace for segment in world.segments() for trace in segment)


def add_task(
    store: Store, run_id: str, board: Board, kind: str, parts: Sequence[LatencyRound] | Sequence[PowerTrace]
) -> None:
    """A task of the run that this board has done."""
    lease = store.lease_new_task(run_id, kind, 1, 0, board.name, 1e12)
    offered = [
        Measurement(
            id=f"{run_id}-{board.name}-{kind}-{sequence}",
            task_id=lease.task_id,
            fence=lease.fence,
            sequence=sequence,
            before=_state(board, 1),
            after=_state(board, 2),
            latency=part if isinstance(part, LatencyRound) else None,
            power=part if isinstance(part, PowerTrace) else None,
        )
        for sequence, part in enumerate(parts)
    ]
    outcomes = store.add_measurements(board.name, offered)
    assert {outcome.status for outcome in outcomes} == {"stored"}, outcomes[0]
    store.end_task(lease.task_id, lease.fence)


def _state(board: Board, now_ns: int) -> HostState:
    return HostState(now_ns, temp_c=50.0, frequency_hz=1.2e9, governor=board.governor, throttled_bits=0)
