"""Raw measurements in the database: judged, stored in bulk, read back in an order that does not depend on their
arrival.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from google.protobuf.message import DecodeError
from sqlalchemy.engine import Connection

from lut_store.evidence import EvidenceCheck
from lut_store.quick import MAX_ID_LENGTH
from lut_store.records import Encoded, Outcome, StoredMeasurement
from lut_store.schema import measurements, tasks
from protos import common_pb2, raw_pb2
from protos.convert import from_message, to_message
from protos.types import Measurement

if TYPE_CHECKING:
    from lut_store.database import AnyRow

Offered = Measurement | common_pb2.Measurement | bytes | Encoded

# Meter samples shrink to a third; the times of latency rounds are noise and do not (4806 bytes became 4281).
COMPRESSED_KINDS = ("power",)
COMPRESSION_LEVEL = 1

_COLUMNS = (
    *("id", "task_id", "run_id", "device", "fence", "sequence"),
    *("kind", "flags", "received_wall_s", "compressed", "body"),
)
# Statements as text: every measurement passes here, and SQLAlchemy's work on each row and parameter costs as much as
# the database's own. Names come as one parameter, in the dialect's form (_by_names).
_INSERT = f"INSERT INTO measurements ({', '.join(_COLUMNS)}) VALUES ({{marks}}) ON CONFLICT DO NOTHING"
_BODIES = "SELECT id, compressed, body FROM measurements WHERE id {among}"
_LEASES = "SELECT task_id, run_id, device, fence FROM tasks WHERE task_id {among}"
_MARK = {"sqlite": "?", "postgresql": "%s"}
_AMONG = {"sqlite": "IN (SELECT value FROM json_each(?))", "postgresql": "= ANY(%s)"}


def add(
    connection: Connection, offers: Sequence[tuple[str, Offered]], rules: Callable[[str], EvidenceCheck]
) -> list[Outcome]:
    """Store (device, measurement) pairs; an outcome for each, in their order. `rules` gives those of a run."""
    opened = [_open(device, offered) for device, offered in offers]
    named = [part.message for part in opened if part is not None and part.plain]
    batch = _Batch(
        {row.id: _body(row) for row in _by_names(connection, _BODIES, {message.id for message in named})},
        {row.task_id: row for row in _by_names(connection, _LEASES, {message.task_id for message in named})},
    )
    for part in opened:
        batch.take(part)
    batch.judge(rules)
    rows = batch.rows()
    if rows:
        # A conflict: another coordinator has stored the very same measurement a moment ago, which is as good.
        marks = ", ".join([_MARK[connection.dialect.name]] * len(_COLUMNS))
        connection.exec_driver_sql(_INSERT.format(marks=marks), rows)
    return batch.outcomes()


class _Opened(NamedTuple):
    device: str
    message: raw_pb2.Measurement
    body: bytes
    plain: bool  # PostgreSQL stores no NUL in text, and would refuse the whole batch for it


def _open(device: str, offered: Offered) -> _Opened | None:
    """None when the bytes are not a measurement."""
    if isinstance(offered, Encoded):
        message, body = offered
    elif isinstance(offered, bytes):
        body = offered
        try:
            message = raw_pb2.Measurement.FromString(body)
        except DecodeError:
            return None
    else:
        body = (to_message(offered) if isinstance(offered, Measurement) else offered).SerializeToString()
        message = raw_pb2.Measurement.FromString(body)
    plain = "\0" not in message.id and "\0" not in message.task_id and "\0" not in "".join(message.flags)
    return _Opened(device, message, body, plain)


@dataclass
class _Candidate:
    part: _Opened
    problem: str = ""


@dataclass
class _Batch:
    """Measurements on their way: first who sent them is judged, then, run by run, what they say."""

    bodies: dict[str, bytes]  # by id: stored already
    leases: dict[str, AnyRow]  # by task
    candidates: dict[str, _Candidate] = field(default_factory=dict)  # by id
    # For each offer, its outcome, or the candidate on which it hangs and what it is when that one passes.
    answers: list[Outcome | tuple[_Candidate, str]] = field(default_factory=list)

    def take(self, part: _Opened | None) -> None:
        if part is None:
            self.answers.append(Outcome("", "refused", "INVALID_ARGUMENT", "these bytes are not a measurement"))
            return
        message = part.message
        name, task_id = message.id, message.task_id
        task = self.leases.get(task_id)
        if not part.plain:
            self._refuse(name, "INVALID_ARGUMENT", "an id or a flag holds a NUL character")
        elif name in self.bodies or name in self.candidates:
            self._repeat(part)
        elif task is None:
            self._refuse(name, "NOT_FOUND", f"there is no task {task_id[:MAX_ID_LENGTH]!r}")
        elif message.fence != task.fence:
            why = f"lease {message.fence} of task {task_id} has ended; the newest is lease {task.fence}"
            self._refuse(name, "PERMISSION_DENIED", why)
        elif part.device != task.device:
            why = f"task {task_id} is leased to {task.device or 'nobody'}, not to {part.device}"
            self._refuse(name, "PERMISSION_DENIED", why)
        else:
            candidate = self.candidates[name] = _Candidate(part)
            self.answers.append((candidate, "stored"))

    def _repeat(self, part: _Opened) -> None:
        name = part.message.id
        candidate = self.candidates.get(name)
        first = self.bodies[name] if candidate is None else candidate.part.body
        if first != part.body and not _same(first, part.body):
            self._refuse(name, "ALREADY_EXISTS", f"another measurement is already stored as {name}")
        else:
            self.answers.append(Outcome(name, "duplicate") if candidate is None else (candidate, "duplicate"))

    def _refuse(self, name: str, code: str, why: str) -> None:
        self.answers.append(Outcome(name, "refused", code, why))

    def judge(self, rules: Callable[[str], EvidenceCheck]) -> None:
        """Find the candidates that cannot be true."""
        by_run: dict[str, list[_Candidate]] = {}
        for candidate in self.candidates.values():
            by_run.setdefault(self.leases[candidate.part.message.task_id].run_id, []).append(candidate)
        for run_id, group in by_run.items():
            parts = [candidate.part for candidate in group]
            problems = rules(run_id).problems([part.message for part in parts], [part.body for part in parts])
            for candidate, problem in zip(group, problems, strict=True):
                candidate.problem = problem

    def outcomes(self) -> list[Outcome]:
        """One for each offer, in their order."""
        return [answer if isinstance(answer, Outcome) else _outcome(*answer) for answer in self.answers]

    def rows(self) -> list[tuple[Any, ...]]:
        """As _COLUMNS; in the order of their ids, so that two coordinators never wait for each other in a circle."""
        now_s = time.time()
        found = [
            _row(candidate.part, self.leases[candidate.part.message.task_id].run_id, now_s)
            for candidate in self.candidates.values()
            if not candidate.problem
        ]
        return sorted(found, key=itemgetter(0))


def _same(first: bytes, second: bytes) -> bool:
    try:
        return common_pb2.Measurement.FromString(first) == common_pb2.Measurement.FromString(second)
    except DecodeError:  # the second: what is stored can be read
        return False


def _outcome(candidate: _Candidate, status: str) -> Outcome:
    name = candidate.part.message.id
    if candidate.problem:
        return Outcome(name, "refused", "INVALID_ARGUMENT", candidate.problem)
    return Outcome(name, status)


def _row(part: _Opened, run_id: str, now_s: float) -> tuple[Any, ...]:
    message, body = part.message, part.body
    kind = "latency" if message.HasField("latency") else "power"
    compressed = kind in COMPRESSED_KINDS
    return (
        *(message.id, message.task_id, run_id, part.device, message.fence, message.sequence),
        *(kind, " ".join(message.flags), now_s, compressed),
        zlib.compress(body, COMPRESSION_LEVEL) if compressed else body,
    )


def _by_names(connection: Connection, statement: str, names: set[str]) -> Iterable[AnyRow]:
    kind = connection.dialect.name
    listed = list(names) if kind == "postgresql" else json.dumps(list(names))
    return connection.exec_driver_sql(statement.format(among=_AMONG[kind]), (listed,))


def _body(row: AnyRow) -> bytes:
    return zlib.decompress(row.body) if row.compressed else bytes(row.body)


def task_ids(connection: Connection, run_id: str) -> list[str]:
    """In the order in which the tasks were made."""
    query = sa.select(tasks.c.task_id).where(tasks.c.run_id == run_id).order_by(tasks.c.number)
    return list(connection.execute(query).scalars())


class Row(NamedTuple):
    device: str
    message: common_pb2.Measurement
    received_wall_s: float

    def value(self) -> StoredMeasurement:
        return StoredMeasurement(self.device, from_message(Measurement, self.message), self.received_wall_s)


def of_task(connection: Connection, task_id: str, kind: str) -> Iterator[Row]:
    """In the order in which the device made them."""
    query = (
        sa.select(measurements.c.device, measurements.c.received_wall_s, measurements.c.compressed, measurements.c.body)
        .where(measurements.c.task_id == task_id, measurements.c.kind == kind)
        .order_by(measurements.c.sequence, measurements.c.id)
    )
    for row in connection.execute(query):
        yield Row(row.device, common_pb2.Measurement.FromString(_body(row)), row.received_wall_s)
