"""A small agent that speaks the protocol over a real socket, and coordinators for it to talk to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from coordinator.client import Coordinator as Client
from coordinator.server import Coordinator, running
from coordinator.sessions import OWN_VERSION
from lut_store.lut import Lut
from lut_store.store import Store
from protos import agent_pb2, agent_pb2_grpc
from protos.convert import to_message
from protos.identity import aio_channel
from protos.types import Device, LatencyRound, Measurement, MeasurementPlan, PowerTrace, Run, RunSpec
from tests.lut_store.samples import items_of, lut_of, measurement_of, round_of, space_of, trace_of

PATIENCE_S = 60.0
SPACE = space_of(((1, 16, 1),))


def spec_of(device: str = "rpi3b", **plan: Any) -> RunSpec:
    """A run on a space of one layer that is over after four rounds, unless `plan` says otherwise."""
    values = {"rounds_per_task": 2, "target_rel_halfwidth": 0.3, "latency_budget_s": 1e6, **plan}
    return RunSpec(device, SPACE, items_of(SPACE), (), MeasurementPlan(**values))


@dataclass
class Look:
    n: np.ndarray
    rel_halfwidth: np.ndarray


@dataclass
class FakeMethods:
    """Intervals of 1 ÷ rounds, so that a target of 0.3 needs four rounds; a LUT out of thin air."""

    looks: list[int] = field(default_factory=list)
    fail: Exception | None = None

    def look(self, store: Store, run_id: str) -> Look:
        rounds = sum(not m.measurement.flags for m in store.measurements(run_id, "latency"))
        self.looks.append(rounds)
        items = len(store.run(run_id).spec.items)
        return Look(np.full(items, rounds), np.full(items, 1.0 / rounds))

    def build(self, store: Store, run_id: str) -> Lut:
        if self.fail is not None:
            raise self.fail
        ids = sorted(m.measurement.id for kind in ("latency", "power") for m in store.measurements(run_id, kind))
        lut = lut_of(SPACE, provenance={"evidence": ids, "method": {"latency": "paths"}})
        return store.add_lut(lut, [run_id])

    def report(self, store: Store, run_id: str) -> str:
        return f'{{"rounds": {sum(1 for _ in store.measurements(run_id, "latency"))}}}'


def play(scene: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine to its end."""
    asyncio.run(asyncio.wait_for(scene, 2 * PATIENCE_S))


async def until(client: Client, run_id: str, *states: str) -> Run:
    """Wait until the run is in one of the states."""
    while True:
        run = await asyncio.to_thread(client.run, run_id)
        if run.state in states:
            return run
        await asyncio.sleep(0.02)


async def until_device(client: Client, name: str, state: str) -> Device:
    """Wait until the device is in a state."""
    while True:
        for device in await asyncio.to_thread(client.devices):
            if (device.name, device.state) == (name, state):
                return device
        await asyncio.sleep(0.02)


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'edgelut.db'}"


class Clock:
    """The coordinator's seconds: they pass when a test says so. Three heartbeats are 15 of them."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def coordinator(folder: Path, methods: Any = None, **options: Any) -> AsyncIterator[Coordinator]:
    options = {"clock": Clock(), **options}
    async with running("127.0.0.1:0", url_of(folder), methods=methods or FakeMethods(), **options) as own:
        yield own


@asynccontextmanager
async def stage(folder: Path, methods: Any = None, **options: Any) -> AsyncIterator[tuple[str, Client]]:
    """A coordinator's address and a client of it."""
    async with coordinator(folder, methods, **options) as server:
        with Client(server.address, cache=folder / "cache") as client:
            yield server.address, client


