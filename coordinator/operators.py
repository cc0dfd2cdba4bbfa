"""RunService and LutService: what an operator and a search engine ask, from message to vocabulary and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any, TypeVar

import grpc

from coordinator.access import caller
from coordinator.builds import build_lut
from coordinator.dispatch import Dispatcher
from coordinator.runs import Runs
from coordinator.watching import moves
from lut_store.stable import MAX_MAPE
from lut_store.store import Store
from protos import lut_pb2, lut_pb2_grpc, run_pb2, run_pb2_grpc
from protos.convert import from_message, to_message
from protos.errors import BadInputError, EdgelutError, status_of
from protos.types import LutQuery, Run, RunSpec

T = TypeVar("T")
M = TypeVar("M")


def vocabulary(cls: type[T], message: Any) -> T:
    """The vocabulary value of a request. Raises BadInputError."""
    try:
        return from_message(cls, message)
    except ValueError as error:
        raise BadInputError(str(error)) from error


async def answer(context: grpc.aio.ServicerContext[Any, Any], work: Awaitable[M]) -> M:
    """The result of `work`, or its domain error as the status of the call. A caller that hangs up does not interrupt
    it.
    """
    try:
        return await asyncio.shield(work)
    except EdgelutError as error:
        await context.abort(status_of(error), str(error))
        raise AssertionError("abort raises") from error


class RunService(run_pb2_grpc.RunServiceServicer):
    """Runs and devices."""

    def __init__(self, runs: Runs, dispatcher: Dispatcher) -> None:
        self._runs = runs
        self._dispatcher = dispatcher

    async def SubmitRun(  # noqa: N802
        self, request: run_pb2.SubmitRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.Run:
        async def work() -> run_pb2.Run:
            spec = await asyncio.to_thread(vocabulary, RunSpec, request.spec)
            return _message(await self._runs.submit(request.run_id, spec))

        return await answer(context, work())

    async def GetRun(  # noqa: N802
        self, request: run_pb2.GetRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.Run:
        return _message(await answer(context, self._runs.get(request.run_id)))

    async def CancelRun(  # noqa: N802
        self, request: run_pb2.GetRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.Run:
        return _message(await answer(context, self._runs.cancel(request.run_id)))

    async def ResumeRun(  # noqa: N802
        self, request: run_pb2.GetRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.Run:
        return _message(await answer(context, self._runs.resume(request.run_id)))

    async def WatchRun(  # noqa: N802
        self, request: run_pb2.GetRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[run_pb2.Run]:
        first = True
        try:
            async for run in self._runs.watch(request.run_id):
                yield _message(run if first else replace(run, spec=None))
                first = False
        except EdgelutError as error:
            await context.abort(status_of(error), str(error))

    async def ListRuns(  # noqa: N802
        self, request: run_pb2.ListRunsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.ListRunsReply:
        runs = await answer(context, self._runs.list(request.limit))
        return run_pb2.ListRunsReply(runs=[_message(_short(run)) for run in runs])

    async def ListDevices(  # noqa: N802
        self,
        request: run_pb2.ListDevicesRequest,  # noqa: ARG002 it is empty
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> run_pb2.ListDevicesReply:
        known = await answer(context, asyncio.to_thread(self._dispatcher.store.devices))
        devices = self._dispatcher.fleet.devices(known, self._dispatcher.leases, time.time())
        return run_pb2.ListDevicesReply(devices=[to_message(device) for device in devices])

    async def BuildLut(  # noqa: N802
        self, request: run_pb2.BuildLutRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.BuildLutReply:
        return await answer(context, build_lut(self._dispatcher, request))


def _message(run: Run) -> run_pb2.Run:
    message: run_pb2.Run = to_message(run)
    return message


def _short(run: Run) -> Run:
    """As it stands in a list: without what makes it large."""
    spec = replace(run.spec, items=(), networks=()) if run.spec is not None else None
    return replace(run, spec=spec, operators=(), report="")


class LutService(lut_pb2_grpc.LutServiceServicer):
    """LUTs and their tags."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def GetLut(  # noqa: N802
        self, request: lut_pb2.GetLutRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> lut_pb2.GetLutReply:
        return await answer(context, asyncio.to_thread(self._get, request))

    def _get(self, request: lut_pb2.GetLutRequest) -> lut_pb2.GetLutReply:
        digest, document = self._store.lut_document(vocabulary(LutQuery, request.query), request.known_digest)
        return lut_pb2.GetLutReply(digest=digest, document=document)

    async def ListLuts(  # noqa: N802
        self, request: lut_pb2.ListLutsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> lut_pb2.ListLutsReply:
        return await answer(context, asyncio.to_thread(self._list, request))

    def _list(self, request: lut_pb2.ListLutsRequest) -> lut_pb2.ListLutsReply:
        summaries = self._store.luts(vocabulary(LutQuery, request.query))
        return lut_pb2.ListLutsReply(luts=[to_message(summary) for summary in summaries])

    async def GetFindings(  # noqa: N802
        self, request: lut_pb2.GetFindingsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> lut_pb2.GetFindingsReply:
        return await answer(context, asyncio.to_thread(self._findings, request))

    def _findings(self, request: lut_pb2.GetFindingsRequest) -> lut_pb2.GetFindingsReply:
        digest, findings = self._store.findings(vocabulary(LutQuery, request.query))
        return lut_pb2.GetFindingsReply(digest=digest, findings=[to_message(finding) for finding in findings])

    async def WatchLut(  # noqa: N802
        self, request: lut_pb2.GetLutRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[lut_pb2.GetLutReply]:
        try:
            query = vocabulary(LutQuery, request.query)
            async for digest, document in moves(
                self._store, query, request.known_digest, lambda: context.send_initial_metadata(())
            ):
                yield lut_pb2.GetLutReply(digest=digest, document=document)
        except EdgelutError as error:
            await context.abort(status_of(error), str(error))

    async def ListTags(  # noqa: N802
        self, request: lut_pb2.ListTagsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> lut_pb2.ListTagsReply:
        return await answer(context, asyncio.to_thread(self._tags, request))

    def _tags(self, request: lut_pb2.ListTagsRequest) -> lut_pb2.ListTagsReply:
        tags = self._store.tags(vocabulary(LutQuery, request.query), history=request.history)
        return lut_pb2.ListTagsReply(tags=[to_message(move) for move in tags])

    async def MoveTag(  # noqa: N802
        self, request: lut_pb2.MoveTagRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> lut_pb2.TagMove:
        found = caller(context)
        moved_by = request.moved_by if found is None else found[0].name  # a certificate says more than a caller
        message: lut_pb2.TagMove = await answer(context, asyncio.to_thread(self._move, request, moved_by))
        return message

    def _move(self, request: lut_pb2.MoveTagRequest, moved_by: str) -> Any:
        moved = self._store.move_tag(
            vocabulary(LutQuery, request.query),
            request.name,
            moved_by=moved_by,
            reason=request.reason,
            force=request.force,
            max_mape=request.max_mape if request.HasField("max_mape") else MAX_MAPE,
        )
        return to_message(moved)
