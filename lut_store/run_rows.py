"""Runs and their tasks in the database: functions on a connection whose transaction the caller owns."""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lut_store.records import TaskRecord
from lut_store.schema import runs, tasks
from protos import common_pb2
from protos.convert import from_message, to_message
from protos.errors import BadInputError, NotFoundError, StaleLeaseError
from protos.ids import new_id
from protos.types import ENDED_STATES, RUN_STATES, RunSpec

if TYPE_CHECKING:
    from lut_store.database import AnyRow

MAX_RUN_ID_LENGTH = 64
TASK_KINDS = ("latency", "energy")


def pack(spec: RunSpec) -> bytes:
    return zlib.compress(to_message(spec).SerializeToString())


def unpack(spec: bytes) -> RunSpec:
    return from_message(RunSpec, common_pb2.RunSpec.FromString(zlib.decompress(spec)))


def insert_run(connection: Connection, run_id: str, spec: RunSpec) -> None:
    if not 0 < len(run_id) <= MAX_RUN_ID_LENGTH:
        raise BadInputError(f"run id {run_id!r} must have 1 to {MAX_RUN_ID_LENGTH} characters")
    connection.execute(
        runs.insert().values(
            run_id=run_id,
            device=spec.device,
            state="queued",
            reason="",
            created_wall_s=time.time(),
            lut_digest="",
            lut_reference="",
            spec=pack(spec),
        )
    )


def find_run(connection: Connection, run_id: str) -> AnyRow | None:
    return connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).one_or_none()


def newest_runs(connection: Connection, limit: int) -> list[AnyRow]:
    return list(connection.execute(sa.select(runs).order_by(runs.c.number.desc()).limit(limit)))


def update_run(
    connection: Connection, run_id: str, state: str, reason: str, lut_digest: str, lut_reference: str
) -> None:
    if state not in RUN_STATES:
        raise BadInputError(f"run state {state!r} must be one of {', '.join(RUN_STATES)}")
    changed = connection.execute(
        runs.update()
        .where(runs.c.run_id == run_id)
        .values(state=state, reason=_storable(reason), lut_digest=lut_digest, lut_reference=lut_reference)
    )
    if not changed.rowcount:
        raise NotFoundError(f"there is no run {run_id}")


def insert_task(connection: Connection, run_id: str, kind: str, seed: int, first_round: int) -> str:
    if kind not in TASK_KINDS:
        raise BadInputError(f"task kind {kind!r} must be one of {', '.join(TASK_KINDS)}")
    if find_run(connection, run_id) is None:
        raise NotFoundError(f"there is no run {run_id}")
    task_id = new_id()
    connection.execute(
        tasks.insert().values(
            task_id=task_id,
            run_id=run_id,
            kind=kind,
            seed=str(seed),
            first_round=first_round,
            state="pending",
            device="",
            fence=0,
            lease_until_s=0.0,
            attempts=0,
            reason="",
        )
    )
    return task_id


def number_of(connection: Connection, task_id: str) -> int:
    number: int = connection.execute(sa.select(tasks.c.number).where(tasks.c.task_id == task_id)).scalar_one()
    return number


def lease(connection: Connection, number: int, device: str, until_s: float) -> AnyRow:
    """The task of that number, leased; its row as it is now."""
    connection.execute(
        tasks.update()
        .where(tasks.c.number == number)
        .values(state="leased", device=device, fence=tasks.c.fence + 1, lease_until_s=until_s)
    )
    return connection.execute(sa.select(tasks).where(tasks.c.number == number)).one()


def lease_oldest(connection: Connection, run_id: str, device: str, until_s: float, kind: str) -> AnyRow | None:
    """The run's oldest pending task (of a kind, unless that is empty), leased; its row as it is now. None: there is
    none.
    """
    of_kind = (tasks.c.kind == kind,) if kind else ()
    oldest = connection.execute(
        sa.select(tasks.c.number)
        .where(tasks.c.run_id == run_id, tasks.c.state == "pending", *of_kind)
        .order_by(tasks.c.number)
        .limit(1)
        .with_for_update(skip_locked=True)  # SQLite, where the writer is alone, leaves this out
    ).scalar()
    if oldest is None:
        return None
    return lease(connection, oldest, device, until_s)


def _task(connection: Connection, task_id: str) -> AnyRow:
    row = connection.execute(sa.select(tasks).where(tasks.c.task_id == task_id).with_for_update()).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no task {task_id}")
    return row


def _stale(task: AnyRow, fence: int) -> StaleLeaseError:
    if task.fence != fence:
        return StaleLeaseError(f"lease {fence} of task {task.task_id} has ended: lease {task.fence} is {task.device}'s")
    return StaleLeaseError(f"lease {fence} of task {task.task_id} has ended: the task is {task.state}")


def renew(connection: Connection, task_id: str, fence: int, until_s: float) -> None:
    task = _task(connection, task_id)
    if task.fence != fence or task.state != "leased":
        raise _stale(task, fence)
    connection.execute(tasks.update().where(tasks.c.task_id == task_id).values(lease_until_s=until_s))


def _storable(text: str) -> str:
    """PostgreSQL has no NUL in text, and a reason may come from an agent."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def end(connection: Connection, task_id: str, fence: int, reason: str) -> None:
    task = _task(connection, task_id)
    reason = _storable(reason)
    state = "pending" if reason else "done"
    if task.fence == fence and task.state == state and task.reason == reason:
        return  # said again: the answer was lost on the way
    if task.fence != fence or task.state != "leased":
        raise _stale(task, fence)
    failed = 1 if reason else 0
    connection.execute(
        tasks.update()
        .where(tasks.c.task_id == task_id)
        .values(state=state, reason=reason, attempts=tasks.c.attempts + failed)
    )


def release(connection: Connection, task_id: str, fence: int) -> None:
    task = _task(connection, task_id)
    if task.fence != fence or task.state != "leased":
        raise _stale(task, fence)
    connection.execute(tasks.update().where(tasks.c.task_id == task_id).values(state="pending"))


def forget_failures(connection: Connection, run_id: str) -> None:
    connection.execute(tasks.update().where(tasks.c.run_id == run_id).values(attempts=0, reason=""))


def unfinished(connection: Connection) -> list[str]:
    query = sa.select(runs.c.run_id).where(runs.c.state.not_in(ENDED_STATES)).order_by(runs.c.number)
    return list(connection.execute(query).scalars())


def expire(connection: Connection, now_s: float) -> list[tuple[str, str]]:
    """(task, device) of every lease that has run out; the tasks are pending again."""
    gone = connection.execute(
        sa.select(tasks.c.task_id, tasks.c.device)
        .where(tasks.c.state == "leased", tasks.c.lease_until_s < now_s)
        .order_by(tasks.c.number)
        .with_for_update(skip_locked=True)
    ).all()
    if gone:
        connection.execute(
            tasks.update().where(tasks.c.task_id.in_([row.task_id for row in gone])).values(state="pending")
        )
    return [(row.task_id, row.device) for row in gone]


def tasks_of(connection: Connection, run_id: str) -> list[TaskRecord]:
    columns = [tasks.c[name] for name in TaskRecord.__dataclass_fields__]
    rows = connection.execute(sa.select(*columns).where(tasks.c.run_id == run_id).order_by(tasks.c.number))
    return [TaskRecord(*row) for row in rows]
