"""The client of a coordinator: what a search engine and the command line call. Synchronous; safe to share between
threads.

>>> with Coordinator("127.0.0.1:7443") as c:                             # doctest: +SKIP
...     lut = c.lut("rpi3b", space="fbnet-cifar10", version="latest")
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc

from lut_store import formats
from lut_store.lut import Lut
from lut_store.paths import identity_directory
from lut_store.records import Invitation, Issued
from lut_store.reference import parse_reference
from protos import enrol_pb2, enrol_pb2_grpc, lut_pb2, lut_pb2_grpc, run_pb2, run_pb2_grpc
from protos.convert import from_message, to_message
from protos.errors import BadInputError, EdgelutError, StorageError, UnavailableError, error_of
from protos.identity import channel, load
from protos.types import Device, Finding, LutQuery, LutSummary, Run, RunSpec, TagMove, digest_of

log = logging.getLogger(__name__)
M = TypeVar("M")

DEFAULT_ADDRESS = "127.0.0.1:7443"
ADDRESS_VARIABLE = "EDGELUT_COORDINATOR"
TIMEOUT_S = 60.0
DECODED = 16  # LUTs that a client keeps in memory
RETRY_FIRST_S, RETRY_MOST_S = 0.2, 5.0  # pauses of a watch whose coordinator has gone
# How the end of a stream reads when its coordinator was stopped or killed, or the way to it broke.
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
BUILD_TIMEOUT_S = 3600.0  # of a LUT from a great many measurements, on a small machine
MAX_MESSAGE_BYTES = 64 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),  # a proxy for the web does not know the way to a coordinator
    ("grpc.keepalive_time_ms", 30_000),  # a watch must notice that its coordinator has vanished without a word
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


def checked_address(address: str) -> str:
    """`address` when it is HOST:PORT. Raises BadInputError when it is not: gRPC would dial something else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise BadInputError(
            f"{address!r} is no address of a coordinator; write HOST:PORT, for example {DEFAULT_ADDRESS}"
        )
    return address


def own_identity(address: str) -> Path | None:
    """The folder of this user's certificate for the coordinator at `address`; None when there is none."""
    folder = identity_directory(address)
    return folder if load(folder) is not None else None


