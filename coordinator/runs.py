"""What an operator may do with runs: submit, look, watch, cancel, resume."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

from coordinator.background import in_daemon_thread
from coordinator.dispatch import Dispatcher
from coordinator.progress import ActiveRun, restored
from coordinator.schedule import matches, nearest
from coordinator.sessions import check_name
from lut_store.store import RunRecord
from protos.errors import BadInputError, ConflictError, NotFoundError
from protos.types import ENDED_STATES, Run, RunSpec

log = logging.getLogger(__name__)

WATCH_EVERY_S = 0.25
WATCH_FOREIGN_EVERY_S = 1.0  # a run that another coordinator drives is read from the database
ADOPT_EVERY_S = 5.0  # runs of a coordinator that died are taken over within this time
SUMMARIES = 256  # ended runs whose progress is kept in memory
ALL = 1 << 30


class Runs:
    """The runs of the store; those that this process drives come with their progress."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._store = dispatcher.store
        self._summaries: dict[str, Run] = {}
        self._closing = asyncio.Event()
        dispatcher.retired = self._keep

    # ---- reading ----

    async def get(self, run_id: str) -> Run:
        """Raises NotFoundError."""
        active = self._dispatcher.active.get(run_id)
        if active is not None:
            return self._view(active)
        run = await self._of(await asyncio.to_thread(self._store.run, run_id))
        if run.spec is not None and run.spec.purpose == "validate" and run.state == "done" and not run.report:
            report = await in_daemon_thread(self._dispatcher.methods.report, self._store, run_id)
            run = replace(run, report=report)
            self._remember(run)
        return run

    async def _of(self, record: RunRecord) -> Run:
        """The run as this process knows it best."""
        active = self._dispatcher.active.get(record.run_id)
        if active is not None:
            return self._view(active)
        if record.state not in ENDED_STATES:
            if await asyncio.to_thread(self._dispatcher.claims.taken, record.run_id):
                return _bare(record, "another coordinator process drives it")
            record = await asyncio.to_thread(self._store.run, record.run_id)  # it may have ended meanwhile
            if record.state not in ENDED_STATES:
                return _bare(record, "no coordinator drives it; resume it to go on")
        summary = self._summaries.get(record.run_id)
        if summary is None or not _same_end(summary, record):  # another coordinator may have gone on with it
            summary = (await in_daemon_thread(restored, self._store, record)).view((), 0.0)
            self._remember(summary)
        return summary

    async def list(self, limit: int) -> list[Run]:
        """The newest first."""
        records = await asyncio.to_thread(self._store.runs, limit or ALL)
        return [await self._of(record) for record in records]

    async def watch(self, run_id: str) -> AsyncIterator[Run]:
        """The run at once, then whenever it has changed, at most every WATCH_EVERY_S, until it has ended."""
        await self._take_up(run_id)
        last: Run | None = None
        while True:
            view = await self.get(run_id)
            if view != last:
                yield view
                last = view
            if view.state in ENDED_STATES:
                return
            driven = run_id in self._dispatcher.active
            await asyncio.sleep(WATCH_EVERY_S if driven else WATCH_FOREIGN_EVERY_S)

    def _view(self, run: ActiveRun) -> Run:
        fleet, leases = self._dispatcher.fleet, self._dispatcher.leases
        devices = fleet.activities(lease.device for lease in leases.of_run(run.run_id))
        return run.view(devices, fleet.clock())

    def _keep(self, run: ActiveRun) -> None:
        self._remember(self._view(run))

    def _remember(self, view: Run) -> None:
        self._summaries[view.run_id] = view
        while len(self._summaries) > SUMMARIES:
            del self._summaries[next(iter(self._summaries))]

    # ---- acting ----

    async def submit(self, run_id: str, spec: RunSpec) -> Run:
        """Begin a run; the same id and specification again give the run that exists.

        Raises NotFoundError when no agent of that device is connected, BadInputError when there is nothing to measure,
        and ConflictError when the id belongs to another specification.
        """
        check_name("the run's id", run_id)
        if spec.plan.latency_budget_s <= 0:
            raise BadInputError("latency_budget_s is 0: a run must have device time to measure latency")
        async with self._dispatcher.lock:
            if not await asyncio.to_thread(self._exists, run_id):
                self._check_device(spec.device)
            if await asyncio.to_thread(self._store.add_run, run_id, spec):
                log.info("run %s: %s on %s, preset %s", run_id, spec.space.name, spec.device, spec.preset)
        await self._take_up(run_id)
        return await self.get(run_id)

    def _exists(self, run_id: str) -> bool:
        try:
            self._store.run(run_id)
        except NotFoundError:
            return False
        return True

    def _check_device(self, device: str) -> None:
        boards = self._dispatcher.fleet.boards(self._dispatcher.leases)
        fitting = [board for board in boards if matches(device, board)]
        if not fitting:
            known = {board.name: board.device_type for board in boards}
            raise NotFoundError(f"no agent of {device!r} is connected, {nearest(device, known)}")
        if all(board.broken for board in fitting):
            reasons = "; ".join(f"{board.name}: {board.broken}" for board in fitting)
            raise NotFoundError(f"every agent of {device!r} is broken: {reasons}")

    async def cancel(self, run_id: str) -> Run:
        """Stop the run; its evidence stays, and it can be resumed. Raises ConflictError when it has ended otherwise."""
        async with self._dispatcher.lock:
            run = await self._driven(run_id)
            if run is None:
                record = await asyncio.to_thread(self._store.run, run_id)
                if record.state != "cancelled":
                    raise ConflictError(f"run {run_id} is {record.state}; there is nothing to cancel")
            elif run.state == "building":
                raise ConflictError(f"run {run_id} has measured everything and is being built; wait for it")
            else:
                await self._dispatcher.enter(run, "cancelled", "cancelled by an operator")
        return await self.get(run_id)

    async def resume(self, run_id: str) -> Run:
        """Go on with a failed or cancelled run from the evidence that it has. Raises ConflictError when it is done."""
        async with self._dispatcher.lock:
            run = await self._driven(run_id)
            record = await asyncio.to_thread(self._store.run, run_id)
            if record.state == "done":
                raise ConflictError(f"run {run_id} is done: its LUT is {record.lut_reference or record.lut_digest}")
            if run is None:
                self._check_device(record.spec.device)
                await asyncio.to_thread(self._resume, run_id)
                self._summaries.pop(run_id, None)
        await self._take_up(run_id)
        return await self.get(run_id)

    def _resume(self, run_id: str) -> None:
        self._store.reset_attempts(run_id)
        self._store.set_run(run_id, "queued")

    async def _driven(self, run_id: str) -> ActiveRun | None:
        """The run, driven by this process; None when it has ended. Raises ConflictError when another process
        drives it.
        """
        record = await asyncio.to_thread(self._store.run, run_id)
        if record.state in ENDED_STATES:
            return None
        run = await self._dispatcher.take_up(record)
        if run is None:
            raise ConflictError(f"run {run_id} is driven by another coordinator process; ask that one")
        return run

    async def _take_up(self, run_id: str) -> None:
        """Drive the run unless it has ended or another process drives it."""
        async with self._dispatcher.lock:
            record = await asyncio.to_thread(self._store.run, run_id)
            if record.state not in ENDED_STATES:
                await self._dispatcher.take_up(record)

    async def adopt_all(self) -> None:
        """Take up every unfinished run that nobody drives."""
        for run_id in await asyncio.to_thread(self._store.unfinished_runs):
            if run_id not in self._dispatcher.active:
                await self._take_up(run_id)

    async def keep_adopting(self) -> None:
        """Take over the runs of coordinators that die, until `close`."""
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ADOPT_EVERY_S):
                    await self._closing.wait()
                    return
            await self.adopt_all()

    def close(self) -> None:
        self._closing.set()


def _same_end(summary: Run, record: RunRecord) -> bool:
    ends = (summary.state, summary.reason, summary.lut_digest)
    return ends == (record.state, record.reason, record.lut_digest)


def _bare(record: RunRecord, note: str) -> Run:
    return Run(
        run_id=record.run_id,
        state=record.state,
        reason=record.reason or note,
        spec=record.spec,
        created_wall_s=record.created_wall_s,
        lut_digest=record.lut_digest,
        lut_reference=record.lut_reference,
    )
