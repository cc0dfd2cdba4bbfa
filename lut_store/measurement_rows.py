"""Raw measurements in the database: judged, stored in bulk, read back in an order that does not depend on their
arrival.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from google.protobuf.message import DecodeError
from sqlalchemy.engine import Connection

from lut_store.database import insert
from lut_store.evidence import MAX_ID_LENGTH, EvidenceCheck
from lut_store.records import Outcome, StoredMeasurement
from lut_store.schema import measurements, tasks
from protos import common_pb2
from protos.convert import from_message, to_message
from protos.types import Measurement

if TYPE_CHECKING:
    from lut_store.database import AnyRow

Offered = Measurement | common_pb2.Measurement | bytes

# Meter samples shrink to a third; the times of latency rounds are noise and do not (4806 bytes became 4281).
COMPRESSED_KINDS = ("power",)
COMPRESSION_LEVEL = 1
# SQLite allows 32766 parameters in a statement, older versions 999.
_NAMES_AT_ONCE = 900


# Made once: building a statement costs more than checking a measurement.
_NAMES: sa.BindParameter[str] = sa.bindparam("names", expanding=True)
_BODIES = sa.select(measurements.c.id, measurements.c.compressed, measurements.c.body).where(
    measurements.c.id.in_(_NAMES)
)
_LEASES = sa.select(tasks.c.task_id, tasks.c.run_id, tasks.c.device, tasks.c.fence).where(tasks.c.task_id.in_(_NAMES))


def add(
    connection: Connection, offers: Sequence[tuple[str, Offered]], rules: Callable[[str], EvidenceCheck]
) -> list[Outcome]:
    """Store (device, measurement) pairs; an outcome for each, in their order. `rules` gives those of a run."""
    opened = [_open(device, offered) for device, offered in offers]
    whole = [part for part in opened if part is not None and _has_plain_names(part.message)]
    batch = _Batch(
        rules,
        {row.id: _body(row) for row in _by_names(connection, _BODIES, {part.message.id for part in whole})},
        {row.task_id: row for row in _by_names(connection, _LEASES, {part.message.task_id for part in whole})},
    )
    unreadable = Outcome("", "refused", "INVALID_ARGUMENT", "these bytes are not a measurement")
    outcomes = [unreadable if part is None else batch.take(part) for part in opened]
    if batch.rows:
        # A conflict: another coordinator has stored the very same measurement a moment ago, which is as good.
        connection.execute(insert(connection, measurements).on_conflict_do_nothing(), batch.rows)
    return outcomes


class _Opened(NamedTuple):
    device: str
    message: common_pb2.Measurement
    body: bytes


def _open(device: str, offered: Offered) -> _Opened | None:
    """None when the bytes are not a measurement."""
    if isinstance(offered, bytes):
        try:
            return _Opened(device, common_pb2.Measurement.FromString(offered), offered)
        except DecodeError:
            return None
    message: common_pb2.Measurement = to_message(offered) if isinstance(offered, Measurement) else offered
    return _Opened(device, message, message.SerializeToString())


def _has_plain_names(message: common_pb2.Measurement) -> bool:
    """PostgreSQL stores no NUL in text, and would refuse the whole batch for it."""
    return "\0" not in message.id and "\0" not in message.task_id and not any("\0" in flag for flag in message.flags)


@dataclass
class _Batch:
    """What is known while a batch is judged, and the rows that it will store."""

    rules: Callable[[str], EvidenceCheck]
    bodies: dict[str, bytes]  # by id: stored already, or earlier in this batch
    leases: dict[str, AnyRow]  # by task
    rows: list[dict[str, Any]] = field(default_factory=list)
    now_s: float = field(default_factory=time.time)

    def take(self, part: _Opened) -> Outcome:
        message = part.message
        name, task_id = message.id, message.task_id
        if not _has_plain_names(message):
            return _refused(message, "INVALID_ARGUMENT", "an id or a flag holds a NUL character")
        first = self.bodies.get(name)
        if first is not None:
            if first == part.body or common_pb2.Measurement.FromString(first) == message:
                return Outcome(name, "duplicate")
            return _refused(message, "ALREADY_EXISTS", f"another measurement is already stored as {name}")
        task = self.leases.get(task_id)
        if task is None:
            return _refused(message, "NOT_FOUND", f"there is no task {task_id[:MAX_ID_LENGTH]!r}")
        if message.fence != task.fence:
            why = f"lease {message.fence} of task {task_id} has ended; the newest is lease {task.fence}"
            return _refused(message, "PERMISSION_DENIED", why)
        if part.device != task.device:
            why = f"task {task_id} is leased to {task.device or 'nobody'}, not to {part.device}"
            return _refused(message, "PERMISSION_DENIED", why)
        problem = self.rules(task.run_id).problem(message)
        if problem:
            return _refused(message, "INVALID_ARGUMENT", problem)
        self.bodies[name] = part.body
        self.rows.append(self._row(part, task.run_id))
        return Outcome(name, "stored")

    def _row(self, part: _Opened, run_id: str) -> dict[str, Any]:
        message = part.message
        kind = "latency" if message.HasField("latency") else "power"
        compressed = kind in COMPRESSED_KINDS
        return {
            "id": message.id,
            "task_id": message.task_id,
            "run_id": run_id,
            "device": part.device,
            "fence": message.fence,
            "sequence": message.sequence,
            "kind": kind,
            "flags": " ".join(message.flags),
            "received_wall_s": self.now_s,
            "compressed": compressed,
            "body": zlib.compress(part.body, COMPRESSION_LEVEL) if compressed else part.body,
        }


def _refused(message: common_pb2.Measurement, code: str, why: str) -> Outcome:
    return Outcome(message.id, "refused", code, why)


def _by_names(connection: Connection, statement: sa.Select[Any], names: set[str]) -> Iterator[AnyRow]:
    ordered = sorted(names)
    for start in range(0, len(ordered), _NAMES_AT_ONCE):
        yield from connection.execute(statement, {"names": ordered[start : start + _NAMES_AT_ONCE]})


def _body(row: AnyRow) -> bytes:
    return zlib.decompress(row.body) if row.compressed else bytes(row.body)


def task_ids(connection: Connection, run_id: str) -> list[str]:
    """In the order in which the tasks were made."""
    query = sa.select(tasks.c.task_id).where(tasks.c.run_id == run_id).order_by(tasks.c.number)
    return list(connection.execute(query).scalars())


def of_task(connection: Connection, task_id: str, kind: str) -> Iterator[StoredMeasurement]:
    """In the order in which the device made them."""
    query = (
        sa.select(measurements.c.device, measurements.c.received_wall_s, measurements.c.compressed, measurements.c.body)
        .where(measurements.c.task_id == task_id, measurements.c.kind == kind)
        .order_by(measurements.c.sequence, measurements.c.id)
    )
    for row in connection.execute(query):
        message = common_pb2.Measurement.FromString(_body(row))
        yield StoredMeasurement(row.device, from_message(Measurement, message), row.received_wall_s)
