"""A coordinator for tests: a real gRPC server on a real socket, with a memory and faults instead of a database."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from protos import agent_pb2, agent_pb2_grpc
from protos.convert import from_message, to_message
from protos.types import Lease, Measurement

Message = agent_pb2.CoordinatorMessage


@dataclass
class Desk:
    """What the coordinator has seen, and how it behaves."""

    leases: deque[Lease] = field(default_factory=deque)  # given one after another, each when the last has ended
    refuse: Callable[[str], bool] = lambda _: False
    drop_every: int = 0  # the stream breaks at every n-th measurement, before it is taken
    forget_every: int = (
        0  # the stream breaks at every n-th measurement, after it is taken but before it is acknowledged
    )
    mute: bool = False  # takes everything, acknowledges nothing
    refusal: tuple[grpc.StatusCode, str] | None = None  # of Hello
    hellos: list[agent_pb2.Hello] = field(default_factory=list)
    statuses: list[agent_pb2.AgentStatus] = field(default_factory=list)
    received: Counter[str] = field(default_factory=Counter)  # by id, repeats counted
    measurements: dict[str, Measurement] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)  # task → reason
    order: list[str] = field(default_factory=list)  # what came, in words
    leased: Lease | None = None
    say: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)  # what a test wants to be said
    count: int = 0

    async def until(self, condition: Callable[[], bool], limit_s: float = 120.0) -> None:
        deadline_s = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline_s, f"waited for too long; so far: {self.order[-20:]}"
            await asyncio.sleep(0.02)


class _Service(agent_pb2_grpc.AgentServiceServicer):
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def Session(  # noqa: N802
        self,
        request_iterator: AsyncIterator[agent_pb2.AgentMessage],
        context: grpc.aio.ServicerContext[agent_pb2.AgentMessage, Message],
    ) -> None:
        desk = self.desk
        hello = (await anext(aiter(request_iterator))).hello
        desk.hellos.append(hello)
        desk.order.append("hello")
        if desk.refusal is not None:
            await context.abort(*desk.refusal)
        await context.write(Message(welcome=agent_pb2.Welcome(version="0.1.0", heartbeat_s=0.2)))
        held = {(task.task_id, task.fence) for task in hello.held}
        if desk.leased is not None and (desk.leased.task_id, desk.leased.fence) not in held:
            desk.leases.appendleft(desk.leased)
            desk.leased = None
        await self._lease(context)
        speaker = asyncio.create_task(self._speak(context))
        try:
            async for message in request_iterator:
                await self._take(message, context)
        finally:
            speaker.cancel()

    async def _speak(self, context: grpc.aio.ServicerContext[agent_pb2.AgentMessage, Message]) -> None:
        while True:
            await context.write(await self.desk.say.get())

    async def _lease(self, context: grpc.aio.ServicerContext[agent_pb2.AgentMessage, Message]) -> None:
        desk = self.desk
        if desk.leased is None and desk.leases:
            desk.leased = desk.leases.popleft()
            await context.write(Message(lease=to_message(desk.leased)))

    async def _take(
        self, message: agent_pb2.AgentMessage, context: grpc.aio.ServicerContext[agent_pb2.AgentMessage, Message]
    ) -> None:
        desk = self.desk
        body = message.WhichOneof("body")
        if body == "status":
            desk.statuses.append(message.status)
        elif body == "measurement":
            await self._store(message, context)
        elif body == "task_ended":
            ended = message.task_ended
            desk.order.append(f"end {ended.task_id}")
            desk.ended[ended.task_id] = ended.reason
            if desk.leased is not None and desk.leased.task_id == ended.task_id:
                desk.leased = None
            await context.write(Message(acknowledge=agent_pb2.Acknowledge(ended_task_ids=[ended.task_id])))
            await self._lease(context)

    async def _store(
        self, message: agent_pb2.AgentMessage, context: grpc.aio.ServicerContext[agent_pb2.AgentMessage, Message]
    ) -> None:
        desk, item = self.desk, message.measurement
        desk.count += 1
        if desk.drop_every and desk.count % desk.drop_every == 0:
            desk.order.append("drop")
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the test pulls the plug")
        desk.received[item.id] += 1
        desk.order.append(f"measurement {item.id}")
        if desk.refuse(item.id):
            desk.refused.add(item.id)
            refuse = agent_pb2.Refuse(measurement_id=item.id, code="INVALID_ARGUMENT", message="the test refuses it")
            await context.write(Message(refuse=refuse))
            return
        desk.measurements.setdefault(item.id, from_message(Measurement, item))
        if desk.forget_every and desk.count % desk.forget_every == 0:
            desk.order.append("forget")
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the test pulls the plug")
        if not desk.mute:
            await context.write(Message(acknowledge=agent_pb2.Acknowledge(measurement_ids=[item.id])))


@asynccontextmanager
async def coordinator(desk: Desk, port: int = 0) -> AsyncIterator[int]:
    """Serve `desk` on loopback; the port."""
    server = grpc.aio.server()
    agent_pb2_grpc.add_AgentServiceServicer_to_server(_Service(desk), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)