class Coordinator:
    """A connection to the coordinator at `address` (HOST:PORT; by default EDGELUT_COORDINATOR, else 127.0.0.1:7443).

    Every method raises the errors of protos.errors with the coordinator's sentence, and UnavailableError when no
    coordinator answers. `cache` is where LUTs are kept, by default edgelut/ under the XDG cache directory.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        cache: Path | None = None,
        identity: Path | None = None,
    ) -> None:
        """`identity`: the folder of a certificate (protos.identity), by default the one of this address when there is
        one. Raises BadInputError for an address on another machine when there is none.
        """
        self.address = checked_address(address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS)
        self._timeout_s = timeout_s
        self._cache = _Cache(cache or cache_directory())
        self._closed = False
        self._channel = channel(self.address, identity or own_identity(self.address), _OPTIONS)
        self._runs = run_pb2_grpc.RunServiceStub(self._channel)
        self._luts = lut_pb2_grpc.LutServiceStub(self._channel)
        self._certificates = enrol_pb2_grpc.CertificateServiceStub(self._channel)

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        self._channel.close()

    # ---- LUTs ----

    def lut(
        self,
        device_type: str = "",
        space: str = "",
        version: str | int = "latest",
        *,
        emulation: str = "",
        context: str = "",
        threads: int | None = None,
        batch: int | None = None,
        runtime: str = "",
        precision: str = "",
        digest: str = "",
    ) -> Lut:
        """The one LUT that fits; `digest` alone names a version for ever. What is left out matches anything.

        `device_type` may also be a whole reference: ``rpi3b/fbnet-cifar10@stable``.

        A LUT that has not changed since it was last asked for comes from the cache; the coordinator is asked all the
        same. Raises NotFoundError, naming what there is, and AmbiguousError, naming the option that is missing.
        """
        named = parse_reference(device_type) if set(device_type) & set("/@") else LutQuery(device_type)
        query = LutQuery(
            named.device_type, space or named.space, named.version or str(version),
            emulation, context, threads, batch, runtime, precision, digest,
        )  # fmt: skip
        name = digest_of([self.address, asdict(query)])
        cached = self._cache.find(name)
        known = "" if cached is None else cached.digest
        request = lut_pb2.GetLutRequest(query=to_message(query), known_digest=known)
        reply: lut_pb2.GetLutReply = self._call(self._luts.GetLut, request)
        if cached is not None and reply.digest == known:
            return cached
        lut = formats.from_bytes(reply.document, f"the LUT from {self.address}")
        self._cache.keep(name, lut.digest, reply.document)
        return lut

    def luts(self, query: LutQuery | None = None) -> list[LutSummary]:
        """What there is, of all that fits `query`."""
        request = lut_pb2.ListLutsRequest(query=to_message(query or LutQuery()))
        reply: lut_pb2.ListLutsReply = self._call(self._luts.ListLuts, request)
        return [from_message(LutSummary, summary) for summary in reply.luts]

    def watch(
        self,
        reference: str,
        *,
        emulation: str = "",
        context: str = "",
        threads: int | None = None,
        batch: int | None = None,
        runtime: str = "",
        precision: str = "",
    ) -> Iterator[Lut]:
        """The LUT that ``rpi3b@stable`` means now, then each that it means later, for ever; waits in between.

        While the tag is not set it gives nothing. A coordinator that goes away is waited for and asked again: nothing
        is given twice, and what moved meanwhile is given then. Raises NotFoundError for a device type or space that is
        not there, AmbiguousError, and UnavailableError when no coordinator answers at the beginning.
        """
        query = replace(
            parse_reference(reference), emulation=emulation, context=context, threads=threads, batch=batch,
            runtime=runtime, precision=precision,
        )  # fmt: skip
        known, begun, pause_s = "", False, RETRY_FIRST_S
        while True:
            call = self._luts.WatchLut(lut_pb2.GetLutRequest(query=to_message(query), known_digest=known))
            try:
                call.initial_metadata()  # comes when the question makes sense, or when the call has failed
                begun, pause_s = begun or call.is_active(), RETRY_FIRST_S if call.is_active() else pause_s
                for reply in call:
                    lut = formats.from_bytes(reply.document, f"the LUT from {self.address}")
                    known = lut.digest
                    yield lut
            except grpc.RpcError as error:
                if self._closed:
                    return
                if not begun or error.code() not in _GONE:
                    raise self._error(error) from error
                log.warning("the coordinator at %s is gone, and is waited for: %s", self.address, error.details())
            finally:
                call.cancel()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)

    def findings(self, query: LutQuery) -> list[Finding]:
        """What lint found when the one version that fits was stored."""
        request = lut_pb2.GetFindingsRequest(query=to_message(query))
        reply: lut_pb2.GetFindingsReply = self._call(self._luts.GetFindings, request)
        return [from_message(Finding, finding) for finding in reply.findings]

    def tags(self, query: LutQuery | None = None, *, history: bool = False) -> list[TagMove]:
        """Where the tags of what fits `query` point, or every move that they made, newest first."""
        request = lut_pb2.ListTagsRequest(query=to_message(query or LutQuery()), history=history)
        reply: lut_pb2.ListTagsReply = self._call(self._luts.ListTags, request)
        return [from_message(TagMove, move) for move in reply.tags]

    def move_tag(
        self,
        query: LutQuery,
        name: str,
        *,
        moved_by: str,
        reason: str = "",
        force: bool = False,
        max_mape: float | None = None,
    ) -> TagMove:
        """Point a tag at the one version that fits. Raises BadInputError with every reason when `stable` is refused;
        `force` sets it all the same, and stays in the history. max_mape: of a stable version, relative.
        """
        request = lut_pb2.MoveTagRequest(
            query=to_message(query), name=name, moved_by=moved_by, reason=reason, force=force, max_mape=max_mape
        )
        return from_message(TagMove, self._call(self._luts.MoveTag, request))

    # ---- runs and devices ----

    def devices(self) -> list[Device]:
        """Every device that the coordinator knows, by name."""
        reply: run_pb2.ListDevicesReply = self._call(self._runs.ListDevices, run_pb2.ListDevicesRequest())
        return [from_message(Device, device) for device in reply.devices]

    def submit(self, spec: RunSpec, run_id: str) -> Run:
        """Begin a run. Submitting the same id again is harmless and gives the run that exists."""
        return self._run(self._runs.SubmitRun, run_pb2.SubmitRunRequest(run_id=run_id, spec=to_message(spec)))

    def run(self, run_id: str) -> Run:
        return self._run(self._runs.GetRun, run_pb2.GetRunRequest(run_id=run_id))

    def runs(self, limit: int = 0) -> list[Run]:
        """The newest runs first, 0 for all; their specifications are without items and networks."""
        reply: run_pb2.ListRunsReply = self._call(self._runs.ListRuns, run_pb2.ListRunsRequest(limit=limit))
        return [from_message(Run, run) for run in reply.runs]

    def watch_run(self, run_id: str) -> Iterator[Run]:
        """The run now, then at every change (a few per second at most) until it has ended."""
        call = self._runs.WatchRun(run_pb2.GetRunRequest(run_id=run_id))
        spec: RunSpec | None = None
        try:
            for message in call:
                run = from_message(Run, message)
                spec = run.spec or spec
                yield replace(run, spec=spec)
        except grpc.RpcError as error:
            raise self._error(error) from error
        finally:
            call.cancel()

    def cancel(self, run_id: str) -> Run:
        return self._run(self._runs.CancelRun, run_pb2.GetRunRequest(run_id=run_id))

    def resume(self, run_id: str) -> Run:
        """Go on with a failed or cancelled run."""
        return self._run(self._runs.ResumeRun, run_pb2.GetRunRequest(run_id=run_id))

    def build(
        self,
        run_ids: Sequence[str],
        *,
        latency: str = "",
        energy: str = "",
        energy_form: str = "",
        correction: bool = True,
        allow_different: Sequence[str] = (),
        exclude_devices: Sequence[str] = (),
        parents: Sequence[str] = (),
    ) -> tuple[Lut, bool]:
        """A version from the stored evidence of runs, and whether it was there before; words left out are the defaults.

        `parents` are digests of versions that it continues, beside those that were built from the same runs. Raises
        BadInputError for runs that cannot be merged, ConflictError for one that has not ended, NotFoundError.
        """
        request = run_pb2.BuildLutRequest(
            run_ids=run_ids,
            latency=latency,
            energy=energy,
            energy_form=energy_form,
            no_correction=not correction,
            allow_different=allow_different,
            exclude_devices=exclude_devices,
            parent_digests=parents,
        )
        reply: run_pb2.BuildLutReply = self._call(self._runs.BuildLut, request, BUILD_TIMEOUT_S)
        return self.lut(digest=reply.digest), reply.existed

    # ---- certificates ----

    def issue_token(self, holder: Invitation, valid_s: float) -> tuple[str, float]:
        """(a token that invites the holder to one certificate, the wall time when it expires)."""
        request = enrol_pb2.IssueTokenRequest(**asdict(holder), valid_s=valid_s)
        reply: enrol_pb2.IssueTokenReply = self._call(self._certificates.IssueToken, request)
        return reply.token, reply.expires_wall_s

    def revoke(self, name: str, reason: str = "") -> tuple[int, int]:
        """(certificates, tokens) of `name` that were valid until now; an open session ends."""
        request = enrol_pb2.RevokeRequest(name=name, reason=reason)
        reply: enrol_pb2.RevokeReply = self._call(self._certificates.Revoke, request)
        return reply.certificates, reply.tokens

    def certificates(self) -> list[Issued]:
        """Those that have not expired, and those that were revoked."""
        reply: enrol_pb2.ListCertificatesReply = self._call(
            self._certificates.ListCertificates, enrol_pb2.ListCertificatesRequest()
        )
        return [
            Issued(
                one.serial,
                Invitation(one.name, one.role, one.device_type),
                one.issued_wall_s,
                one.expires_wall_s,
                one.revoked_wall_s or None,
                one.reason,
            )
            for one in reply.certificates
        ]

    # ---- calls ----

    def _run(self, method: Callable[..., Any], request: Any) -> Run:
        return from_message(Run, self._call(method, request))

    def _call(self, method: Callable[..., Any], request: Any, timeout_s: float | None = None) -> Any:
        try:
            return method(request, timeout=timeout_s or self._timeout_s)
        except grpc.RpcError as error:
            raise self._error(error, timeout_s) from error

    def _error(self, error: grpc.RpcError, timeout_s: float | None = None) -> EdgelutError:
        code, details = error.code(), error.details()
        if code is grpc.StatusCode.UNAVAILABLE:
            return UnavailableError(
                f"no coordinator answers at {self.address} ({details}); start one with `coordinator serve`, "
                f"or say where it is with --coordinator or {ADDRESS_VARIABLE}"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return UnavailableError(
                f"the coordinator at {self.address} did not answer within {timeout_s or self._timeout_s:g} s"
            )
        return error_of(error)


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/edgelut``, by default ``~/.cache/edgelut``."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "edgelut"


class _Cache:
    """LUT files by digest, and for each query the digest of the last answer. What cannot be read or written is no
    cache.
    """

    def __init__(self, directory: Path) -> None:
        self._luts = directory / "luts"
        self._queries = directory / "queries"
        # Decoding one takes longer than asking whether it is still the newest. LUTs are immutable and may be shared.
        self._load = lru_cache(DECODED)(lambda digest: Lut.load(self._luts / f"{digest}.lut"))

    def find(self, query: str) -> Lut | None:
        """The LUT that was the answer to the query; None when there is none, or its file is damaged."""
        try:
            digest = (self._queries / query).read_text("ascii")
            lut = self._load(digest)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, BadInputError) as error:
            log.warning("the cached LUT cannot be used and is fetched again: %s", error)
            return None
        return lut if lut.digest == digest else None

    def keep(self, query: str, digest: str, document: bytes) -> None:
        """Keep the answer, the file first: a query never points at a file that is not whole."""
        try:
            for directory, name, data in (
                (self._luts, f"{digest}.lut", document),
                (self._queries, query, digest.encode()),
            ):
                directory.mkdir(parents=True, exist_ok=True)
                formats.files.write(directory / name, data)
        except (OSError, StorageError) as error:
            log.warning("the LUT cannot be cached: %s", error)
