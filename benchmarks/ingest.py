"""Figure 6: durable ingest, messages a second, ÷ a bare grpc.aio stream that commits the same rows.

Both are processes of their own and get the same measurements (cold rounds of fbnet-cifar10) over loopback; both
commit to SQLite with the same pragmas, in groups of whatever has arrived, and acknowledge after the commit. The pairs
alternate. The servers' CPU time is printed beside: on a machine with other work it says more than the clock.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import grpc

from agent.emulator.clocks import VirtualClock
from agent.emulator.device import EmulatedDevice
from agent.emulator.runner import EmulatedRunner
from benchmarks.runs import Serving, coordinator_process, keep, server_process
from coordinator.client import Coordinator
from coordinator.plan import make_run
from nas.space import load_space
from protos import agent_pb2, agent_pb2_grpc, common_pb2
from protos.convert import to_message
from protos.types import Lease, RunSpec

MESSAGES = 2000
WARM_UP = 200  # before the clock runs: imports, the rules of the run
PAIRS = 7
IN_FLIGHT = 256  # offered and not yet acknowledged


class Rate(NamedTuple):
    """Of one server: messages a second, and its CPU time for each."""

    per_s: float
    cpu_s: float


def main() -> None:
    spec = endless_run()
    template = asyncio.run(round_message(spec))
    found: dict[str, list[Rate]] = {"edgelut": [], "bare": []}
    for _ in range(PAIRS):
        for name, serve in (("edgelut", _edgelut), ("bare", _bare)):
            with tempfile.TemporaryDirectory(prefix="edgelut-bench-") as folder, serve(Path(folder)) as serving:
                asyncio.run(stream(serving.address, spec, template, submit=name == "edgelut", messages=WARM_UP))
                started_s = serving.cpu_s()
                rate = asyncio.run(stream(serving.address, spec, template, submit=name == "edgelut"))
                found[name].append(Rate(rate, (serving.cpu_s() - started_s) / MESSAGES))
    size = template.ByteSize()
    for name, own in found.items():
        rate, cpu_s = median(r.per_s for r in own), median(r.cpu_s for r in own)
        print(f"{name:8} {rate:7.0f} messages/s of {size} bytes, {cpu_s * 1e6:.0f} µs of CPU each (median of {PAIRS})")
    pairs = list(zip(found["edgelut"], found["bare"], strict=True))
    _print_ratio("ratio edgelut ÷ bare, messages a second", [ours.per_s / bare.per_s for ours, bare in pairs])
    _print_ratio("ratio bare ÷ edgelut, CPU of the server", [bare.cpu_s / ours.cpu_s for ours, bare in pairs])
    keep("ingest", {"bytes": size, "rates": found})


def _print_ratio(what: str, values: list[float]) -> None:
    print(f"{what}: {median(values):.2f} ({min(values):.2f} … {max(values):.2f})")


def endless_run() -> RunSpec:
    """A run that is not over while measurements come in: what is measured is ingest, not the arithmetic of a build."""
    spec = make_run(load_space("fbnet-cifar10"), "rpi3b", preset="standard", meter="none")
    return replace(spec, plan=replace(spec.plan, latency_budget_s=1e12))


async def round_message(spec: RunSpec) -> common_pb2.Measurement:
    runner = EmulatedRunner(EmulatedDevice("rpi3b", 0), VirtualClock())
    await runner.prepare(spec)
    before = await runner.state()
    result = await runner.latency_round(Lease("t", 1, "r", "latency", 1, 0, spec), 0)
    message = common_pb2.Measurement(before=to_message(before), after=to_message(await runner.state()))
    message.latency.CopyFrom(to_message(result))
    message.flags.append("hot")  # nor are such rounds looked at while they come in
    return message


async def stream(
    address: str, spec: RunSpec, template: common_pb2.Measurement, *, submit: bool, messages: int = MESSAGES
) -> float:
    """Messages a second from the first offer to the last acknowledgement."""
    acknowledged, room = 0, asyncio.Semaphore(IN_FLIGHT)
    outbox: asyncio.Queue[agent_pb2.AgentMessage] = asyncio.Queue()

    async def requests() -> AsyncIterator[agent_pb2.AgentMessage]:
        while True:
            yield await outbox.get()

    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = agent_pb2_grpc.AgentServiceStub(channel).Session(requests())
        hello = agent_pb2.Hello(device="pi-01", device_type="rpi3b", emulation="none", version="0.1.0")
        await outbox.put(agent_pb2.AgentMessage(hello=hello))
        reader = aiter(call)
        task_id, fence = "task", 1
        if submit:
            await anext(reader)  # Welcome
            with Coordinator(address) as client:
                await asyncio.to_thread(client.submit, spec, uuid.uuid4().hex)
            lease = await _lease(reader)
            task_id, fence = lease.task_id, lease.fence

        async def offer() -> None:
            for sequence in range(messages):
                await room.acquire()
                message = common_pb2.Measurement()
                message.CopyFrom(template)
                message.id, message.task_id, message.fence, message.sequence = (
                    uuid.uuid4().hex,
                    task_id,
                    fence,
                    sequence,
                )
                await outbox.put(agent_pb2.AgentMessage(measurement=message))

        started_s = time.perf_counter()
        sending = asyncio.create_task(offer())
        async for answer in reader:
            if answer.WhichOneof("body") == "refuse":
                raise RuntimeError(f"refused: {answer.refuse.message}")
            for _ in answer.acknowledge.measurement_ids:
                acknowledged += 1
                room.release()
            if acknowledged >= messages:
                break
        took_s = time.perf_counter() - started_s
        await sending
        call.cancel()
    return messages / took_s


async def _lease(reader: AsyncIterator[agent_pb2.CoordinatorMessage]) -> agent_pb2.Lease:
    async for message in reader:
        if message.WhichOneof("body") == "lease":
            return message.lease
    raise RuntimeError("the session ended without a lease")


@contextmanager
def _edgelut(folder: Path) -> Iterator[Serving]:
    with coordinator_process(f"sqlite:///{folder / 'edgelut.db'}") as serving:
        yield serving


@contextmanager
def _bare(folder: Path) -> Iterator[Serving]:
    with server_process([sys.executable, "-m", "benchmarks.bare_stream", str(folder / "bare.db")]) as serving:
        yield serving


def bare_database(path: str) -> sqlite3.Connection:
    """The same columns and pragmas as the store's measurements."""
    connection = sqlite3.connect(path, check_same_thread=False)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536", "wal_autocheckpoint=8000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(
        "CREATE TABLE measurements (id TEXT PRIMARY KEY, task_id TEXT, fence INTEGER, sequence INTEGER, device TEXT, "
        "received_wall_s REAL, body BLOB)"
    )
    return connection
