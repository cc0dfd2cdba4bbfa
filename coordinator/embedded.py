"""The one rule for where the coordinator is.

An address that is named (by option or by EDGELUT_COORDINATOR), else a daemon on 127.0.0.1:7443 when one answers, else
the same server inside this process, on a private loopback port over the embedded database. There is one way to reach a
LUT.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator.client import ADDRESS_VARIABLE, DEFAULT_ADDRESS, Coordinator, own_identity
from coordinator.server import HEARTBEAT_S, SERVICES, running
from lut_store.paths import default_database_url
from protos.identity import channel

log = logging.getLogger(__name__)

PROBE_S = 1.0
STOP_S = 30.0


@contextmanager
def connect(address: str | None = None, *, database_url: str | None = None) -> Iterator[Coordinator]:
    """A client of the coordinator that the rule finds; its `address` is where an agent can reach it too.

    `database_url` names the database of a coordinator inside this process, by default the embedded one. Raises what
    opening a database raises; an address that is named and does not answer raises UnavailableError at the first call.
    """
    named = address or os.environ.get(ADDRESS_VARIABLE)
    if named or (database_url is None and answers(DEFAULT_ADDRESS)):
        with Coordinator(named or DEFAULT_ADDRESS) as client:
            yield client
        return
    with serving(database_url or default_database_url()) as own, Coordinator(own) as client:
        yield client


def answers(address: str, within_s: float = PROBE_S) -> bool:
    """Whether a coordinator of ours is healthy at `address`."""
    request = health_pb2.HealthCheckRequest(service=SERVICES[1])
    with channel(address, own_identity(address), [("grpc.enable_http_proxy", 0)]) as probe:
        try:
            reply = health_pb2_grpc.HealthStub(probe).Check(request, timeout=within_s)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                log.warning("what listens on %s is no coordinator of ours (%s)", address, error.details())
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def serving(database_url: str, *, heartbeat_s: float = HEARTBEAT_S) -> Iterator[str]:
    """The server in a thread of this process while the block lasts; yields its address.

    It lives as long as one command, so it takes up only the runs that it is asked for.
    """
    ready: Future[str] = Future()
    stop = threading.Event()
    thread = threading.Thread(target=_serve, args=(database_url, heartbeat_s, ready, stop), name="coordinator")
    thread.start()
    try:
        yield ready.result()
    finally:
        stop.set()
        thread.join(STOP_S)


def _serve(database_url: str, heartbeat_s: float, ready: Future[str], stop: threading.Event) -> None:
    async def main() -> None:
        async with running("127.0.0.1:0", database_url, heartbeat_s=heartbeat_s, adopt=False) as coordinator:
            ready.set_result(coordinator.address)
            crashed = asyncio.create_task(coordinator.crashed())
            stopped = asyncio.create_task(asyncio.to_thread(stop.wait))
            await asyncio.wait({crashed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if crashed.done():
                await crashed
            crashed.cancel()

    try:
        asyncio.run(main())
    except BaseException as error:
        if ready.done():
            log.exception("the coordinator inside this process failed")
        else:
            ready.set_exception(error)
