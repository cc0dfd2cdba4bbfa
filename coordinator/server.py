"""The coordinator daemon: the services of edgelut.v1 on one address, over one database.

With an authority (coordinator.ca) everything is mutual TLS, and a second port enrols those who have no certificate yet.
Without, only loopback addresses are served: whoever can reach the port may do anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.access import Access
from coordinator.agents import AgentService
from coordinator.ca import Authority
from coordinator.claims import Claims
from coordinator.dispatch import Dispatcher, Methods
from coordinator.enrolment import MAX_REQUEST_BYTES, Certificates, Enrolment
from coordinator.ingest import Ingest
from coordinator.methods import Estimators
from coordinator.operators import LutService, RunService
from coordinator.runs import Runs
from coordinator.sessions import Fleet
from lut_store.store import Store
from protos import agent_pb2, enrol_pb2_grpc, lut_pb2, lut_pb2_grpc, run_pb2, run_pb2_grpc
from protos.errors import BadInputError, ConflictError, UnavailableError
from protos.systemd import keep_alive, notify

log = logging.getLogger(__name__)

DEFAULT_LISTEN = "127.0.0.1:7443"
HEARTBEAT_S = 5.0
# A latency round of a large space is a few MB; a run's specification and a LUT are smaller.
MAX_MESSAGE_BYTES = 64 << 20
STOP_GRACE_S = 2.0
HUNG_S = 120.0  # several times what a database that is busy or slow may take
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a second coordinator on the same port must fail, not share it
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
)
ENROL_CALLS = 32
_ENROL_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 2 * MAX_REQUEST_BYTES),
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.max_concurrent_streams", 4),
    ("grpc.max_connection_idle_ms", 10_000),
    ("grpc.max_connection_age_ms", 30_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
)
SERVICES = (
    agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name,
    run_pb2.DESCRIPTOR.services_by_name["RunService"].full_name,
    lut_pb2.DESCRIPTOR.services_by_name["LutService"].full_name,
)
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:]+)\]|(?P<host>[^:\[\]]*)):(?P<port>\d{1,5})")


def listen_address(listen: str, *, secure: bool = False) -> str:
    """`listen` as HOST:PORT with a numeric host. Raises BadInputError when it is no address, or when it can be reached
    from elsewhere and is not `secure`.
    """
    found = _ADDRESS.fullmatch(listen)
    if found is None or int(found["port"]) > 65535:
        raise BadInputError(f"{listen!r} is no address to listen on; write HOST:PORT, for example {DEFAULT_LISTEN}")
    host = "127.0.0.1" if found["host"] == "localhost" else found["v6"] or found["host"]
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        if secure:
            raise BadInputError(
                f"{host!r} is no numeric address; write one of this machine, or 0.0.0.0 or [::] for all of them"
            ) from None
        loopback = False
    if not loopback and not secure:
        raise BadInputError(
            f"the coordinator cannot listen on {listen}: there is no TLS, and without it everybody on the network "
            f"could write measurements and start runs. Set it up with `coordinator ca init`, or listen on a loopback "
            f"address, for example {DEFAULT_LISTEN}, and reach it through a tunnel (ssh -L 7443:127.0.0.1:7443 HOST)"
        )
    return f"[{host}]:{found['port']}" if ":" in host else f"{host}:{found['port']}"


@dataclass(frozen=True)
class Tls:
    """authority: whose certificates are believed; enrol_listen: HOST:PORT of the enrolment port, empty for the next
    port after the main one; advertised: the host that goes into tokens, empty for this machine's own address.
    """

    authority: Authority
    enrol_listen: str = ""
    advertised: str = ""


class Coordinator:
    """The parts of one running coordinator. `address` is where it answers; `crashed` is done when a part has failed."""

    def __init__(
        self,
        store: Store,
        claims: Claims,
        methods: Methods,
        heartbeat_s: float,
        clock: Callable[[], float],
        tls: Tls | None = None,
    ) -> None:
        self.address = ""
        self._invites_to = ("", "")  # addresses of the coordinator and of its enrolment port, for others to dial
        self._tls = tls
        self._store = store
        self._claims = claims
        self._fleet = Fleet(heartbeat_s, clock)
        self._dispatcher = Dispatcher(store, self._fleet, claims, methods)
        self._ingest = Ingest(store.add_batch, self._dispatcher.stored)
        self._runs = Runs(self._dispatcher)
        self._access = Access(store, self._fleet) if tls is not None else None
        self._server = grpc.aio.server(
            options=_OPTIONS, interceptors=[self._access] if self._access is not None else None
        )
        self._enrolment: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self._parts: list[asyncio.Task[None]] = []

    async def start(self, listen: str, *, adopt: bool) -> None:
        """Serve on `listen`. Raises BadInputError or ConflictError when that cannot be."""
        address = listen_address(listen, secure=self._tls is not None)
        AgentService(self._dispatcher, self._ingest).add_to(self._server)
        run_pb2_grpc.add_RunServiceServicer_to_server(RunService(self._runs, self._dispatcher), self._server)
        lut_pb2_grpc.add_LutServiceServicer_to_server(LutService(self._store), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self._add_extra_services()
        with _port_of(listen):
            if self._tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, mutual(self._tls.authority))
        if self._tls is not None:
            await self._start_enrolment(self._tls, address, port)
        if adopt:
            await self._runs.adopt_all()
        await self._server.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self.address = f"{address.rpartition(':')[0]}:{port}"
        loops = [self._dispatcher.run(), self._ingest.run(), *([self._runs.keep_adopting()] if adopt else [])]
        if self._access is not None:
            await self._access.refresh()
            loops.append(self._access.run())
        self._parts = [asyncio.create_task(loop) for loop in loops]

    def _add_extra_services(self) -> None:
        """What there is with TLS only."""
        if self._tls is not None and self._access is not None:
            certificates = Certificates(self._store, self._tls.authority, self._access, lambda: self._invites_to)
            enrol_pb2_grpc.add_CertificateServiceServicer_to_server(certificates, self._server)

    async def _start_enrolment(self, tls: Tls, address: str, port: int) -> None:
        """The server for those who have no certificate: few calls at once, small messages, short patience."""
        host = address.rpartition(":")[0]
        listen = listen_address(tls.enrol_listen, secure=True) if tls.enrol_listen else f"{host}:{port + 1}"
        self._enrolment = grpc.aio.server(options=_ENROL_OPTIONS, maximum_concurrent_rpcs=ENROL_CALLS)
        enrolment = Enrolment(self._store, tls.authority)
        enrol_pb2_grpc.add_EnrolmentServiceServicer_to_server(enrolment, self._enrolment)
        keys = tls.authority.server(time.time())
        with _port_of(listen):
            bound = self._enrolment.add_secure_port(
                listen, grpc.ssl_server_credentials([(keys.key_pem, keys.certificate_pem)])
            )
        await self._enrolment.start()
        own = tls.advertised or own_address(listen.rpartition(":")[0])
        self._invites_to = (f"{own}:{port}", f"{own}:{bound}")
        log.info("enrolment on %s", self._invites_to[1])

    async def crashed(self) -> None:
        """Wait for ever, or until a part has failed: raises what it failed with."""
        await asyncio.gather(*self._parts)

    def stuck(self) -> str:
        """What has not come on for too long; empty when all is well. It feeds the service manager's watchdog."""
        for name, busy_s in (("the scheduler", self._dispatcher.busy_s), ("the ingest", self._ingest.busy_s)):
            if busy_s > HUNG_S:
                return f"{name} has been at one thing for {busy_s:.0f} s"
        return ""

    async def stop(self) -> None:
        """End the sessions, store what has been received, and let go of the database."""
        await self._health.enter_graceful_shutdown()
        self._fleet.end_all(UnavailableError("the coordinator stops; it goes on when it is back"))
        if self._enrolment is not None:
            await self._enrolment.stop(None)
        await self._server.stop(STOP_GRACE_S)
        for part in (self._ingest, self._dispatcher, self._runs):
            part.close()
        if self._access is not None:
            self._access.close()
        await asyncio.gather(*self._parts, return_exceptions=True)
        async with self._dispatcher.lock:  # what a caller that hung up has begun
            self._claims.close()
        await asyncio.to_thread(self._store.close)


