"""Who is let in, and the tables of sessions and leases."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.sessions import (
    OUTBOX_LIMIT,
    Fleet,
    Greeting,
    Leases,
    OpenLease,
    Session,
    check_name,
    check_version,
    read_hello,
)
from protos import agent_pb2, common_pb2
from protos.errors import BadInputError, ConflictError, EdgelutError, IncompatibleError, UnavailableError
from protos.types import Device
from tests.coordinator.scripted import Clock


def greeting(name: str = "pi-01", **parts: str) -> Greeting:
    return Greeting(Device(name, "rpi3b", **parts), ())


def lease(task: str = "task", device: str = "pi-01", until_s: float = 10.0) -> OpenLease:
    return OpenLease(task, 1, "run-1", "latency", device, until_s)


@pytest.mark.parametrize("agent", ["1.4.0", "1.4.9", "1.3.0", "1.3", "1.4.0rc1"])
def test_agents_of_this_and_the_last_minor_version_are_served(agent: str) -> None:
    check_version(agent, own="1.4.2")


@pytest.mark.parametrize(
    ("agent", "advice"),
    [
        ("1.5.0", "update the coordinator first"),
        ("2.0.0", "update the coordinator first"),
        ("1.2.9", "update the agent"),
        ("0.4.0", "update the agent"),
        ("", "is not a version"),
        ("latest", "is not a version"),
    ],
)
def test_other_agents_hear_what_to_do(agent: str, advice: str) -> None:
    with pytest.raises(IncompatibleError, match=advice):
        check_version(agent, own="1.4.2")


@given(st.text(max_size=40))
def test_a_version_is_served_or_refused_in_words(agent: str) -> None:
    with contextlib.suppress(IncompatibleError):
        check_version(agent)


@pytest.mark.parametrize("name", ["pi-01", "A", "rpi3b.lab_2", "x" * 64])
def test_names(name: str) -> None:
    check_name("the device's name", name)


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "$(x)", "a\n", "é", "x" * 65, "..", "a;b"])
def test_names_that_would_harm_a_path_a_log_or_a_shell_are_refused(name: str) -> None:
    with pytest.raises(BadInputError, match="the device's name is"):
        check_name("the device's name", name)


def test_a_hello_is_read() -> None:
    hello = agent_pb2.Hello(
        device="pi-01",
        device_type="rpi3b",
        emulation="meter",
        version="0.1.0",
        facts=common_pb2.HostFacts(model="Pi", cpu_count=4),
        meter=common_pb2.MeterInfo(kind="um25c"),
        held=[agent_pb2.HeldTask(task_id="t", fence=3)],
    )
    read = read_hello(hello)
    assert read.held == (("t", 3),)
    assert (read.device.name, read.device.emulation, read.device.facts.cpu_count) == ("pi-01", "meter", 4)
    assert read.device.meter is not None


def test_a_newer_session_replaces_an_older_one() -> None:
    fleet = Fleet(5.0, Clock())
    older = fleet.open(greeting())
    newer = fleet.open(greeting())
    assert isinstance(older.error, ConflictError)
    assert fleet.get("pi-01") is newer
    assert not fleet.close(older)  # its end must not hide the newer one
    assert fleet.get("pi-01") is newer
    assert fleet.close(newer)
    assert fleet.get("pi-01") is None


def test_silence_ends_a_session_unless_the_coordinator_holds_it_up() -> None:
    clock = Clock()
    fleet = Fleet(5.0, clock)
    silent, held_up = fleet.open(greeting("a")), fleet.open(greeting("b"))
    held_up.held_up = True
    clock.now_s = 15.0
    assert fleet.end_silent() == []
    clock.now_s = 15.1
    assert fleet.end_silent() == [silent]
    assert isinstance(silent.error, UnavailableError)
    assert not held_up.ended
    assert fleet.end_silent() == []


def test_a_stall_of_the_coordinator_is_nobodys_silence() -> None:
    clock = Clock()
    fleet, leases = Fleet(5.0, clock), Leases()
    fleet.open(greeting())
    leases.add(lease(until_s=15.0))
    clock.now_s = 60.0
    fleet.forgive(50.0, leases)
    assert fleet.end_silent() == []
    assert leases.overdue(clock()) == []


def test_boards_are_free_when_they_have_neither_lease_nor_rest() -> None:
    clock = Clock()
    fleet, leases = Fleet(5.0, clock), Leases()
    session = fleet.open(greeting())
    assert [board.free for board in fleet.boards(leases)] == [False]  # what it holds has not been sorted out
    session.ready = True
    assert [board.free for board in fleet.boards(leases)] == [True]
    session.rests_until_s = 2.0
    assert [board.free for board in fleet.boards(leases)] == [False]
    clock.now_s = 2.0
    leases.add(lease())
    assert [board.free for board in fleet.boards(leases)] == [False]
    leases.drop("task")
    assert [board.free for board in fleet.boards(leases)] == [True]
    session.end(None)
    assert fleet.boards(leases) == []


def test_a_device_has_one_lease() -> None:
    leases = Leases()
    leases.add(lease("a"))
    with pytest.raises(ValueError, match="pi-01 already has a lease on task a"):
        leases.add(lease("b"))
    assert leases.holds("pi-01", "a", 1) is leases.of_device("pi-01") is leases.of_task("a")
    assert leases.holds("pi-01", "a", 2) is None
    assert leases.holds("pi-02", "a", 1) is None
    assert leases.of_run("run-1") == list(leases) == leases.overdue(10.0)
    assert leases.drop("a") is not None
    assert leases.drop("a") is None
    assert list(leases) == []


def test_an_agent_that_does_not_read_is_let_go() -> None:
    session = Session(Device("pi-01", "rpi3b"), 0.0)
    for _ in range(OUTBOX_LIMIT + 10):
        session.send(agent_pb2.CoordinatorMessage(welcome=agent_pb2.Welcome()))
    assert session.ended
    assert "does not read" in str(session.error)
    assert session.outbox.qsize() == OUTBOX_LIMIT + 1


def test_the_first_reason_for_an_end_stays() -> None:
    session = Session(Device("pi-01", "rpi3b"), 0.0)
    first = EdgelutError("first")
    session.end(first)
    session.end(EdgelutError("second"))
    assert session.error is first


def test_known_devices_without_a_session_are_gone() -> None:
    fleet, leases = Fleet(5.0, Clock()), Leases()
    fleet.open(greeting("here"))
    known = [Device("away", "rpi4", state="idle", last_seen_s=7.0), Device("here", "rpi3b", state="gone")]
    devices = fleet.devices(known, leases, wall_s=1e9)
    assert [(d.name, d.state, d.last_seen_s) for d in devices] == [("away", "gone", 7.0), ("here", "idle", 1e9)]
    leases.add(lease(device="here"))
    assert fleet.devices(known, leases, wall_s=1e9)[1].state == "busy"
    assert [a.activity for a in fleet.activities(["here", "away"])] == ["gone", ""]
