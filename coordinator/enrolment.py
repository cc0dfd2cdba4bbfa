"""Certificates: invited by an operator, issued once for a token, renewed by their holders, revoked by operators."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import grpc

from coordinator.access import Access, caller
from coordinator.ca import Authority
from coordinator.operators import answer
from coordinator.sessions import check_name
from lut_store.records import Invitation
from lut_store.store import Store
from protos import enrol_pb2, enrol_pb2_grpc
from protos.errors import BadInputError, EdgelutError, status_of, unknown
from protos.identity import ROLES
from protos.tokens import Token

log = logging.getLogger(__name__)

MAX_VALID_S = 7 * 86400.0
MAX_REQUEST_BYTES = 16 << 10
PER_PEER, PER_PEER_S = 10, 60.0  # attempts and seconds in which they come back
EVERYBODY, EVERYBODY_S = 120, 60.0
PEERS = 4096  # whose attempts are remembered

Context = grpc.aio.ServicerContext[Any, Any]


class Certificates(enrol_pb2_grpc.CertificateServiceServicer):
    """CertificateService. `addresses`: HOST:PORT of the coordinator and of its enrolment port, as tokens name them."""

    def __init__(
        self, store: Store, authority: Authority, access: Access, addresses: Callable[[], tuple[str, str]]
    ) -> None:
        self._store = store
        self._authority = authority
        self._access = access
        self._addresses = addresses

    async def Renew(self, request: enrol_pb2.RenewRequest, context: Context) -> enrol_pb2.Certificate:  # noqa: N802
        found = caller(context)
        if found is None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this call needs a certificate")
            raise AssertionError("abort raises")
        return await answer(context, issue(self._store, self._authority, request.request_pem, found[0]))

    async def IssueToken(  # noqa: N802
        self, request: enrol_pb2.IssueTokenRequest, context: Context
    ) -> enrol_pb2.IssueTokenReply:
        async def work() -> enrol_pb2.IssueTokenReply:
            holder = checked(Invitation(request.name, request.role, request.device_type))
            token, expires_s = await asyncio.to_thread(
                invite, self._store, self._authority, holder, request.valid_s, self._addresses()
            )
            log.info("a token for %s %s %s", holder.role, holder.name, holder.device_type)
            return enrol_pb2.IssueTokenReply(token=token, expires_wall_s=expires_s)

        return await answer(context, work())

    async def Revoke(self, request: enrol_pb2.RevokeRequest, context: Context) -> enrol_pb2.RevokeReply:  # noqa: N802
        async def work() -> enrol_pb2.RevokeReply:
            serials, tokens = await asyncio.to_thread(self._store.revoke, request.name, request.reason, time.time())
            await self._access.refresh()
            log.warning("revoked: %d certificates and %d tokens of %s", len(serials), tokens, request.name)
            return enrol_pb2.RevokeReply(certificates=len(serials), tokens=tokens)

        return await answer(context, work())

    async def ListCertificates(  # noqa: N802
        self,
        request: enrol_pb2.ListCertificatesRequest,  # noqa: ARG002 it is empty
        context: Context,
    ) -> enrol_pb2.ListCertificatesReply:
        issued = await answer(context, asyncio.to_thread(self._store.certificates, time.time()))
        return enrol_pb2.ListCertificatesReply(
            certificates=[
                enrol_pb2.IssuedCertificate(
                    serial=one.serial,
                    **asdict(one.holder),
                    issued_wall_s=one.issued_wall_s,
                    expires_wall_s=one.expires_wall_s,
                    revoked_wall_s=one.revoked_wall_s or 0.0,
                    reason=one.reason,
                )
                for one in issued
            ]
        )


class Enrolment(enrol_pb2_grpc.EnrolmentServiceServicer):
    """EnrolmentService, for those who have no certificate yet."""

    def __init__(self, store: Store, authority: Authority, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._authority = authority
        self._limits = Limits(clock)

    async def GetAuthority(  # noqa: N802
        self,
        request: enrol_pb2.GetAuthorityRequest,  # noqa: ARG002 it is empty
        context: Context,
    ) -> enrol_pb2.GetAuthorityReply:
        await self._limit(context)
        return enrol_pb2.GetAuthorityReply(authority_pem=self._authority.certificate_pem.decode())

    async def Enrol(self, request: enrol_pb2.EnrolRequest, context: Context) -> enrol_pb2.Certificate:  # noqa: N802
        await self._limit(context)
        try:
            check_request(self._authority, request.request_pem)  # before the token is used up
            holder = await asyncio.to_thread(self._store.redeem, request.secret, time.time())
            certificate = await issue(self._store, self._authority, request.request_pem, holder)
        except EdgelutError as error:
            log.warning("%s: not enrolled: %s", context.peer(), error)
            await context.abort(status_of(error), str(error))
            raise AssertionError("abort raises") from error
        log.info("%s: enrolled as %s %s", context.peer(), holder.role, holder.name)
        return certificate

    async def _limit(self, context: Context) -> None:
        host = context.peer().rpartition(":")[0]
        if not self._limits.allow(host):
            log.warning("%s: too many attempts to enrol", context.peer())
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many attempts; wait a minute")


@dataclass
class _Bucket:
    left: float
    at_s: float

    def take(self, size: float, refill_s: float, now_s: float) -> bool:
        self.left = min(size, self.left + (now_s - self.at_s) * size / refill_s)
        self.at_s = now_s
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Limits:
    """Attempts per peer and of everybody together, as token buckets; the memory of peers is bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._all = _Bucket(EVERYBODY, clock())
        self._peers: OrderedDict[str, _Bucket] = OrderedDict()

    def allow(self, peer: str) -> bool:
        now_s = self._clock()
        bucket = self._peers.pop(peer, None) or _Bucket(PER_PEER, now_s)
        self._peers[peer] = bucket
        while len(self._peers) > PEERS:
            self._peers.popitem(last=False)
        return bucket.take(PER_PEER, PER_PEER_S, now_s) and self._all.take(EVERYBODY, EVERYBODY_S, now_s)


