"""Who may call what. With TLS every call comes from the holder of a certificate, and its role decides; without TLS the
coordinator listens on loopback only, and whoever can reach it may do anything.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from coordinator.ca import holder_of
from coordinator.sessions import Fleet
from lut_store.records import Invitation
from lut_store.store import Store
from protos.errors import BadInputError, StaleLeaseError

log = logging.getLogger(__name__)

REFRESH_S = 2.0  # how soon a coordinator hears what another one over the same database has revoked
_READS = ("Get", "List", "Watch")
_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
_AGENTS = "/edgelut.v1.AgentService/"
_RENEW = "/edgelut.v1.CertificateService/Renew"
_READABLE = ("/edgelut.v1.LutService/", "/edgelut.v1.RunService/")

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def may(role: str, method: str) -> bool:
    """Whether the holder of a certificate with this role may call the method, as in /edgelut.v1.RunService/GetRun."""
    if method.startswith(_OPEN) or method == _RENEW:
        return True
    if method.startswith(_AGENTS):
        return role == "agent"
    if role == "reader":
        return method.startswith(_READABLE) and method.rpartition("/")[2].startswith(_READS)
    return role == "operator"


def caller(context: Context) -> tuple[Invitation, str] | None:
    """(holder, serial) of the caller's certificate; None for a connection without TLS. Raises BadInputError."""
    found = context.auth_context().get("x509_pem_cert")
    return holder_of(next(iter(found))) if found else None


class Access(grpc.aio.ServerInterceptor):
    """Checks every call of a server with TLS, and ends the sessions of those whose certificates are revoked."""

    def __init__(self, store: Store, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet
        self._revoked: frozenset[str] = frozenset()
        self._closing = asyncio.Event()

    async def refresh(self) -> None:
        """Learn what has been revoked, and act on it."""
        self._revoked = await asyncio.to_thread(self._store.revoked_certificates, time.time())
        for session in self._fleet.sessions():
            if session.serial in self._revoked:
                log.warning("%s: its certificate is revoked; the session ends", session.name)
                session.end(StaleLeaseError(f"the certificate of {session.name} has been revoked"))

    async def run(self) -> None:
        """Refresh every REFRESH_S until `close`."""
        while not self._closing.is_set():
            await self.refresh()
            try:
                await asyncio.wait_for(self._closing.wait(), REFRESH_S)
            except TimeoutError:
                continue

    def close(self) -> None:
        self._closing.set()

    def refusal(self, context: Context, method: str) -> str:
        """Why the caller may not call the method; empty when it may."""
        try:
            found = caller(context)
        except BadInputError as error:
            return str(error)
        if found is None:
            return "this call needs a certificate"
        holder, serial = found
        if serial in self._revoked:
            return f"the certificate of {holder.name} has been revoked"
        if not may(holder.role, method):
            return f"{holder.name} is {_article(holder.role)}, who may not call {method.rpartition('/')[2]}"
        return ""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        return handler if handler is None else _guarded(handler, handler_call_details.method, self._check)

    async def _check(self, context: Context, method: str) -> None:
        refusal = self.refusal(context, method)
        if refusal:
            log.warning("%s: %s refused: %s", context.peer(), method, refusal)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)


def _article(role: str) -> str:
    return f"an {role}" if role[0] in "ao" else f"a {role}"


def _guarded(handler: Any, method: str, check: Callable[[Context, str], Awaitable[None]]) -> Handler:
    """The handler with the check before it, in its own one of the four shapes of a call."""
    shape = (
        f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    )
    inner = getattr(handler, shape)

    async def replies(request: Any, context: Context) -> AsyncIterator[Any]:
        await check(context, method)
        async for reply in inner(request, context):
            yield reply

    async def result(request: Any, context: Context) -> Any:
        """A reply, or nothing from a handler that writes its replies to the context."""
        await check(context, method)
        return await inner(request, context)

    guarded = replies if inspect.isasyncgenfunction(inner) else result
    make = getattr(grpc, f"{shape}_rpc_method_handler")
    made: Handler = make(guarded, handler.request_deserializer, handler.response_serializer)
    return made
