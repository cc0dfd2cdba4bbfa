"""Who is connected: one session per device, its health, and the leases that devices hold.

Nothing here talks to gRPC or to the database. Times are seconds of a monotonic clock that is handed in, so that a wall
clock that jumps ends no session and no lease.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib import metadata

from coordinator.schedule import Board
from protos import agent_pb2
from protos.convert import from_message
from protos.errors import BadInputError, ConflictError, EdgelutError, IncompatibleError, UnavailableError
from protos.types import EMULATIONS, Device, DeviceActivity, HostFacts, HostState, MeterInfo

# A session that says nothing for this many heartbeats has ended, and so have its leases.
SILENT_HEARTBEATS = 3
# Messages that wait to be read by an agent. One that sends but does not read would otherwise fill the memory.
OUTBOX_LIMIT = 4096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"(\d+)\.(\d+)")

OWN_VERSION = metadata.version("edgelut")


def check_name(what: str, name: str) -> None:
    """Raise BadInputError unless `name` can stand in a file name, a log line and a command."""
    if not _NAME.fullmatch(name):
        raise BadInputError(
            f"{what} is {name[:80]!r}; it must be 1 to 64 letters, digits, dots, dashes or underscores "
            f"and begin with a letter or digit"
        )


def check_version(agent: str, own: str = OWN_VERSION) -> None:
    """Agents of the same or of one older minor version are served. Raises IncompatibleError for others."""
    theirs, ours = _VERSION.match(agent), _VERSION.match(own)
    if theirs is None or ours is None:
        raise IncompatibleError(f"the agent says that its version is {agent[:40]!r}, which is not a version like {own}")
    their_major, their_minor = map(int, theirs.groups())
    our_major, our_minor = map(int, ours.groups())
    if (their_major, their_minor) > (our_major, our_minor):
        raise IncompatibleError(
            f"the agent is version {agent}, newer than this coordinator ({own}): update the coordinator first"
        )
    if their_major != our_major or their_minor < our_minor - 1:
        raise IncompatibleError(
            f"the agent is version {agent}; this coordinator ({own}) serves agents of its own and of one older minor "
            f"version: update the agent"
        )


@dataclass(frozen=True)
class Greeting:
    """A Hello that has been checked."""

    device: Device
    held: tuple[tuple[str, int], ...]  # (task_id, fence) of tasks that it was working on


def read_hello(hello: agent_pb2.Hello) -> Greeting:
    """Raises BadInputError or IncompatibleError with a sentence for the agent's log."""
    check_version(hello.version)
    check_name("the device's name", hello.device)
    check_name("the device type", hello.device_type)
    if hello.emulation not in EMULATIONS:
        raise BadInputError(f"emulation is {hello.emulation!r}; it must be one of {', '.join(EMULATIONS)}")
    try:
        facts = from_message(HostFacts, hello.facts)
        meter = from_message(MeterInfo, hello.meter) if hello.HasField("meter") else None
    except ValueError as error:
        raise BadInputError(f"the agent's Hello cannot be: {error}") from error
    device = Device(
        hello.device, hello.device_type, hello.emulation, "idle", version=hello.version, facts=facts, meter=meter
    )
    return Greeting(device, tuple((task.task_id, task.fence) for task in hello.held))


@dataclass
class Session:
    """One connected agent. `outbox` holds what goes to it; None ends the stream with `error`."""

    device: Device
    heard_s: float
    serial: str = ""  # of the certificate that it came with
    outbox: asyncio.Queue[agent_pb2.CoordinatorMessage | None] = field(default_factory=asyncio.Queue)
    broken: str = ""
    activity: DeviceActivity | None = None
    host: HostState | None = None
    rests_until_s: float = 0.0
    error: EdgelutError | None = None
    ended: bool = False
    ready: bool = False  # what it holds has been sorted out: it may get work
    held_up: bool = False  # the coordinator keeps it waiting (back-pressure): its silence is not its own

    @property
    def name(self) -> str:
        return self.device.name

    def send(self, message: agent_pb2.CoordinatorMessage) -> None:
        """Queue a message; ends the session of an agent that has stopped reading. Never waits."""
        if self.ended:
            return
        if self.outbox.qsize() >= OUTBOX_LIMIT:
            self.end(
                UnavailableError(f"{self.name} does not read what the coordinator sends: {OUTBOX_LIMIT} messages wait")
            )
            return
        self.outbox.put_nowait(message)

    def end(self, error: EdgelutError | None) -> None:
        """End the stream after what is already queued; `error` tells the agent why."""
        if not self.ended:
            self.ended, self.error = True, error
            self.outbox.put_nowait(None)

    def take_status(self, status: agent_pb2.AgentStatus) -> None:
        """Keep the newest status. Raises ValueError when the host state cannot be true."""
        host = from_message(HostState, status.host) if status.HasField("host") else None
        current_a = status.current_a if status.HasField("current_a") else None
        self.host = host
        self.activity = DeviceActivity(self.name, status.activity, current_a, host.temp_c if host else None)
        self.broken = status.broken_reason


@dataclass
class OpenLease:
    task_id: str
    fence: int
    run_id: str
    kind: str
    device: str
    until_s: float  # monotonic
    stored_until_s: float = 0.0  # what the database has
    advanced: bool = False  # a latency round has been stored under it