class Agent:
    """One session. Acknowledgements, refusals and the rest are kept as they come; `expect` waits for the next of a
    kind.
    """

    def __init__(self, address: str, name: str = "pi-01", certificate: Path | None = None, **hello: Any) -> None:
        self.name = name
        self._hello = {"device_type": "rpi3b", "emulation": "none", "version": OWN_VERSION, **hello}
        self._channel = aio_channel(address, certificate, [("grpc.use_local_subchannel_pool", 1)])
        stub: Any = agent_pb2_grpc.AgentServiceStub(self._channel)
        self.call: Any = stub.Session()
        self._inbox: dict[str, deque[Any]] = {}
        self.acknowledged: list[str] = []
        self.ended_task_ids: list[str] = []
        self.refused: list[agent_pb2.Refuse] = []

    async def __aenter__(self) -> Agent:
        await self.greet()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def greet(self) -> agent_pb2.Welcome:
        hello = agent_pb2.Hello(device=self.name, **self._hello)
        await self.call.write(agent_pb2.AgentMessage(hello=hello))
        welcome: agent_pb2.Welcome = await self.expect("welcome")
        return welcome

    async def expect(self, kind: str) -> Any:
        """The next message of a kind."""
        while not self._inbox.get(kind):
            await self._read()
        return self._inbox[kind].popleft()

    async def _read(self) -> None:
        message = await asyncio.wait_for(self.call.read(), PATIENCE_S)
        if message is grpc.aio.EOF:
            code, details = await self.call.code(), await self.call.details()
            raise ConnectionError(f"{code.name}: {details}")
        kind = message.WhichOneof("body")
        body = getattr(message, kind)
        if kind == "acknowledge":
            self.acknowledged += body.measurement_ids
            self.ended_task_ids += body.ended_task_ids
        elif kind == "refuse":
            self.refused.append(body)
        self._inbox.setdefault(kind, deque()).append(body)

    async def end(self) -> str:
        """Wait until the coordinator ends the stream; its status and sentence."""
        try:
            while True:
                await self._read()
        except ConnectionError as error:
            return str(error)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"

    async def status(self, task_id: str = "", **parts: Any) -> None:
        await self.call.write(agent_pb2.AgentMessage(status=agent_pb2.AgentStatus(task_id=task_id, **parts)))

    async def offer(self, *measurements: Measurement) -> None:
        for measurement in measurements:
            await self.call.write(agent_pb2.AgentMessage(measurement=to_message(measurement)))

    async def settled(self, count: int) -> None:
        """Wait until the coordinator has acknowledged or refused this many in all."""
        while len(self.acknowledged) + len(self.refused) < count:
            await self._read()

    async def task_ended(self, lease: agent_pb2.Lease, reason: str = "", *, wait: bool = True) -> None:
        ended = agent_pb2.TaskEnded(task_id=lease.task_id, fence=lease.fence, reason=reason)
        await self.call.write(agent_pb2.AgentMessage(task_ended=ended))
        while wait and lease.task_id not in self.ended_task_ids:
            await self._read()

    async def perform(self, lease: agent_pb2.Lease, prefix: str = "") -> list[Measurement]:
        """Do a whole task."""
        evidence = evidence_of(lease, prefix)
        await self.offer(*evidence)
        await self.task_ended(lease)
        return evidence

    async def work(self, prefix: str = "") -> None:
        """Perform whatever comes, for ever."""
        while True:
            await self.perform(await self.expect("lease"), prefix)


def evidence_of(lease: agent_pb2.Lease, prefix: str = "", spec: RunSpec | None = None) -> list[Measurement]:
    """Measurements for a lease of a run of `spec_of`; ids are unique to the lease and the prefix."""
    spec = spec or spec_of()
    parts: Sequence[LatencyRound | PowerTrace]
    if lease.kind == "latency":
        parts = [round_of(spec, seed=lease.first_round + n) for n in range(lease.run.plan.rounds_per_task)]
    else:
        parts = [trace_of(seed=n) for n in range(2)]
    return [
        measurement_of(
            lease.task_id, part, fence=lease.fence, sequence=n, name=f"{prefix}{lease.task_id[:20]}-{lease.fence}-{n}"
        )
        for n, part in enumerate(parts)
    ]
