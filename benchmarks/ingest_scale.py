"""Figure: ingest with 10⁴ and with 10⁶ measurements stored (10⁷ in full), SQLite and PostgreSQL; bytes of each.

The measurements are the smallest that a run makes (a round of one path), so that the indices have the largest share.
What is stored already is written by SQL under random ids; what comes has ids as agents make them. The databases take
batches through the store in turns; the ratio is of the seconds of each pair.
"""

from __future__ import annotations

import time
from contextlib import closing
from statistics import median

import sqlalchemy as sa

from benchmarks.runs import databases, keep
from lut_store.database import Database
from lut_store.inspection import size_bytes
from lut_store.schema import measurements, tasks
from lut_store.store import Store
from protos import common_pb2
from protos.convert import to_message
from protos.ids import new_id
from protos.types import Lease, RunSpec
from tests.lut_store.samples import fbnet, measurement_of, round_of, run_of

FEW, MANY, LONG = 10_000, 1_000_000, 10_000_000
PER_TASK = 1000
CHUNK = 100_000  # rows of one statement of the filling
BATCH, PAIRS = 256, 24
FAR = 1e12


def main(full: bool = False) -> None:
    counts = (FEW, MANY, LONG) if full else (FEW, MANY)
    record: dict[str, object] = {}
    with databases() as makers:
        for kind, make in makers.items():
            tables = {count: _Table(make(f"scale-{count}"), count) for count in counts}
            record[kind] = _measure(kind, tables)
            for table in tables.values():
                table.close()
    keep("ingest_scale", record)


def _measure(kind: str, tables: dict[int, _Table]) -> dict[str, object]:
    found: dict[str, object] = {}
    seconds: dict[int, list[float]] = {count: [] for count in tables}
    for turn in range(PAIRS + 2):
        for count, table in tables.items():
            took_s = table.take()
            if turn >= 2:  # the first ones fill caches
                seconds[count].append(took_s)
    for count, table in tables.items():
        rate = BATCH / median(seconds[count])
        ratio = median(a / b for a, b in zip(seconds[FEW], seconds[count], strict=True))
        print(
            f"{kind:10} {count:>10,} stored: {rate:7.0f} measurements/s, {ratio:.2f} of the rate with {FEW:,}; "
            f"{table.bytes_each:.0f} bytes each (body {table.body_bytes}); filled in {table.fill_s:.0f} s"
        )
        found[str(count)] = {"rate": rate, "ratio": ratio, "bytes": table.bytes_each, "body": table.body_bytes}
    return found


class _Table:
    """A database with so many measurements, and a lease under which more come."""

    def __init__(self, url: str, count: int) -> None:
        self._store = Store(url)
        spec = run_of(fbnet(), networks=0)
        self._store.add_run("run", spec)
        self._lease = self._store.lease_new_task("run", "latency", 0, 0, "pi-01", FAR)
        self._template = _template(spec, self._lease)
        self.body_bytes = self._template.ByteSize()
        self._sequence = 0
        started_s = time.perf_counter()
        with closing(Database(url)) as database:
            empty = _size(database)
            _fill(database, self._template, count)
            self.bytes_each = (_size(database) - empty) / count
        self.fill_s = time.perf_counter() - started_s

    def take(self) -> float:
        """Seconds for one batch of new measurements."""
        batch = []
        for _ in range(BATCH):
            message = common_pb2.Measurement()
            message.CopyFrom(self._template)
            message.id, message.sequence = new_id(), self._sequence
            self._sequence += 1
            batch.append(("pi-01", message.SerializeToString()))
        started_s = time.perf_counter()
        outcomes = self._store.add_batch(batch)
        took_s = time.perf_counter() - started_s
        assert all(outcome.status == "stored" for outcome in outcomes), outcomes[0]
        return took_s

    def close(self) -> None:
        self._store.close()


def _template(spec: RunSpec, lease: Lease) -> common_pb2.Measurement:
    message: common_pb2.Measurement = to_message(measurement_of(lease.task_id, round_of(spec, paths=1)))
    return message


def _size(database: Database) -> int:
    with database.reading() as connection:
        return size_bytes(connection)


# Rows by number under random ids.
_ROWS = {
    "sqlite": "SELECT lower(hex(randomblob(16))) AS id, value AS number FROM generate_series(:first, :last)",
    "postgresql": "SELECT replace(gen_random_uuid()::text, '-', '') AS id, number FROM generate_series("
    "CAST(:first AS bigint), CAST(:last AS bigint)) AS number",
}
_NUMBERS = "WITH RECURSIVE generate_series(value) AS (VALUES(:first) UNION ALL SELECT value + 1 FROM generate_series"
_FILL = (
    "INSERT INTO measurements (id, task_id, run_id, device, fence, sequence, kind, flags, received_wall_s, compressed, "
    "body) SELECT id, 'task-' || (number / {per_task}), 'run', 'pi-01', 1, number % {per_task}, 'latency', '', 1.0, "
    "{false}, :body FROM ({rows}) AS made"
)


def _fill(database: Database, template: common_pb2.Measurement, count: int) -> None:
    rows = _ROWS["sqlite" if database.embedded else "postgresql"]
    false = "0" if database.embedded else "FALSE"
    statement = _FILL.format(per_task=PER_TASK, false=false, rows=rows)
    if database.embedded:
        statement = f"{_NUMBERS} WHERE value < :last) {statement}".replace(
            "generate_series(:first, :last)", "generate_series"
        )
    with database.writing() as connection:
        row = connection.execute(sa.select(tasks)).mappings().one()
        numbers = range(count // PER_TASK + 1)
        more = [{**row, "number": 10 + n, "task_id": f"task-{n}", "state": "done"} for n in numbers]
        connection.execute(tasks.insert(), more)
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count) - 1
        with database.writing() as connection:
            body = template.SerializeToString()
            connection.execute(sa.text(statement), {"first": first, "last": last, "body": body})
    with database.reading() as connection:
        stored = connection.execute(sa.select(sa.func.count()).select_from(measurements)).scalar_one()
    assert stored == count, stored
    if not database.embedded:  # as the server's own maintenance does in time
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))
