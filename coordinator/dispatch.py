"""The loop that drives runs: decisions of coordinator.schedule, carried out on the store and the sessions.

State that matters (runs, tasks, leases, measurements) is in the store, so that a coordinator that was killed goes on
where it was. The lock guards single steps, each a few transactions; nothing waits for a device or for a build while
holding it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from coordinator.background import in_daemon_thread
from coordinator.claims import Claims
from coordinator.progress import ActiveRun, LookResult, counted, looked, restored, tasks_of
from coordinator.schedule import (
    Board,
    Demand,
    Enter,
    Look,
    TaskView,
    Wait,
    assign,
    choose_boards,
    next_move,
    retry_pause_s,
    task_seed,
)
from coordinator.sessions import Fleet, Leases, OpenLease, Session
from lut_store.store import RunRecord, Store
from protos import agent_pb2, raw_pb2
from protos.convert import to_message
from protos.errors import EdgelutError, StaleLeaseError, StorageError
from protos.types import ENDED_STATES, Lease

log = logging.getLogger(__name__)
T = TypeVar("T")

TICK_S = 0.5  # deadlines are looked at this often
STALL_S = 1.0  # an event loop that is so late is a stall of this process
RETRY_PAUSE_S = 2.0  # a board's rest after the first failure of a task; it doubles with each
# The database's deadline of a lease, for a coordinator that takes over; this one keeps its own, shorter one.
STORED_LEASE_S = 120.0
CLAIMS_S = 2.0  # a database server that was restarted has forgotten who drives what: this often is looked


class Built(Protocol):
    """What a build gives: a stored LUT version."""

    @property
    def digest(self) -> str: ...
    @property
    def reference(self) -> str: ...


class Methods(Protocol):
    """How evidence is judged. Each call runs in a thread of its own and may take long."""

    def look(self, store: Store, run_id: str) -> LookResult: ...

    def build(self, store: Store, run_id: str) -> Built: ...

    def report(self, store: Store, run_id: str) -> str:
        """Of a run with purpose "validate": prediction against measurement, as JSON."""
        ...


class Dispatcher:
    """The runs that this process drives, the leases it has given, and the loop that moves them on."""

    def __init__(self, store: Store, fleet: Fleet, claims: Claims, methods: Methods) -> None:
        self.store = store
        self.fleet = fleet
        self.claims = claims
        self.methods = methods
        self.leases = Leases()
        self.active: dict[str, ActiveRun] = {}
        self.lock = asyncio.Lock()
        self.retired: Callable[[ActiveRun], None] | None = None  # told of every run that has ended
        self._task_runs: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._closing = False
        self._step_began_s: float | None = None
        self._listened_s = time.monotonic()
        self._claims_checked_s = time.monotonic()
        self._job_slot = asyncio.Semaphore(1)  # one look or build at a time: there are few cores and much arithmetic

    # ---- the loop ----

    def wake(self) -> None:
        """Something has changed: decide anew."""
        self._wake.set()

    async def run(self) -> None:
        """Move the runs on, whenever something has changed and every TICK_S, until `close`."""
        listening = asyncio.create_task(self._keep_listening())
        try:
            while not self._closing:
                self._wake.clear()
                self._step_began_s = time.monotonic()
                try:
                    await self.step()
                except StorageError as error:
                    log.error("the runs wait, because the database cannot be written: %s", error)
                    await asyncio.sleep(TICK_S)
                self._step_began_s = None
                # Not wait_for: before Python 3.12 it may lose a cancellation that comes together with the result.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._wake.wait()
        finally:
            listening.cancel()

    @property
    def busy_s(self) -> float:
        """How long the step in hand has taken so far; 0 between steps."""
        return 0.0 if self._step_began_s is None else time.monotonic() - self._step_began_s

    async def _keep_listening(self) -> None:
        while True:
            self._listen()
            await asyncio.sleep(TICK_S)

    def _listen(self) -> None:
        """Notice that this process was stopped, or had no CPU: agents that have spoken have then not been heard."""
        now_s = time.monotonic()
        late_s = now_s - self._listened_s - TICK_S
        if late_s > STALL_S:
            log.warning("the coordinator stood still for %.1f s; sessions and leases last as much longer", late_s)
            self.fleet.forgive(late_s, self.leases)
        self._listened_s = now_s

    def close(self) -> None:
        """Make `run` end after the step that it is in: a transaction in a thread cannot be cancelled."""
        self._closing = True
        self.wake()

    async def step(self) -> None:
        """One pass: end what is overdue, decide for each run, hand out leases."""
        self._listen()
        self.fleet.end_silent()
        await self._check_claims()
        for lease in self.leases.overdue(self.fleet.clock()):
            async with self.lock:
                if self.leases.holds(lease.device, lease.task_id, lease.fence):
                    await self.give_up(lease, f"{lease.device} was silent for {self.fleet.timeout_s:g} s")
        demands = []
        for run in list(self.active.values()):
            try:
                async with self.lock:
                    demand = await self._advance(run) if self._drives(run) else None
            except StorageError:
                raise
            except Exception as error:  # one run must not stop the others
                await self._fail(run, "the run cannot go on", error)
                continue
            if demand is not None:
                demands.append(demand)
        kinds = {demand.run_id: demand.work.kind for demand in demands}
        for run_id, board in assign(demands):
            async with self.lock:
                await self._lease(run_id, board, kinds[run_id])

    def _drives(self, run: ActiveRun) -> bool:
        return self.active.get(run.run_id) is run

    def boards(self, run: ActiveRun) -> tuple[Board, ...]:
        """The connected boards that may work for the run."""
        chosen, run.left_out = choose_boards(run.spec.device, self.fleet.boards(self.leases), run.emulation)
        return chosen

    async def _advance(self, run: ActiveRun) -> Demand | None:
        """Carry out moves until the run wants work, or waits."""
        for task in [t for t in run.tasks.values() if t.state == "leased" and self.leases.of_task(t.task_id) is None]:
            await self._release(run, task)
        while not run.ended and run.job is None:
            boards = self.boards(run)
            move = next_move(run.spec, run.state, list(run.tasks.values()), run.tally, boards)
            if isinstance(move, Enter):
                await self.enter(run, move.state, move.reason)
            elif isinstance(move, Look):
                self._start(run, self._look(run))
            elif isinstance(move, Wait):
                if run.state == "building":  # found so after a restart
                    self._start(run, self._build(run))
                run.waits_for = move.reason
                return None
            else:
                held = len(self.leases.of_run(run.run_id))
                run.waits_for = "" if held else move.waits_for
                return Demand(run.run_id, run.created_wall_s, move, boards, held)
        return None

    async def enter(self, run: ActiveRun, state: str, reason: str = "", **lut: str) -> None:
        """The run is in `state` from now on, in the store first."""
        await asyncio.to_thread(self.store.set_run, run.run_id, state, reason, **lut)
        log.info("run %s: %s → %s%s", run.run_id, run.state, state, f" ({reason})" if reason else "")
        run.state, run.reason, run.waits_for = state, reason, ""
        run.lut_digest, run.lut_reference = lut.get("lut_digest", ""), lut.get("lut_reference", "")
        run.begin_phase(self.fleet.clock())
        if run.ended:
            for lease in self.leases.of_run(run.run_id):
                await self.give_up(lease, "the run was cancelled" if state == "cancelled" else f"the run has {state}")
            del self.active[run.run_id]
            if self.retired is not None:
                self.retired(run)
            await asyncio.to_thread(self.claims.drop, run.run_id)

    # ---- leases ----

    async def _lease(self, run_id: str, device: str, kind: str) -> None:
        """Give the board a task of the run: a pending one, or a new one."""
        run, session = self.active.get(run_id), self.fleet.get(device)
        if run is None or session is None or self.leases.of_device(device) is not None:
            return  # it has changed since it was decided; the next step decides anew
        lease, message = await asyncio.to_thread(self._take_task, run, device, kind)
        now_s = self.fleet.clock()
        until_s = now_s + self.fleet.timeout_s
        own = OpenLease(lease.task_id, lease.fence, run_id, kind, device, until_s, now_s + STORED_LEASE_S)
        self.leases.add(own)
        self._task_runs[lease.task_id] = run_id
        known = run.tasks.get(lease.task_id) or TaskView(lease.task_id, kind, "pending")
        run.tasks[lease.task_id] = replace(known, state="leased", device=device)
        run.emulation, run.waits_for = session.device.emulation, ""
        if run.state == "queued":
            await self.enter(run, "latency")
        log.info("run %s: %s task %s to %s", run_id, kind, lease.task_id, device)
        if session.ended:  # meanwhile
            await self.give_up(own, f"{device} has gone")
        session.send(agent_pb2.CoordinatorMessage(lease=message))

    def _take_task(self, run: ActiveRun, device: str, kind: str) -> tuple[Lease, agent_pb2.Lease]:
        until_s = time.time() + STORED_LEASE_S
        own = [task for task in run.tasks.values() if task.kind == kind]
        lease: Lease | None = None
        if any(task.state == "pending" for task in own):
            lease = self.store.lease_task(run.run_id, device, until_s, kind)
        if lease is None:
            # An energy task's number says which segment of the schedule it is (agent.energy.schedule).
            first_round = len(own) * (run.spec.plan.rounds_per_task if kind == "latency" else 1)
            seed = task_seed(run.spec, kind, len(own))
            lease = self.store.lease_new_task(run.run_id, kind, seed, first_round, device, until_s)
        return lease, to_message(lease)

    async def _release(self, run: ActiveRun, task: TaskView) -> None:
        """A lease that nobody watches, from a coordinator that ended while it gave it: the task is pending again."""
        log.info("run %s: task %s taken back from %s, which does not hold it", run.run_id, task.task_id, task.device)
        with contextlib.suppress(StaleLeaseError):  # it has ended by itself
            await asyncio.to_thread(self.store.release_task, task.task_id, task.fence)
        await self._reload(run)

    async def give_up(self, lease: OpenLease, reason: str) -> None:
        """Take the lease back: its task is pending again, and what the device still sends under it is its last word."""
        self.leases.drop(lease.task_id)
        try:
            await asyncio.to_thread(self.store.release_task, lease.task_id, lease.fence)
        except StaleLeaseError as error:
            log.warning("task %s: %s", lease.task_id, error)
        log.info("run %s: task %s taken back from %s: %s", lease.run_id, lease.task_id, lease.device, reason)
        self._revoke(lease.device, lease.task_id, lease.fence, reason)
        run = self.active.get(lease.run_id)
        if run is not None:
            await self._reload(run)
        self.wake()

    def _revoke(self, device: str, task_id: str, fence: int, reason: str) -> None:
        session = self.fleet.get(device)
        if session is not None:
            revoke = agent_pb2.Revoke(task_id=task_id, fence=fence, reason=reason)
            session.send(agent_pb2.CoordinatorMessage(revoke=revoke))

    # ---- what sessions report ----

    async def connected(self, session: Session, held: Sequence[tuple[str, int]]) -> None:
        """Leases that the device still works on go on; those that it has forgotten go to another."""
        async with self.lock:
            own = self.leases.of_device(session.name)
            for task_id, fence in held:
                if own is not None and (own.task_id, own.fence) == (task_id, fence):
                    own.until_s = self.fleet.clock() + self.fleet.timeout_s
                    log.info("run %s: %s goes on with task %s", own.run_id, session.name, task_id)
                else:
                    self._revoke(session.name, task_id, fence, "the lease has ended while the agent was away")
            if own is not None and (own.task_id, own.fence) not in held:
                await self.give_up(own, f"{session.name} has come back without it")
            session.ready = True
        self.wake()

    async def heard(self, session: Session, task_id: str) -> None:
        """A status has come: renew the lease that it names."""
        lease = self.leases.of_device(session.name)
        if lease is None or lease.task_id != task_id:
            return
        now_s = self.fleet.clock()
        lease.until_s = now_s + self.fleet.timeout_s
        if lease.stored_until_s - now_s >= STORED_LEASE_S / 2:
            return
        lease.stored_until_s = now_s + STORED_LEASE_S
        try:
            await asyncio.to_thread(self.store.renew_lease, task_id, lease.fence, time.time() + STORED_LEASE_S)
        except StaleLeaseError as error:
            async with self.lock:
                if self.leases.holds(lease.device, task_id, lease.fence):
                    await self.give_up(lease, str(error))

    async def task_ended(self, session: Session, ended: agent_pb2.TaskEnded) -> None:
        """The device has done its task, or given it up with a reason. A repeat is acknowledged and changes nothing."""
        async with self.lock:
            lease = self.leases.holds(session.name, ended.task_id, ended.fence)
            if lease is not None:
                await self._end_task(session, lease, ended.reason)
            else:
                log.info("%s ended task %s, which it does not hold any more", session.name, ended.task_id)
        acknowledge = agent_pb2.Acknowledge(ended_task_ids=[ended.task_id])
        session.send(agent_pb2.CoordinatorMessage(acknowledge=acknowledge))
        self.wake()

    async def _end_task(self, session: Session, lease: OpenLease, reason: str) -> None:
        """A failure counts unless latency rounds came of it: those use up the budget, so that it cannot go on for
        ever.
        """
        self.leases.drop(lease.task_id)
        try:
            if reason and lease.advanced:
                await asyncio.to_thread(self.store.release_task, lease.task_id, lease.fence)
            else:
                await asyncio.to_thread(self.store.end_task, lease.task_id, lease.fence, reason)
        except StaleLeaseError as error:
            log.warning("%s ended task %s too late: %s", session.name, lease.task_id, error)
        run = self.active.get(lease.run_id)
        if run is not None:
            await self._reload(run)
        if reason:
            attempts = run.tasks[lease.task_id].attempts if run is not None else 0
            session.rests_until_s = self.fleet.clock() + retry_pause_s(attempts, RETRY_PAUSE_S)
            log.warning("run %s: task %s failed on %s: %s", lease.run_id, lease.task_id, session.name, reason)

    def stored(self, fresh: Sequence[raw_pb2.Measurement]) -> None:
        """Count new evidence; called by ingest after the commit."""
        by_task: dict[str, list[raw_pb2.Measurement]] = {}
        for message in fresh:
            by_task.setdefault(message.task_id, []).append(message)
        for task_id, messages in by_task.items():
            lease = self.leases.of_task(task_id)
            if lease is not None and any(m.fence == lease.fence and m.HasField("latency") for m in messages):
                lease.advanced = True
            run = self.active.get(self._task_runs.get(task_id, ""))
            if run is not None:
                run.tally = counted(run.tally, messages)

    # ---- long arithmetic ----

    async def beside(self, function: Callable[..., T], *args: Any) -> T:
        """Long arithmetic that no run waits for, one at a time with the others."""
        async with self._job_slot:
            return await in_daemon_thread(function, *args)

    def _start(self, run: ActiveRun, job: Coroutine[None, None, None]) -> None:
        async def wrapped() -> None:
            try:
                async with self._job_slot:
                    await job
            except StorageError as error:
                log.error("run %s: its state cannot be stored, and is tried again: %s", run.run_id, error)
            finally:
                run.job = None
                self.wake()

        run.job = asyncio.create_task(wrapped())

    async def _look(self, run: ActiveRun) -> None:
        rounds = run.tally.rounds
        try:
            look = await in_daemon_thread(self.methods.look, self.store, run.run_id)
        except Exception as error:
            await self._fail(run, "looking at the evidence failed", error)
            return
        run.item_n = tuple(int(n) for n in look.n)
        run.tally = looked(run.tally, look, rounds)

    async def _build(self, run: ActiveRun) -> None:
        lut = {"lut_digest": run.spec.lut_digest}
        try:
            if run.spec.purpose == "validate":
                run.report = await in_daemon_thread(self.methods.report, self.store, run.run_id)
            else:
                built = await in_daemon_thread(self.methods.build, self.store, run.run_id)
                lut = {"lut_digest": built.digest, "lut_reference": built.reference}
        except Exception as error:
            await self._fail(run, "building failed", error)
            return
        async with self.lock:
            if self._drives(run):
                await self.enter(run, "done", **lut)

    async def _fail(self, run: ActiveRun, what: str, error: Exception) -> None:
        if isinstance(error, EdgelutError):
            log.error("run %s: %s: %s", run.run_id, what, error)
        else:
            log.exception("run %s: %s", run.run_id, what, exc_info=error)
        async with self.lock:
            if self._drives(run):
                await self.enter(run, "failed", f"{what}: {str(error) or type(error).__name__}")

    # ---- taking up ----

    async def _check_claims(self) -> None:
        """Let go of runs whose claims another coordinator has got."""
        if time.monotonic() < self._claims_checked_s + CLAIMS_S:
            return
        async with self.lock:
            for run_id in await asyncio.to_thread(self.claims.lost):
                log.warning("run %s: another coordinator drives it now", run_id)
                for lease in self.leases.of_run(run_id):
                    self.leases.drop(lease.task_id)
                    self._revoke(lease.device, lease.task_id, lease.fence, "another coordinator drives the run now")
                del self.active[run_id]
        self._claims_checked_s = time.monotonic()

    async def take_up(self, record: RunRecord) -> ActiveRun | None:
        """Drive the run from now on, from what the store holds; None when another coordinator drives it. Needs the
        lock.
        """
        if record.run_id in self.active:
            return self.active[record.run_id]
        if not await asyncio.to_thread(self.claims.take, record.run_id):
            return None
        record = await asyncio.to_thread(self.store.run, record.run_id)
        if record.state in ENDED_STATES:  # another coordinator has ended it a moment ago
            await asyncio.to_thread(self.claims.drop, record.run_id)
            return None
        run = await asyncio.to_thread(restored, self.store, record)
        self._task_runs |= dict.fromkeys(run.tasks, run.run_id)
        now_s = self.fleet.clock()
        run.begin_phase(now_s)
        self.active[run.run_id] = run
        for task in [task for task in run.tasks.values() if task.state == "leased"]:
            lease = OpenLease(
                task.task_id, task.fence, run.run_id, task.kind, task.device, now_s + self.fleet.timeout_s
            )
            # A device that is already here has said that it does not hold this task, or was told to drop it.
            if self.fleet.get(task.device) is None and self.leases.of_device(task.device) is None:
                self.leases.add(lease)
        self.wake()
        return run

    async def _reload(self, run: ActiveRun) -> None:
        run.tasks = await asyncio.to_thread(tasks_of, self.store, run.run_id)
