"""Mutual TLS over real sockets: enrolment, roles, renewal and revocation, and those who try without."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator import ca
from coordinator.access import may
from coordinator.client import Coordinator as Client
from coordinator.enrolment import EVERYBODY, PER_PEER, PER_PEER_S, Limits, checked, invite
from coordinator.server import Coordinator, Tls
from lut_store.records import Invitation
from lut_store.store import Store
from protos import enrol_pb2, enrol_pb2_grpc, lut_pb2, lut_pb2_grpc, run_pb2, run_pb2_grpc
from protos.enrolment import enrol, keep, renew, request
from protos.errors import BadInputError, ConflictError, EdgelutError, NotFoundError, StaleLeaseError, UnavailableError
from protos.identity import channel, load
from protos.tokens import Token
from tests.coordinator.scripted import Agent, coordinator, play, spec_of, until, until_device, url_of

DAY_S = 86400.0
PI = Invitation("pi-01", "agent", "rpi3b")


@dataclass
class Site:
    """A coordinator with TLS, and the folders of those who belong to it."""

    folder: Path
    server: Coordinator
    authority: ca.Authority

    def identity(self, holder: Invitation, now_s: float | None = None, authority: ca.Authority | None = None) -> Path:
        """The folder of a certificate that was issued without enrolment."""
        return certify(self.folder / holder.name, authority or self.authority, holder, now_s)

    @contextmanager
    def client(self, name: str = "alice", role: str = "operator") -> Iterator[Client]:
        folder = self.identity(Invitation(name, role))
        with Client(self.server.address, cache=self.folder / "cache", identity=folder) as found:
            yield found


def certify(folder: Path, authority: ca.Authority, holder: Invitation, now_s: float | None = None) -> Path:
    key, request_pem = request(holder.name)
    certificate_pem, _ = authority.issue(request_pem.decode(), holder, now_s or time.time())
    keep(folder, key, certificate_pem, authority.certificate_pem)
    return folder


@asynccontextmanager
async def site(folder: Path, **options: Any) -> AsyncIterator[Site]:
    authority = ca.init(folder / "ca", time.time()) if not ca.exists(folder / "ca") else ca.Authority(folder / "ca")
    async with coordinator(folder, tls=Tls(authority, enrol_listen="127.0.0.1:0"), **options) as server:
        yield Site(folder, server, authority)


async def refused(work: Any) -> str:
    """The sentence of a call that was not allowed."""
    with pytest.raises(StaleLeaseError) as caught:
        await asyncio.to_thread(work)
    return str(caught.value)


# ---- the way in -----------------------------------------------------------------------------------------------------


def test_a_board_enrols_measures_renews_and_is_revoked(tmp_path: Path) -> None:
    async def scene() -> None:
        async with site(tmp_path) as own:
            with own.client() as client:
                token, _ = await asyncio.to_thread(client.issue_token, PI, 60.0)
                folder = tmp_path / "board"
                identity = await asyncio.to_thread(enrol, Token.read(token), folder)
                assert (identity.name, identity.role, identity.device_type) == ("pi-01", "agent", "rpi3b")
                assert oct((folder / "key.pem").stat().st_mode & 0o777) == "0o600"
                async with Agent(own.server.address, certificate=folder) as agent:
                    await asyncio.to_thread(client.submit, spec_of(), "run-1")
                    for _ in range(2):
                        await agent.perform(await agent.expect("lease"))
                    await until(client, "run-1", "done")
                before = (folder / "certificate.pem").read_bytes()
                again = await asyncio.to_thread(renew, own.server.address, folder)
                assert replace(again, issued_wall_s=0, expires_wall_s=0) == replace(
                    identity, issued_wall_s=0, expires_wall_s=0
                )
                assert (folder / "certificate.pem").read_bytes() != before
                async with Agent(own.server.address, certificate=folder) as agent:
                    assert await asyncio.to_thread(client.revoke, "pi-01", "stolen") == (2, 0)
                    assert "the certificate of pi-01 has been revoked" in await agent.end()
                with pytest.raises((ConnectionError, grpc.aio.AioRpcError), match="has been revoked"):
                    await Agent(own.server.address, certificate=folder).greet()
                listed = await asyncio.to_thread(client.certificates)
                assert [(one.holder, one.reason) for one in listed] == [(PI, "stolen"), (PI, "stolen")]
                with pytest.raises(BadInputError, match="no valid certificate or token to revoke"):
                    await asyncio.to_thread(client.revoke, "pi-01")

    play(scene())


def test_a_token_works_once_in_its_time_and_for_its_coordinator_only(tmp_path: Path) -> None:
    async def scene() -> None:
        async with site(tmp_path / "a") as own, site(tmp_path / "b") as other:
            with own.client() as client:
                text, _ = await asyncio.to_thread(client.issue_token, PI, 60.0)
                token = Token.read(text)
                await asyncio.to_thread(enrol, token, tmp_path / "first")
                assert "this token is not valid" in await refused(lambda: enrol(token, tmp_path / "second"))
                assert load(tmp_path / "second") is None
                short, _ = await asyncio.to_thread(client.issue_token, Invitation("pi-02", "agent", "rpi3b"), 0.05)
                await asyncio.sleep(0.1)
                assert "not valid" in await refused(lambda: enrol(Token.read(short), tmp_path / "late"))
                gone, _ = await asyncio.to_thread(client.issue_token, Invitation("pi-03", "agent", "rpi3b"), 60.0)
                assert await asyncio.to_thread(client.revoke, "pi-03") == (0, 1)
                assert "not valid" in await refused(lambda: enrol(Token.read(gone), tmp_path / "gone"))
                with pytest.raises(ConflictError, match="pi-01 has a certificate as agent rpi3b: revoke it first"):
                    await asyncio.to_thread(client.issue_token, Invitation("pi-01", "operator"), 60.0)
            with other.client() as client:
                text, _ = await asyncio.to_thread(client.issue_token, PI, 60.0)
                astray = replace(Token.read(text), enrol_address=token.enrol_address)
            with pytest.raises(
                BadInputError, match=r"fingerprint of its authority is another\. Nothing was sent to it"
            ):
                await asyncio.to_thread(enrol, astray, tmp_path / "astray")
            nobody = replace(token, enrol_address=f"127.0.0.1:{free_port()}")
            with pytest.raises(UnavailableError, match="no coordinator answers for enrolment"):
                await asyncio.to_thread(enrol, nobody, tmp_path / "nobody")

    play(scene())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_two_boards_with_one_token_get_one_certificate(tmp_path: Path) -> None:
    async def scene() -> None:
        async with site(tmp_path) as own:
            with own.client() as client:
                text, _ = await asyncio.to_thread(client.issue_token, PI, 60.0)
            both = [asyncio.to_thread(enrol, Token.read(text), tmp_path / name) for name in ("one", "two")]
            found = await asyncio.gather(*both, return_exceptions=True)
            assert sorted(isinstance(one, StaleLeaseError) for one in found) == [False, True]

    play(scene())


def test_attempts_to_enrol_are_limited_per_peer_and_in_all() -> None:
    now_s = [0.0]
    limits = Limits(lambda: now_s[0])
    assert [limits.allow("a") for _ in range(PER_PEER + 2)] == [True] * PER_PEER + [False, False]
    assert limits.allow("b")
    now_s[0] += 1.01 * PER_PEER_S / PER_PEER
    assert limits.allow("a")
    assert not limits.allow("a")
    assert sum(limits.allow(f"peer {n}") for n in range(3 * EVERYBODY)) <= EVERYBODY


def test_the_enrolment_port_answers_too_many_with_a_status(tmp_path: Path) -> None:
    async def scene() -> None:
        async with site(tmp_path) as own:
            with own.client() as client:
                text, _ = await asyncio.to_thread(client.issue_token, PI, 60.0)
            token = Token.read(text)
            found = []
            for _ in range(PER_PEER + 1):
                try:
                    await asyncio.to_thread(enrol, replace(token, secret="guess"), tmp_path / "guess")
                except EdgelutError as error:
                    found.append(str(error))
            assert any("too many attempts" in sentence for sentence in found)

    play(scene())


# ---- what a certificate allows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "allowed", "denied"),
    [
        (
            "agent",
            ("AgentService/Session", "CertificateService/Renew"),
            ("LutService/GetLut", "RunService/ListDevices"),
        ),
        (
            "reader",
            ("LutService/GetLut", "LutService/ListLuts", "RunService/WatchRun", "CertificateService/Renew"),
            ("RunService/SubmitRun", "CertificateService/ListCertificates", "AgentService/Session"),
        ),
        ("operator", ("RunService/SubmitRun", "CertificateService/Revoke"), ("AgentService/Session",)),
        ("", (), ("LutService/GetLut",)),
    ],
)
def test_roles(role: str, allowed: tuple[str, ...], denied: tuple[str, ...]) -> None:
    assert all(may(role, f"/edgelut.v1.{method}") for method in allowed)
    assert not any(may(role, f"/edgelut.v1.{method}") for method in denied)
    assert may(role, "/grpc.health.v1.Health/Check")


def test_an_agent_may_neither_read_nor_operate_and_is_nobody_else(tmp_path: Path) -> None:
    async def scene() -> None:
        async with site(tmp_path) as own:
            board = own.identity(PI)
            with Client(own.server.address, cache=tmp_path / "cache", identity=board) as client:
                assert "pi-01 is an agent, who may not call GetLut" in await refused(lambda: client.lut("rpi3b"))
                assert "may not call SubmitRun" in await refused(lambda: client.submit(spec_of(), "run-1"))
                assert "may not call IssueToken" in await refused(lambda: client.issue_token(PI, 60.0))
                assert "may not call WatchRun" in await refused(lambda: list(client.watch_run("run-1")))
            for name, kind in (("pi-02", "rpi3b"), ("pi-01", "rpi4")):
                with pytest.raises((ConnectionError, grpc.aio.AioRpcError), match=r"is that of pi-01 \(rpi3b\)"):
                    await Agent(own.server.address, name, certificate=board, device_type=kind).greet()
            async with Agent(own.server.address, certificate=board):
                pass

    play(scene())


def test_a_reader_reads_and_an_operator_is_no_agent(tmp_path: Path) -> None:
    async def scene() -> None:
        async with site(tmp_path) as own:
            with own.client("search", "reader") as client:
                assert await asyncio.to_thread(client.luts) == []
                assert "search is a reader, who may not call SubmitRun" in await refused(
                    lambda: client.submit(spec_of(), "run-1")
                )
                assert "may not call Revoke" in await refused(lambda: client.revoke("pi-01"))
            operator = own.identity(Invitation("pi-01", "operator"))
            with pytest.raises((ConnectionError, grpc.aio.AioRpcError), match="may not call Session"):
                await Agent(own.server.address, certificate=operator).greet()
            with own.client() as client:
                async with Agent(own.server.address, certificate=own.identity(PI)):
                    await until_device(client, "pi-01", "idle")

    play(scene())


# ---- those who try without ------------------------------------------------------------------------------------------


def test_wrong_certificates_do_not_get_a_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with site(tmp_path) as own:
            stranger = ca.init(tmp_path / "stranger", time.time())
            other = own.identity(Invitation("mallory", "operator"), authority=stranger)
            mixed = tmp_path / "mixed"
            shutil.copytree(other, mixed)  # our authority, their certificate
            (mixed / "authority.pem").write_bytes(own.authority.certificate_pem)
            expired = own.identity(Invitation("old", "operator"), now_s=time.time() - 400 * DAY_S)
            early = own.identity(Invitation("early", "operator"), now_s=time.time() + DAY_S)
            for folder in (other, mixed, expired, early):
                await no_connection(own, folder)
            await no_connection(own, None)  # in the clear
            with own.client() as client:
                assert await asyncio.to_thread(client.luts) == []

    play(scene())


async def no_connection(own: Site, folder: Path | None) -> None:
    with (
        Client(own.server.address, cache=own.folder / "cache", identity=folder, timeout_s=10) as client,
        pytest.raises(UnavailableError),
    ):
        await asyncio.to_thread(client.luts)


def test_without_a_certificate_there_is_nothing_but_enrolment(tmp_path: Path) -> None:
    async def scene() -> None:
        async with site(tmp_path) as own:
            with own.client() as client:
                text, _ = await asyncio.to_thread(client.issue_token, PI, 60.0)
            credentials = grpc.ssl_channel_credentials(own.authority.certificate_pem)
            name = (("grpc.ssl_target_name_override", "edgelut-coordinator"),)
            with grpc.secure_channel(Token.read(text).enrol_address, credentials, options=name) as bare:
                for call, message in (
                    (lut_pb2_grpc.LutServiceStub(bare).ListLuts, lut_pb2.ListLutsRequest()),
                    (run_pb2_grpc.RunServiceStub(bare).ListDevices, run_pb2.ListDevicesRequest()),
                    (enrol_pb2_grpc.CertificateServiceStub(bare).Renew, enrol_pb2.RenewRequest()),
                ):
                    assert await asyncio.to_thread(status_of, call, message) is grpc.StatusCode.UNIMPLEMENTED
            with grpc.secure_channel(own.server.address, credentials, options=name) as bare:
                call = enrol_pb2_grpc.CertificateServiceStub(bare).ListCertificates
                found = await asyncio.to_thread(status_of, call, enrol_pb2.ListCertificatesRequest())
                assert found is grpc.StatusCode.UNAVAILABLE  # no handshake without a certificate

    play(scene())


def status_of(call: Any, message: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=10)
    code: grpc.StatusCode = caught.value.code()
    return code


@pytest.mark.parametrize(
    "request_pem",
    ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", "x" * 20_000],
)
def test_a_request_that_cannot_be_signed_leaves_the_token_unused(tmp_path: Path, request_pem: str) -> None:
    async def scene() -> None:
        async with site(tmp_path) as own:
            with own.client() as client:
                text, _ = await asyncio.to_thread(client.issue_token, PI, 60.0)
            token = Token.read(text)
            credentials = grpc.ssl_channel_credentials(own.authority.certificate_pem)
            name = (("grpc.ssl_target_name_override", "edgelut-coordinator"),)
            with grpc.secure_channel(token.enrol_address, credentials, options=name) as bare:
                stub = enrol_pb2_grpc.EnrolmentServiceStub(bare)
                message = enrol_pb2.EnrolRequest(secret=token.secret, request_pem=request_pem)
                assert await asyncio.to_thread(status_of, stub.Enrol, message) is grpc.StatusCode.INVALID_ARGUMENT
                huge = enrol_pb2.EnrolRequest(secret=token.secret, request_pem="x" * (1 << 20))
                assert await asyncio.to_thread(status_of, stub.Enrol, huge) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await asyncio.to_thread(enrol, token, tmp_path / "board")).name == "pi-01"

    play(scene())


def test_old_tls_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        async with site(tmp_path) as own:
            host, _, port = own.server.address.rpartition(":")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning, match="TLSv1_1"):
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

            def dial() -> None:
                with socket.create_connection((host, int(port)), 10) as plain, context.wrap_socket(plain):
                    pass

            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(dial)

    play(scene())


# ---- names and folders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holder", "sentence"),
    [
        (Invitation("../etc/passwd", "agent", "rpi3b"), "the name is '../etc/passwd'"),
        (Invitation("pi;reboot", "agent", "rpi3b"), "the name is 'pi;reboot'"),
        (Invitation("pi-01", "agent", "$(id)"), "the device type is"),
        (Invitation("pi-01", "agent"), "the device type is ''"),
        (Invitation("bob", "king"), "unknown role 'king'"),
        (Invitation("bob", "reader", "rpi3b"), "only an agent has a device type"),
    ],
)
def test_an_invitation_that_cannot_be(holder: Invitation, sentence: str) -> None:
    with pytest.raises(BadInputError) as caught:
        checked(holder)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("valid_s", [0.0, -1.0, float("nan"), 8 * DAY_S])
def test_a_token_is_valid_for_some_days_at_most(tmp_path: Path, valid_s: float) -> None:
    store, authority = Store(url_of(tmp_path)), ca.init(tmp_path / "ca", time.time())
    try:
        with pytest.raises(BadInputError, match="at most 7 days"):
            invite(store, authority, PI, valid_s, ("a:1", "a:2"))
    finally:
        store.close()


def test_an_authority_is_made_once_and_read_whole(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    with pytest.raises(NotFoundError, match="coordinator ca init"):
        ca.Authority(folder)
    made = ca.init(folder, time.time())
    assert ca.Authority(folder).fingerprint == made.fingerprint
    assert oct((folder / "authority-key.pem").stat().st_mode & 0o777) == "0o600"
    with pytest.raises(ConflictError, match="holds an authority already"):
        ca.init(folder, time.time())
    (folder / "authority.pem").write_text("nonsense")
    with pytest.raises(BadInputError, match="is damaged"):
        ca.Authority(folder)
    (folder / "authority.pem").unlink()
    with pytest.raises(BadInputError, match="is incomplete"):
        ca.Authority(folder)


def test_another_machine_needs_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"192\.0\.2\.7:7443 is another machine"):
        Client("192.0.2.7:7443", cache=tmp_path)
    with pytest.raises(BadInputError, match="incomplete"):
        channel("192.0.2.7:7443", tmp_path, ())
    (tmp_path / "identity.json").write_text("{}")
    with pytest.raises(BadInputError, match="is damaged; enroll again"):
        load(tmp_path)
