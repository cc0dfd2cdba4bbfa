"""The session against a real server that acknowledges, refuses, forgets and breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from agent.session import Session
from agent.spool import Spool
from protos import agent_pb2
from protos.errors import BadInputError, ConflictError, IncompatibleError, UnavailableError
from tests.agent.coordinator import Desk, coordinator
from tests.agent.spaces import lease_of, tiny_run, wait
from tests.agent.test_spool import measurement


class Daemon:
    """What a session needs of the daemon, and what it was told."""

    def __init__(self) -> None:
        self.leases: list[str] = []
        self.revocations: list[tuple[str, int, str]] = []

    def hello(self) -> agent_pb2.Hello:
        return agent_pb2.Hello(device="board", device_type="rpi3b", emulation="none", version="0.1.0")

    def status(self) -> agent_pb2.AgentStatus:
        return agent_pb2.AgentStatus(activity="idle")

    def leased(self, lease: agent_pb2.Lease) -> None:
        self.leases.append(lease.task_id)

    def revoked(self, task_id: str, fence: int, reason: str) -> None:
        self.revocations.append((task_id, fence, reason))


@asynccontextmanager
async def running(session: Session) -> AsyncIterator[None]:
    task = asyncio.create_task(session.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def delivered(desk: Desk, count: int) -> None:
    """Everything once by id, whatever was repeated, and in order."""
    assert sorted(desk.measurements) == [f"id-{number:04d}" for number in range(count)]
    first = list(dict.fromkeys(word for word in desk.order if word.startswith("measurement")))
    assert first == sorted(first)


@pytest.mark.parametrize("fault", [{}, {"drop_every": 3}, {"forget_every": 3}])
def test_everything_is_delivered_once_and_in_order(tmp_path: Path, fault: dict[str, int]) -> None:
    async def work() -> None:
        desk, spool, session = Desk(**fault), Spool(tmp_path / "spool"), None
        for number in range(4):
            spool.put(measurement(number, "old"))
        async with coordinator(desk) as port:
            session = Session(f"127.0.0.1:{port}", spool, Daemon())
            async with running(session):
                for number in range(4, 10):
                    spool.put(measurement(number, "new"))
                    session.wake()
                    await asyncio.sleep(0.01)
                session.end_task("new", 3, "")
                assert await session.flushed(60)
        delivered(desk, 10)
        assert not len(spool)
        assert desk.ended == {"old": "the agent was started again", "new": ""}
        ends = [desk.order.index("end old"), desk.order.index("end new")]
        assert ends[0] > desk.order.index("measurement id-0003")
        assert ends[1] > desk.order.index("measurement id-0009")

    wait(work())


def test_what_is_refused_is_dropped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        desk, spool = Desk(refuse=lambda measurement_id: measurement_id == "id-0001"), Spool(tmp_path / "spool")
        for number in range(3):
            spool.put(measurement(number))
        async with coordinator(desk) as port:
            session = Session(f"127.0.0.1:{port}", spool, Daemon())
            async with running(session):
                assert await session.flushed(60)
        assert sorted(desk.measurements) == ["id-0000", "id-0002"]
        assert "measurement id-0001 was refused (INVALID_ARGUMENT): the test refuses it" in caplog.text

    wait(work())


def test_without_acknowledgement_nothing_is_deleted(tmp_path: Path) -> None:
    async def work() -> None:
        desk, spool = Desk(mute=True), Spool(tmp_path / "spool")
        for number in range(3):
            spool.put(measurement(number))
        async with coordinator(desk) as port:
            session = Session(f"127.0.0.1:{port}", spool, Daemon())
            async with running(session):
                await desk.until(lambda: len(desk.received) == 3)
                assert not await session.flushed(0.3)
                assert len(spool) == 3
        desk.mute = False
        async with coordinator(desk) as port, running(Session(f"127.0.0.1:{port}", spool, Daemon())):
            await desk.until(lambda: not len(spool))
        assert set(desk.received.values()) == {2}

    wait(work())


def test_a_coordinator_that_goes_and_comes_back_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        desk, spool = Desk(), Spool(tmp_path / "spool")
        async with coordinator(desk) as port:
            pass
        session = Session(f"127.0.0.1:{port}", spool, Daemon())
        async with running(session):
            await asyncio.sleep(2.0)  # several attempts
            assert caplog.text.count(f"no coordinator at 127.0.0.1:{port}") == 1
            for number in range(3):
                spool.put(measurement(number))
                session.wake()
                async with coordinator(desk, port):
                    await desk.until(lambda: not len(spool))
        assert len(desk.hellos) == 3
        assert desk.received == {"id-0000": 1, "id-0001": 1, "id-0002": 1}

    wait(work())


def test_patience_ends(tmp_path: Path) -> None:
    session = Session("127.0.0.1:9", Spool(tmp_path / "spool"), Daemon(), patience_s=0.5)
    with pytest.raises(UnavailableError, match=r"no coordinator at 127\.0\.0\.1:9"):
        wait(session.run())


@pytest.mark.parametrize("after_welcome", [False, True])
def test_a_refused_agent_says_so_unless_it_was_welcome_before(tmp_path: Path, after_welcome: bool) -> None:
    async def work() -> None:
        desk, spool = Desk(), Spool(tmp_path / "spool")
        refusal = grpc.StatusCode.INVALID_ARGUMENT, "the device's name is ''"
        async with coordinator(desk) as port:
            session = Session(f"127.0.0.1:{port}", spool, Daemon())
            if not after_welcome:
                desk.refusal = refusal
                with pytest.raises(BadInputError, match="the device's name is ''"):
                    await session.run()
                return
            async with running(session):
                await desk.until(lambda: bool(desk.statuses))
        desk.refusal = refusal
        async with coordinator(desk, port), running(session):
            await desk.until(lambda: len(desk.hellos) >= 3)

    wait(work())


@pytest.mark.parametrize(
    ("status", "error"),
    [(grpc.StatusCode.ALREADY_EXISTS, ConflictError), (grpc.StatusCode.UNIMPLEMENTED, IncompatibleError)],
)
def test_what_connecting_again_cannot_mend_ends_the_agent(
    tmp_path: Path, status: grpc.StatusCode, error: type[Exception]
) -> None:
    async def work() -> None:
        desk = Desk(refusal=(status, "another agent has your name"))
        async with coordinator(desk) as port:
            session = Session(f"127.0.0.1:{port}", Spool(tmp_path / "spool"), Daemon())
            with pytest.raises(error, match="another agent has your name"):
                await session.run()

    wait(work())


def test_leases_revocations_and_heartbeats(tmp_path: Path) -> None:
    async def work() -> None:
        desk, daemon = Desk(), Daemon()
        desk.leases.append(lease_of(tiny_run()))
        revoke = agent_pb2.Revoke(task_id="task-1", fence=1, reason="the run was cancelled")
        async with coordinator(desk) as port, running(Session(f"127.0.0.1:{port}", Spool(tmp_path / "s"), daemon)):
            await desk.until(lambda: len(desk.statuses) >= 3)
            desk.say.put_nowait(agent_pb2.CoordinatorMessage(revoke=revoke))
            await desk.until(lambda: bool(daemon.revocations))
        assert daemon.leases == ["task-1"]
        assert daemon.revocations == [("task-1", 1, "the run was cancelled")]

    wait(work())


def test_a_task_that_is_over_is_held_until_that_is_known(tmp_path: Path) -> None:
    async def work() -> None:
        desk, spool = Desk(), Spool(tmp_path / "spool")
        spool.put(measurement(0, "left"))
        session = Session("127.0.0.1:9", spool, Daemon())
        session.end_task("new", 4, "")
        assert session.ending == "new"
        async with coordinator(desk) as port:
            session._address = f"127.0.0.1:{port}"
            async with running(session):
                assert await session.flushed(60)
        assert [(task.task_id, task.fence) for task in desk.hellos[0].held] == [("left", 3), ("new", 4)]
        assert session.ending == ""

    wait(work())