class Leases:
    """The leases that this coordinator watches; a device has at most one."""

    def __init__(self) -> None:
        self._by_task: dict[str, OpenLease] = {}
        self._by_device: dict[str, OpenLease] = {}

    def add(self, lease: OpenLease) -> None:
        if lease.device in self._by_device:
            raise ValueError(f"{lease.device} already has a lease on task {self._by_device[lease.device].task_id}")
        self._by_task[lease.task_id] = lease
        self._by_device[lease.device] = lease

    def __iter__(self) -> Iterator[OpenLease]:
        return iter(tuple(self._by_task.values()))

    def drop(self, task_id: str) -> OpenLease | None:
        lease = self._by_task.pop(task_id, None)
        if lease is not None:
            del self._by_device[lease.device]
        return lease

    def of_task(self, task_id: str) -> OpenLease | None:
        return self._by_task.get(task_id)

    def of_device(self, device: str) -> OpenLease | None:
        return self._by_device.get(device)

    def of_run(self, run_id: str) -> list[OpenLease]:
        return [lease for lease in self._by_task.values() if lease.run_id == run_id]

    def holds(self, device: str, task_id: str, fence: int) -> OpenLease | None:
        """The lease, when the device really holds it under this fence."""
        lease = self._by_task.get(task_id)
        return lease if lease is not None and lease.device == device and lease.fence == fence else None

    def overdue(self, now_s: float) -> list[OpenLease]:
        return [lease for lease in self._by_task.values() if lease.until_s <= now_s]


class Fleet:
    """The sessions by device name."""

    def __init__(self, heartbeat_s: float, clock: Callable[[], float]) -> None:
        self.heartbeat_s = heartbeat_s
        self.clock = clock
        self._sessions: dict[str, Session] = {}

    @property
    def timeout_s(self) -> float:
        """How long a session may be silent."""
        return SILENT_HEARTBEATS * self.heartbeat_s

    def open(self, greeting: Greeting, serial: str = "") -> Session:
        """A session for the device; an older one of the same name is ended, because the newer knows better where it
        is.
        """
        name = greeting.device.name
        older = self._sessions.get(name)
        if older is not None:
            older.end(
                ConflictError(
                    f"another agent named {name} has connected, and the newer session wins; "
                    f"if these are two boards, give one of them another --name"
                )
            )
        session = Session(greeting.device, self.clock(), serial)
        self._sessions[name] = session
        return session

    def close(self, session: Session) -> bool:
        """Forget the session; False when a newer one of the same name has taken its place."""
        session.end(None)
        if self._sessions.get(session.name) is not session:
            return False
        del self._sessions[session.name]
        return True

    def sessions(self) -> list[Session]:
        return list(self._sessions.values())

    def get(self, name: str) -> Session | None:
        return self._sessions.get(name)

    def end_silent(self) -> list[Session]:
        """End the sessions whose agents have been silent for too long."""
        now_s = self.clock()
        silent = [
            s for s in self._sessions.values() if not s.held_up and now_s - s.heard_s > self.timeout_s and not s.ended
        ]
        for session in silent:
            session.end(
                UnavailableError(f"{session.name} was silent for {self.timeout_s:g} s ({SILENT_HEARTBEATS} heartbeats)")
            )
        return silent

    def forgive(self, seconds: float, leases: Leases) -> None:
        """Nobody was heard for so long because nobody listened: put off all deadlines."""
        for session in self._sessions.values():
            session.heard_s += seconds
        for lease in leases:
            lease.until_s += seconds

    def end_all(self, error: EdgelutError) -> None:
        for session in self._sessions.values():
            session.end(error)

    def boards(self, leases: Leases) -> list[Board]:
        """What the scheduler knows of the connected devices."""
        now_s = self.clock()
        return [
            Board(
                session.name,
                session.device.device_type,
                session.device.emulation,
                free=session.ready and leases.of_device(session.name) is None and session.rests_until_s <= now_s,
                broken=session.broken,
                has_meter=session.device.meter is not None,
            )
            for session in self._sessions.values()
            if not session.ended
        ]

    def device(self, session: Session, leases: Leases, wall_s: float) -> Device:
        """The device as an operator sees it; `wall_s` is the wall time now."""
        state = "broken" if session.broken else "busy" if leases.of_device(session.name) else "idle"
        seen_s = wall_s - max(0.0, self.clock() - session.heard_s)
        return replace(session.device, state=state, reason=session.broken, last_seen_s=seen_s, host=session.host)

    def devices(self, known: Iterable[Device], leases: Leases, wall_s: float) -> list[Device]:
        """All devices by name: those with a session as they are now, the others of `known` as gone."""
        out = {device.name: replace(device, state="gone", reason="") for device in known}
        out |= {
            name: self.device(session, leases, wall_s) for name, session in self._sessions.items() if not session.ended
        }
        return [out[name] for name in sorted(out)]

    def activities(self, names: Iterable[str]) -> tuple[DeviceActivity, ...]:
        """What these devices last said that they do."""
        out = []
        for name in sorted(names):
            session = self._sessions.get(name)
            out.append((session.activity if session else None) or DeviceActivity(name, "" if session else "gone"))
        return tuple(out)