def checked(holder: Invitation) -> Invitation:
    """Raises BadInputError for a name, role or device type that cannot be."""
    check_name("the name", holder.name)
    if holder.role not in ROLES:
        raise unknown("role", holder.role, ROLES)
    if holder.role == "agent":
        check_name("the device type", holder.device_type)
    elif holder.device_type:
        raise BadInputError(f"{holder.name} is to be {holder.role}, and only an agent has a device type")
    return holder


def invite(
    store: Store, authority: Authority, holder: Invitation, valid_s: float, addresses: tuple[str, str]
) -> tuple[str, float]:
    """(token, when it expires). Raises BadInputError, ConflictError."""
    if not 0 < valid_s <= MAX_VALID_S:
        raise BadInputError(f"a token is valid for more than 0 and at most {MAX_VALID_S / 86400:g} days")
    now_s = time.time()
    secret = secrets.token_urlsafe(24)
    store.invite(secret, holder, now_s, now_s + valid_s)
    return Token(*addresses, holder.role, holder.name, secret, authority.fingerprint).text(), now_s + valid_s


def check_request(authority: Authority, request_pem: str) -> None:
    """Raises BadInputError for a certificate request that would not be signed."""
    if len(request_pem) > MAX_REQUEST_BYTES:
        raise BadInputError(f"a certificate request has at most {MAX_REQUEST_BYTES} bytes")
    authority.issue(request_pem, Invitation("nobody", "reader"), time.time())


async def issue(store: Store, authority: Authority, request_pem: str, holder: Invitation) -> enrol_pb2.Certificate:
    """A certificate for the holder, on record before it leaves. Raises BadInputError, StorageError."""
    certificate_pem, issued = authority.issue(request_pem, holder, time.time())
    await asyncio.to_thread(store.add_certificate, issued)
    return enrol_pb2.Certificate(
        certificate_pem=certificate_pem.decode(), authority_pem=authority.certificate_pem.decode()
    )
