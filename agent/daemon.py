"""One device: takes leases from the session, performs them one after another, and stops in good order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.host import HostReader
from agent.logs import DEVICE, RUN, TASK
from agent.metering import Meters
from agent.renewal import Renewal
from agent.runner import Runner, RunnerError
from agent.session import Session
from agent.spool import Spool, SpoolFullError
from agent.task import Outcome, perform
from protos import agent_pb2
from protos.convert import from_message, to_message
from protos.systemd import keep_alive, notify
from protos.types import HostFacts, HostState, Lease, Measurement, MeterInfo

log = logging.getLogger(__name__)

IDLE_STATE_EVERY_S = 5.0
MEND_EVERY_S = 60.0
SPOOL_RETRY_S = 5.0
HUNG_TASK_S = 900.0  # a round of a large space on a slow board, or cooling down, takes minutes
HUNG_SESSION_S = 120.0  # several times what an attempt to connect may take
STOP_WORK_S = 4.0  # a round in hand may end; then its worker is ended
STOP_FLUSH_S = 3.0  # what is not acknowledged by then stays in the spool


@dataclass(frozen=True)
class Identity:
    """Who this agent is to a coordinator. certificate: the folder of its identity (protos.identity), if it has one."""

    device: str
    device_type: str
    emulated: bool = False
    certificate: Path | None = None


class Agent:
    """The daemon of one device. `patience_s`: how long to be without a coordinator before `run` gives up."""

    def __init__(
        self,
        identity: Identity,
        runner: Runner,
        meters: Meters,
        spool: Spool,
        address: str,
        patience_s: float | None = None,
    ) -> None:
        self._identity = identity
        self._runner = runner
        self._meters = meters
        self._spool = spool
        self._session = Session(address, spool, self, patience_s, identity.certificate)
        self._renewal = Renewal(address, identity.certificate)
        self._facts = HostFacts()
        self._meter: MeterInfo | None = None
        self._next: Lease | None = None
        self._lease: Lease | None = None
        self._arrived = asyncio.Event()
        self._halt = ""
        self._revoked = False
        self._activity = "idle"
        self._shown_s = time.monotonic()  # when the task in hand last came on
        self._host: HostState | None = None
        self._current_a: float | None = None
        self._broken = ""
        self._stopping = asyncio.Event()
        self._resting = asyncio.Event()  # no task is being performed
        self._resting.set()

    @property
    def was_connected(self) -> bool:
        """Whether a coordinator has ever welcomed this agent."""
        return self._session.welcomed

    def stop(self) -> None:
        """End `run` in good order: the round in hand ends or is given back, the spool is offered once more."""
        self._halt = "the agent is stopping"
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`. Raises BadInputError for a meter that does not answer or an agent that is refused, and
        UnavailableError when there was no coordinator for patience_s.
        """
        DEVICE.set(self._identity.device)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            if not await _first_of(stopping, self._start_up()):
                notify(READY="1")
                duties = (
                    self._session.run(),
                    self._work(),
                    self._watch(),
                    self._mend(),
                    self._renewal.run(),
                    keep_alive(self.stuck),
                )
                await _first_of(stopping, *duties, then=self._drain)
        finally:
            await _cancelled(stopping)
            await self._runner.close()
            await self._meters.close()

    @property
    def _emulation(self) -> str:
        """A board is real, or its meter is emulated, or all of it."""
        emulated_meter = self._meter is not None and self._meter.emulated
        return "device" if self._identity.emulated else "meter" if emulated_meter else "none"

    def stuck(self) -> str:
        """What has not come on for too long; empty when all is well. It feeds the service manager's watchdog."""
        now_s = time.monotonic()
        if now_s - self._session.alive_s > HUNG_SESSION_S:
            return f"the session has done nothing for {HUNG_SESSION_S:g} s"
        waits = self._activity.startswith("waiting")  # for the coordinator to take what the spool holds
        if self._lease is not None and not waits and now_s - self._shown_s > HUNG_TASK_S:
            return f"task {self._lease.task_id} has not come on for {HUNG_TASK_S:g} s"
        return ""

    # ---- for the session

    def hello(self) -> agent_pb2.Hello:
        hello = agent_pb2.Hello(
            device=self._identity.device,
            device_type=self._identity.device_type,
            emulation=self._emulation,
            version=self._facts.edgelut_version,
            facts=to_message(self._facts),
            meter=None if self._meter is None else to_message(self._meter),
        )
        if self._lease is not None and not self._revoked:
            hello.held.append(agent_pb2.HeldTask(task_id=self._lease.task_id, fence=self._lease.fence))
        return hello

    def status(self) -> agent_pb2.AgentStatus:
        return agent_pb2.AgentStatus(
            host=None if self._host is None else to_message(self._host),
            task_id=self._session.ending if self._lease is None else "" if self._revoked else self._lease.task_id,
            activity=self._activity,
            current_a=self._current_a,
            spool_depth=len(self._spool),
            broken_reason=self._broken,
        )

    def leased(self, lease: agent_pb2.Lease) -> None:
        """Take a lease; it replaces another one, because a device does one task at a time and the coordinator knows."""
        try:
            taken = from_message(Lease, lease)
        except ValueError as error:
            log.error("task %s cannot be: %s", lease.task_id, error)
            self._session.end_task(lease.task_id, lease.fence, f"the lease cannot be: {error}")
            return
        held = self._lease
        if held is not None and (held.task_id, held.fence) == (taken.task_id, taken.fence):
            return
        if held is not None:
            self.revoked(held.task_id, held.fence, f"task {taken.task_id} takes its place")
        self._next = taken
        self._arrived.set()

    def revoked(self, task_id: str, fence: int, reason: str) -> None:
        """Stop the task at its next round or window."""
        if self._next is not None and (self._next.task_id, self._next.fence) == (task_id, fence):
            self._next = None
        held = self._lease
        if held is not None and (held.task_id, held.fence) == (task_id, fence) and not self._revoked:
            log.info("task %s is taken back: %s", task_id, reason)
            self._revoked, self._halt = True, self._halt or reason or "the lease was taken back"

    # ---- for the task

    async def store(self, measurement: Measurement) -> None:
        said = False
        while True:
            try:
                await asyncio.to_thread(self._spool.put, measurement)
            except SpoolFullError as error:
                if not said:
                    log.error("%s", error)
                    said = True
                if self._stopping.is_set():
                    log.error("measurement %s is lost: the agent stops, and the spool has no room", measurement.id)
                    return
                self._activity = "waiting: the spool is full"
                self._session.taken.clear()
                await _within(self._session.taken, SPOOL_RETRY_S)
            else:
                self._session.wake()
                return

    def show(self, activity: str, host: HostState | None = None, current_a: float | None = None) -> None:
        self._activity = activity
        self._shown_s = time.monotonic()
        self._host = host or self._host
        self._current_a = current_a

    def halted(self) -> str:
        return self._halt

    # ---- work

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            lease, self._next = self._next, None
            if lease is not None and not self._stopping.is_set():
                await self._perform(lease)

    async def _perform(self, lease: Lease) -> None:
        self._lease, self._revoked, self._halt = lease, False, ""
        self._shown_s = time.monotonic()
        RUN.set(lease.run_id)
        TASK.set(lease.task_id)
        log.info("%s task %s of run %s", lease.kind, lease.task_id, lease.run_id)
        self._resting.clear()
        try:
            outcome = await perform(lease, self._runner, self._meters, self)
        except Exception as error:  # one lease must not end the daemon: what is wrong may be the run
            log.exception("task %s", lease.task_id)
            outcome = Outcome(f"the agent failed: {type(error).__name__}: {error}", broken=True)
        finally:
            self._resting.set()
        self._lease = None
        self.show("idle")
        if outcome.broken:
            self._broken = outcome.reason
        if self._revoked:
            return
        log.log(
            logging.WARNING if outcome.reason else logging.INFO,
            "task %s %s",
            lease.task_id,
            f"is given back: {outcome.reason}" if outcome.reason else "is complete",
        )
        self._session.end_task(lease.task_id, lease.fence, outcome.reason)

    async def _start_up(self) -> None:
        self._meter = await self._meters.look()
        await self._learn()

    async def _learn(self) -> None:
        """The facts of this board; without torch's when the worker cannot run, and then the board is broken."""
        try:
            self._facts = await self._runner.facts()
            self._broken = ""
        except RunnerError as error:
            log.error("%s", error)
            self._broken = str(error)
            self._facts = await asyncio.to_thread(HostReader().facts)

    async def _watch(self) -> None:
        """Keep the state fresh while nothing is measured."""
        while True:
            if self._lease is None:
                self._host = await self._runner.state()
            await asyncio.sleep(IDLE_STATE_EVERY_S)

    async def _mend(self) -> None:
        """A broken board is tried again from time to time."""
        while True:
            await asyncio.sleep(MEND_EVERY_S)
            if self._broken and self._lease is None:
                await self._learn()

    async def _drain(self) -> None:
        """Let the round in hand end, or end it; then offer what is left."""
        log.info("stopping")
        notify(STOPPING="1")
        if not await _within(self._resting, STOP_WORK_S):
            log.info("the round in hand takes too long: given up")
            await self._runner.close()
            if not await _within(self._resting, STOP_WORK_S) and self._lease is not None:
                self._revoked = True  # an emulated board cannot break off what it has begun
                self._session.end_task(self._lease.task_id, self._lease.fence, self._halt)
        if not await self._session.flushed(STOP_FLUSH_S):
            log.warning("%d measurements stay in the spool; they are sent after the next start", len(self._spool))


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        return await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False


async def _first_of(
    stopping: asyncio.Task[bool],
    *duties: Coroutine[Any, Any, None],
    then: Callable[[], Awaitable[None]] | None = None,
) -> bool:
    """Do the duties until one of them, or all of this, ends; whether it was `stopping`. An error of a duty is raised.

    `then` is done before the other duties are cancelled.
    """
    tasks = [asyncio.create_task(duty) for duty in duties]
    try:
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if then is not None:
            await then()
        return stopping in done
    finally:
        await _cancelled(*tasks)


async def _cancelled(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
