"""The one stream to the coordinator: hello, leases, measurements until they are acknowledged, and back again after
any break.

Everything that the spool holds is offered again on every new stream, oldest first, until the coordinator has said
that it is durable or never will be; so is the end of a task. Ids and fences make the repeats harmless.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from grpc.aio import EOF, AioRpcError, StreamStreamCall

from agent.spool import Spool
from protos import agent_pb2, agent_pb2_grpc
from protos.errors import (
    BadInputError,
    ConflictError,
    EdgelutError,
    IncompatibleError,
    UnavailableError,
    error_of,
)
from protos.identity import aio_channel

log = logging.getLogger(__name__)

Call = StreamStreamCall[agent_pb2.AgentMessage, agent_pb2.CoordinatorMessage]

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 4.0  # a coordinator that is back hears from its boards within five seconds
SETTLED_S = 10.0  # a stream that held so long, or carried something, was no failed attempt
WELCOME_WITHIN_S = 30.0
HEARTBEAT_S = 5.0  # when the coordinator names none
MAX_MESSAGE_BYTES = 64 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),  # notices a peer that vanished without a word
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.use_local_subchannel_pool", 1),  # a new attempt is a new connection, without gRPC's own back-off
)

# Connecting again would not help: two agents of one name would throw each other out for ever.
FINAL = (ConflictError, IncompatibleError)


class Desk(Protocol):
    """What the session asks of the daemon, and tells it."""

    def hello(self) -> agent_pb2.Hello:
        """Who this is, and the task in hand."""
        ...

    def status(self) -> agent_pb2.AgentStatus: ...

    def leased(self, lease: agent_pb2.Lease) -> None: ...

    def revoked(self, task_id: str, fence: int, reason: str) -> None: ...


@dataclass(frozen=True)
class Ended:
    """A task that is over; reason is empty when it is complete."""

    task_id: str
    fence: int
    reason: str = ""


class Session:
    """Keeps one stream open. `patience_s`: how long to be without a coordinator before giving up; None: for ever.
    `certificate`: the folder of this agent's identity (protos.identity); None: in the clear, on this machine only.
    """

    def __init__(
        self,
        address: str,
        spool: Spool,
        desk: Desk,
        patience_s: float | None = None,
        certificate: Path | None = None,
    ) -> None:
        self._address = address
        self._certificate = certificate
        self._spool = spool
        self._desk = desk
        self._patience_s = patience_s
        self._ended = _left_over(spool)
        self._offered: set[str] = set()  # measurements that the present stream has carried
        self._told: set[Ended] = set()  # ends that it has carried
        self._wake = asyncio.Event()
        self._heard_s = time.monotonic()
        self.alive_s = time.monotonic()  # when it last sent something or began to connect
        self.welcomed = False
        self._said = ""
        self._took = False  # the coordinator has taken something from the present stream
        self.taken = asyncio.Event()  # set whenever the coordinator has taken something

    @property
    def ending(self) -> str:
        """A task that is over but not yet acknowledged as such: its lease is still needed; empty when there is none."""
        return self._ended[-1].task_id if self._ended else ""

    def wake(self) -> None:
        """There is something new to send."""
        self._wake.set()

    def end_task(self, task_id: str, fence: int, reason: str) -> None:
        """Say that a task is over, as soon as all its measurements have been offered, until it is acknowledged."""
        self._ended.append(Ended(task_id, fence, reason))
        self._wake.set()

    async def flushed(self, within_s: float) -> bool:
        """Wait until the coordinator has taken everything; False when that takes longer."""
        until_s = time.monotonic() + within_s
        while len(self._spool) or self._ended:
            self.taken.clear()
            try:
                await asyncio.wait_for(self.taken.wait(), until_s - time.monotonic())
            except TimeoutError:
                return False
        return True

    async def run(self) -> None:
        """Connect, and connect again, until cancelled.

        Raises BadInputError when the coordinator refuses this agent from the start or it has no certificate for
        another machine, ConflictError when another agent
        has taken its name, IncompatibleError when the versions do not fit, and UnavailableError when patience_s is
        over.
        """
        pause_s = BACKOFF_MIN_S
        while True:
            started_s = self.alive_s = time.monotonic()
            error = await self._attempt()
            refused = isinstance(error, BadInputError) and not self.welcomed
            if refused or isinstance(error, FINAL):
                raise error
            if self._patience_s is not None and time.monotonic() - self._heard_s > self._patience_s:
                raise UnavailableError(f"no coordinator at {self._address} for {self._patience_s:g} s: {error}")
            if str(error) != self._said:  # one line, however often
                log.warning("%s; trying again", error)
                self._said = str(error)
            if self._took or time.monotonic() - started_s > SETTLED_S:
                pause_s = BACKOFF_MIN_S
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, BACKOFF_MAX_S)

    # ---- one stream

    async def _attempt(self) -> EdgelutError:
        """One connection from Hello to its end: why it ended."""
        async with aio_channel(self._address, self._certificate, _OPTIONS) as channel:
            call: Call = agent_pb2_grpc.AgentServiceStub(channel).Session()
            try:
                await self._talk(call)
            except AioRpcError as error:
                return self._explained(error_of(error))
            except asyncio.InvalidStateError:  # written to after its end: the status says why it ended
                return self._explained(UnavailableError(await call.details() or f"status {await call.code()}"))
            except TimeoutError:
                return UnavailableError(f"{self._address} did not answer Hello within {WELCOME_WITHIN_S:g} s")
            finally:
                call.cancel()
        return UnavailableError(f"the coordinator at {self._address} has ended the stream")

    def _explained(self, error: EdgelutError) -> EdgelutError:
        if isinstance(error, UnavailableError) and not self._offered and "connect" in str(error):
            return UnavailableError(f"no coordinator at {self._address} ({str(error).rpartition(': ')[2]})")
        return error

    async def _talk(self, call: Call) -> None:
        self._offered.clear()
        self._told.clear()
        self._took = False
        await call.write(agent_pb2.AgentMessage(hello=self._hello()))
        first = await asyncio.wait_for(call.read(), WELCOME_WITHIN_S)
        if first is EOF:
            return
        assert isinstance(first, agent_pb2.CoordinatorMessage)
        log.info("connected to the coordinator at %s, version %s", self._address, first.welcome.version or "unknown")
        self.welcomed, self._said, self._heard_s = True, "", time.monotonic()
        tasks = [
            asyncio.create_task(self._send(call, first.welcome.heartbeat_s or HEARTBEAT_S)),
            asyncio.create_task(self._receive(call)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._heard_s = time.monotonic()
        for task in done:
            task.result()

    def _hello(self) -> agent_pb2.Hello:
        hello = self._desk.hello()
        hello.held.extend(agent_pb2.HeldTask(task_id=ended.task_id, fence=ended.fence) for ended in self._ended)
        return hello

    async def _send(self, call: Call, heartbeat_s: float) -> None:
        status_s = time.monotonic()  # when the next status is due
        while True:
            self._wake.clear()
            for entry in self._spool.entries():
                if entry.id in self._offered:
                    continue
                status_s = await self._status(call, status_s, heartbeat_s)
                message = self._spool.read(entry)
                if message is not None:
                    await call.write(agent_pb2.AgentMessage(measurement=message))
                    self._offered.add(entry.id)
            for ended in self._ended:
                if ended not in self._told and not self._has_unoffered(ended.task_id):
                    task_ended = agent_pb2.TaskEnded(task_id=ended.task_id, fence=ended.fence, reason=ended.reason)
                    await call.write(agent_pb2.AgentMessage(task_ended=task_ended))
                    self._told.add(ended)
            status_s = await self._status(call, status_s, heartbeat_s)
            try:
                await asyncio.wait_for(self._wake.wait(), status_s - time.monotonic())
            except TimeoutError:
                continue

    async def _status(self, call: Call, due_s: float, heartbeat_s: float) -> float:
        """Send a status when it is due; when the next one is."""
        now_s = time.monotonic()
        if now_s < due_s:
            return due_s
        await call.write(agent_pb2.AgentMessage(status=self._desk.status()))
        self.alive_s = time.monotonic()
        return now_s + heartbeat_s

    def _has_unoffered(self, task_id: str) -> bool:
        return any(entry.task_id == task_id and entry.id not in self._offered for entry in self._spool.entries())

    async def _receive(self, call: Call) -> None:
        while (message := await call.read()) is not EOF:
            assert isinstance(message, agent_pb2.CoordinatorMessage)
            body = message.WhichOneof("body")
            if body == "lease":
                self._desk.leased(message.lease)
            elif body == "acknowledge":
                self._take(message.acknowledge)
            elif body == "refuse":
                refusal = message.refuse
                log.error("measurement %s was refused (%s): %s", refusal.measurement_id, refusal.code, refusal.message)
                self._drop([refusal.measurement_id])
            elif body == "revoke":
                self._desk.revoked(message.revoke.task_id, message.revoke.fence, message.revoke.reason)

    def _take(self, acknowledge: agent_pb2.Acknowledge) -> None:
        ended = set(acknowledge.ended_task_ids)
        self._ended = [end for end in self._ended if end.task_id not in ended]
        self._drop(acknowledge.measurement_ids)

    def _drop(self, measurement_ids: Iterable[str]) -> None:
        for measurement_id in measurement_ids:
            self._spool.discard(measurement_id)
            self._offered.discard(measurement_id)
        self._took = True
        self.taken.set()


def _left_over(spool: Spool) -> list[Ended]:
    """The tasks whose measurements an earlier life of this agent left in the spool: they are given back behind them."""
    tasks = dict.fromkeys((entry.task_id, entry.fence) for entry in spool.entries())
    return [Ended(task_id, fence, "the agent was started again") for task_id, fence in tasks]