def mutual(authority: Authority) -> grpc.ServerCredentials:
    """Both sides show a certificate of the authority."""
    keys = authority.server(time.time())
    pair = (keys.key_pem, keys.certificate_pem)
    return grpc.ssl_server_credentials([pair], authority.certificate_pem, require_client_auth=True)


def own_address(host: str) -> str:
    """A host that others can dial: `host`, or for all interfaces the one that leads out of this machine."""
    if not ipaddress.ip_address(host.strip("[]")).is_unspecified:
        return host
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks for the way
        return str(probe.getsockname()[0])
    return socket.getfqdn()


@contextlib.contextmanager
def _port_of(listen: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ConflictError(
            f"the coordinator cannot listen on {listen}: the port is taken, probably by another coordinator; "
            f"use that one, or another --listen"
        ) from error


@contextlib.asynccontextmanager
async def running(
    listen: str,
    database_url: str,
    *,
    methods: Methods | None = None,
    heartbeat_s: float = HEARTBEAT_S,
    adopt: bool = True,
    clock: Callable[[], float] = time.monotonic,
    tls: Tls | None = None,
) -> AsyncIterator[Coordinator]:
    """A coordinator that serves inside the block. `adopt`: it takes up every unfinished run of the database that nobody
    drives; else only the runs that it is asked for. `clock`: seconds for the deadlines of sessions and leases.

    Raises BadInputError for an address that may not be served, ConflictError for a port that is taken, StorageError.
    """
    listen_address(listen, secure=tls is not None)
    store = await asyncio.to_thread(Store, database_url)
    coordinator = Coordinator(store, Claims(database_url), methods or Estimators(), heartbeat_s, clock, tls)
    try:
        await coordinator.start(listen, adopt=adopt)
        log.info("coordinator on %s over %s", coordinator.address, store.name)
        yield coordinator
    finally:
        await coordinator.stop()


async def serve(
    listen: str,
    database_url: str,
    *,
    ready: Callable[[str], None] | None = None,
    methods: Methods | None = None,
    heartbeat_s: float = HEARTBEAT_S,
    tls: Tls | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is told the address, which matters for port 0. Raises as `running`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(listen, database_url, methods=methods, heartbeat_s=heartbeat_s, tls=tls) as coordinator:
        if ready is not None:
            ready(coordinator.address)
        notify(READY="1", STATUS=f"listening on {coordinator.address}")
        pulse = asyncio.create_task(keep_alive(coordinator.stuck))
        stopped, crashed = asyncio.create_task(stop.wait()), asyncio.create_task(coordinator.crashed())
        await asyncio.wait({stopped, crashed}, return_when=asyncio.FIRST_COMPLETED)
        if crashed.done():
            await crashed
        log.info("stopping")
        notify(STOPPING="1")
        pulse.cancel()
        crashed.cancel()
