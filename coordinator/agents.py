"""AgentService: one stream per agent. It reads and writes messages; what they mean is decided elsewhere."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc

from coordinator import sessions
from coordinator.access import caller
from coordinator.dispatch import Dispatcher
from coordinator.ingest import Ingest
from coordinator.received import Received, receive
from coordinator.sessions import OWN_VERSION, read_hello
from lut_store.records import Invitation
from protos import agent_pb2
from protos.errors import BadInputError, EdgelutError, StaleLeaseError, StorageError, UnavailableError, status_of
from protos.types import Device

log = logging.getLogger(__name__)

HELLO_WITHIN_S = 30.0

Stream = grpc.aio.ServicerContext[Received, agent_pb2.CoordinatorMessage]


def check_holder(found: tuple[Invitation, str] | None, device: Device) -> str:
    """The serial of the agent's certificate, or "" without TLS. Raises StaleLeaseError when it is another device's."""
    if found is None:
        return ""
    holder, serial = found
    if (holder.name, holder.device_type) != (device.name, device.device_type):
        raise StaleLeaseError(
            f"the certificate is that of {holder.name} ({holder.device_type}), but this agent says that it is "
            f"{device.name} ({device.device_type})"
        )
    return serial


class AgentService:
    """The sessions of all agents.

    What changes a run is shielded: a stream that breaks in the middle of it must not leave the memory behind the
    database.
    """

    def __init__(self, dispatcher: Dispatcher, ingest: Ingest) -> None:
        self._dispatcher = dispatcher
        self._fleet = dispatcher.fleet
        self._ingest = ingest

    def add_to(self, server: grpc.aio.Server) -> None:
        """Like the generated function, but this service sees the bytes of the messages too."""
        method = grpc.stream_stream_rpc_method_handler(
            self.session, receive, agent_pb2.CoordinatorMessage.SerializeToString
        )
        name = agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Session": method}),))

    async def session(self, request_iterator: AsyncIterator[Received], context: Stream) -> None:
        """The first message is Hello; the answer is Welcome, or a status that says why not."""
        messages = aiter(request_iterator)
        try:
            greeting = read_hello(await self._first(messages))
            serial = check_holder(caller(context), greeting.device)
        except EdgelutError as error:
            log.warning("%s: no session: %s", context.peer(), error)
            await context.abort(status_of(error), str(error))
        session = self._fleet.open(greeting, serial)
        log.info("%s (%s) has connected from %s", session.name, session.device.device_type, context.peer())
        welcome = agent_pb2.Welcome(version=OWN_VERSION, heartbeat_s=self._fleet.heartbeat_s)
        session.send(agent_pb2.CoordinatorMessage(welcome=welcome))
        reader = asyncio.create_task(self._read(session, messages, greeting.held))
        try:
            while (message := await session.outbox.get()) is not None:
                await context.write(message)
        finally:
            reader.cancel()
            await asyncio.shield(self._gone(session))
        if session.error is not None:
            await context.abort(status_of(session.error), str(session.error))

    async def _first(self, messages: AsyncIterator[Received]) -> agent_pb2.Hello:
        try:
            async with asyncio.timeout(HELLO_WITHIN_S):
                first = await anext(messages, None)
        except TimeoutError:
            raise UnavailableError(f"no Hello within {HELLO_WITHIN_S:g} s") from None
        if first is None or first.message.WhichOneof("body") != "hello":
            raise BadInputError("the first message of a session must be Hello")
        return first.message.hello

    async def _read(
        self,
        session: sessions.Session,
        messages: AsyncIterator[Received],
        held: tuple[tuple[str, int], ...],
    ) -> None:
        """Take messages until the agent closes the stream or the session ends; then end the session."""
        error: EdgelutError | None = None
        try:
            await asyncio.shield(self._begin(session, held))
            async for received in messages:
                session.heard_s = self._fleet.clock()
                await self._take(session, received)
                session.heard_s = self._fleet.clock()  # what it waited for the coordinator was not its silence
        except EdgelutError as problem:
            error = problem
        except Exception:
            log.exception("%s: the session failed", session.name)
            error = EdgelutError("the coordinator failed on a message of this session; its log says how")
        finally:
            session.end(error)

    async def _begin(self, session: sessions.Session, held: tuple[tuple[str, int], ...]) -> None:
        await self._known(session, "idle")
        await self._dispatcher.connected(session, held)

    async def _take(self, session: sessions.Session, received: Received) -> None:
        message = received.message
        body = message.WhichOneof("body")
        if body == "measurement":
            await self._ingest.offer(session, received.measurement())
        elif body == "status":
            await self._take_status(session, message.status)
        elif body == "task_ended":
            await self._ingest.settle()
            await asyncio.shield(self._dispatcher.task_ended(session, message.task_ended))
        elif body == "hello":
            raise BadInputError("a session has one Hello")

    async def _take_status(self, session: sessions.Session, status: agent_pb2.AgentStatus) -> None:
        was_broken = session.broken
        try:
            session.take_status(status)
        except ValueError as error:
            log.warning("%s: a status that cannot be: %s", session.name, error)
        if session.broken != was_broken:
            log.warning("%s is %s", session.name, f"broken: {session.broken}" if session.broken else "well again")
            await self._known(session, "broken" if session.broken else "idle")
            self._dispatcher.wake()
        if status.task_id:
            await asyncio.shield(self._dispatcher.heard(session, status.task_id))

    async def _gone(self, session: sessions.Session) -> None:
        if self._fleet.close(session):
            log.info("%s has gone%s", session.name, f": {session.error}" if session.error else "")
            await self._known(session, "gone")
            self._dispatcher.wake()

    async def _known(self, session: sessions.Session, state: str) -> None:
        """Keep in the store what is known of the device, for when it is gone."""
        device = replace(session.device, state=state, reason=session.broken, last_seen_s=time.time(), host=session.host)
        try:
            await asyncio.to_thread(self._dispatcher.store.upsert_device, device)
        except StorageError as error:
            log.error("%s cannot be registered: %s", session.name, error)
