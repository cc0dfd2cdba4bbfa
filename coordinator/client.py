"""The client of a coordinator: what a search engine and the command line call. Synchronous; safe to share between
threads.

>>> with Coordinator("127.0.0.1:7443") as c:                             # doctest: +SKIP
...     lut = c.lut("rpi3b", space="fbnet-cifar10", version="latest")
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc

from lut_store import formats
from lut_store.lut import Lut
from protos import lut_pb2, lut_pb2_grpc, run_pb2, run_pb2_grpc
from protos.convert import from_message, to_message
from protos.errors import BadInputError, EdgelutError, StorageError, UnavailableError, error_of
from protos.types import Device, LutQuery, LutSummary, Run, RunSpec, digest_of

log = logging.getLogger(__name__)
M = TypeVar("M")

DEFAULT_ADDRESS = "127.0.0.1:7443"
ADDRESS_VARIABLE = "EDGELUT_COORDINATOR"
TIMEOUT_S = 60.0
MAX_MESSAGE_BYTES = 64 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),  # a proxy for the web does not know the way to a coordinator
)


def checked_address(address: str) -> str:
    """`address` when it is HOST:PORT. Raises BadInputError when it is not: gRPC would dial something else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise BadInputError(
            f"{address!r} is no address of a coordinator; write HOST:PORT, for example {DEFAULT_ADDRESS}"
        )
    return address


class Coordinator:
    """A connection to the coordinator at `address` (HOST:PORT; by default EDGELUT_COORDINATOR, else 127.0.0.1:7443).

    Every method raises the errors of protos.errors with the coordinator's sentence, and UnavailableError when no
    coordinator answers. `cache` is where LUTs are kept, by default edgelut/ under the XDG cache directory.
    """

    def __init__(self, address: str | None = None, *, timeout_s: float = TIMEOUT_S, cache: Path | None = None) -> None:
        self.address = checked_address(address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS)
        self._timeout_s = timeout_s
        self._cache = _Cache(cache or cache_directory())
        self._channel = grpc.insecure_channel(self.address, options=_OPTIONS)
        self._runs = run_pb2_grpc.RunServiceStub(self._channel)
        self._luts = lut_pb2_grpc.LutServiceStub(self._channel)

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
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

        A LUT that has not changed since it was last asked for comes from the cache; the coordinator is asked all the
        same. Raises NotFoundError, naming what there is, and AmbiguousError, naming the option that is missing.
        """
        query = LutQuery(
            device_type, space, str(version), emulation, context, threads, batch, runtime, precision, digest
        )
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

    def watch(self, run_id: str) -> Iterator[Run]:
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

    # ---- calls ----

    def _run(self, method: Callable[..., Any], request: Any) -> Run:
        return from_message(Run, self._call(method, request))

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._error(error) from error

    def _error(self, error: grpc.RpcError) -> EdgelutError:
        code, details = error.code(), error.details()
        if code is grpc.StatusCode.UNAVAILABLE:
            return UnavailableError(
                f"no coordinator answers at {self.address} ({details}); start one with `coordinator serve`, "
                f"or say where it is with --coordinator or {ADDRESS_VARIABLE}"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return UnavailableError(f"the coordinator at {self.address} did not answer within {self._timeout_s:g} s")
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

    def find(self, query: str) -> Lut | None:
        """The LUT that was the answer to the query; None when there is none, or its file is damaged."""
        try:
            digest = (self._queries / query).read_text("ascii")
            lut = Lut.load(self._luts / f"{digest}.lut")
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
