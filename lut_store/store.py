"""The database of a coordinator: runs, tasks, raw measurements (append-only), devices and LUT versions (immutable)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection

from lut_store import device_rows, lut_rows, measurement_rows, run_rows
from lut_store.database import Database
from lut_store.evidence import EvidenceCheck
from lut_store.formats import from_bytes
from lut_store.lut import Lut
from lut_store.measurement_rows import Offered
from lut_store.records import Outcome, RunRecord, StoredMeasurement, TaskRecord
from protos import common_pb2
from protos.errors import BadInputError, ConflictError, NotFoundError
from protos.types import Device, Lease, LutQuery, LutSummary, RunSpec

if TYPE_CHECKING:
    from lut_store.database import AnyRow

__all__ = ["Outcome", "RunRecord", "Store", "StoredMeasurement", "TaskRecord"]

KINDS = ("latency", "power")
_SPECS = 64  # runs whose spec is kept in memory
_LUTS = 16


class Store:
    """One per process and thread-safe; several processes may share a database.

    Every method that writes is one transaction, durable when it returns; every method may raise StorageError, and then
    nothing of it was stored.
    """

    def __init__(self, url: str) -> None:
        """Open, create or upgrade the database at a SQLAlchemy URL (sqlite:///FILE, postgresql://…).

        Raises BadInputError for an URL that cannot be, IncompatibleError for a schema that is newer than this program.
        """
        self._database = Database(url)
        # Kept in memory: what never changes once it is there.
        self._spec = lru_cache(_SPECS)(run_rows.unpack)
        self._decode = lru_cache(_LUTS)(from_bytes)
        self._rules: dict[str, EvidenceCheck] = {}

    @property
    def name(self) -> str:
        """The database's URL without its password."""
        return self._database.name

    def close(self) -> None:
        self._database.close()

    # ---- runs ----

    def add_run(self, run_id: str, spec: RunSpec) -> bool:
        """False when this very run is already there. Raises ConflictError when another one has its id."""
        with self._database.writing() as connection:
            row = run_rows.find_run(connection, run_id)
            if row is None:
                run_rows.insert_run(connection, run_id, spec)
                return True
            if self._spec(row.spec) != spec:
                raise ConflictError(f"run {run_id} is already there and asks for something else; use another id")
            return False

    def run(self, run_id: str) -> RunRecord:
        """Raises NotFoundError."""
        with self._database.reading() as connection:
            row = run_rows.find_run(connection, run_id)
        if row is None:
            raise NotFoundError(f"there is no run {run_id}")
        return self._run_record(row)

    def runs(self, limit: int = 100) -> list[RunRecord]:
        """The newest first."""
        with self._database.reading() as connection:
            rows = run_rows.newest_runs(connection, limit)
        return [self._run_record(row) for row in rows]

    def unfinished_runs(self) -> list[str]:
        """Ids of the runs that have not ended, the oldest first."""
        with self._database.reading() as connection:
            return run_rows.unfinished(connection)

    def _run_record(self, row: AnyRow) -> RunRecord:
        return RunRecord(
            run_id=row.run_id,
            spec=self._spec(row.spec),
            state=row.state,
            reason=row.reason,
            created_wall_s=row.created_wall_s,
            lut_digest=row.lut_digest,
            lut_reference=row.lut_reference,
        )

    def set_run(self, run_id: str, state: str, reason: str = "", lut_digest: str = "", lut_reference: str = "") -> None:
        """Raises NotFoundError."""
        with self._database.writing() as connection:
            run_rows.update_run(connection, run_id, state, reason, lut_digest, lut_reference)

    # ---- tasks and leases ----

    def add_task(self, run_id: str, kind: str, seed: int, first_round: int) -> str:
        """A pending task; its id. kind: "latency" or "energy". Raises NotFoundError."""
        with self._database.writing() as connection:
            return run_rows.insert_task(connection, run_id, kind, seed, first_round)

    def lease_task(self, run_id: str, device: str, until_s: float, kind: str = "") -> Lease | None:
        """Give the run's oldest pending task (of one kind, when it is named) to `device`, with a fence higher than any
        before; None when there is none.
        """
        with self._database.writing() as connection:
            task = run_rows.lease_oldest(connection, run_id, device, until_s, kind)
            run = None if task is None else run_rows.find_run(connection, run_id)
        return None if task is None or run is None else self._lease(task, run)

    def lease_new_task(self, run_id: str, kind: str, seed: int, first_round: int, device: str, until_s: float) -> Lease:
        """Add a task and give it to `device`, in one transaction. Raises NotFoundError."""
        with self._database.writing() as connection:
            task_id = run_rows.insert_task(connection, run_id, kind, seed, first_round)
            task = run_rows.lease(connection, run_rows.number_of(connection, task_id), device, until_s)
            run = run_rows.find_run(connection, run_id)
        assert run is not None  # insert_task has found it
        return self._lease(task, run)

    def _lease(self, task: AnyRow, run: AnyRow) -> Lease:
        return Lease(
            task_id=task.task_id,
            fence=task.fence,
            run_id=task.run_id,
            kind=task.kind,
            seed=int(task.seed),
            first_round=task.first_round,
            run=self._spec(run.spec),
        )

    def renew_lease(self, task_id: str, fence: int, until_s: float) -> None:
        """Raises StaleLeaseError when the lease has ended, NotFoundError."""
        with self._database.writing() as connection:
            run_rows.renew(connection, task_id, fence, until_s)

    def end_task(self, task_id: str, fence: int, reason: str = "") -> None:
        """reason "": done; else it failed and is pending again, with one attempt more. Saying it again is harmless.

        Raises StaleLeaseError when the lease has ended otherwise, NotFoundError.
        """
        with self._database.writing() as connection:
            run_rows.end(connection, task_id, fence, reason)

    def release_task(self, task_id: str, fence: int) -> None:
        """The task is pending again, no attempt is counted.

        Raises StaleLeaseError when the lease has ended, NotFoundError.
        """
        with self._database.writing() as connection:
            run_rows.release(connection, task_id, fence)

    def reset_attempts(self, run_id: str) -> None:
        """Forget the failures of the run's tasks: it is tried anew."""
        with self._database.writing() as connection:
            run_rows.forget_failures(connection, run_id)

    def expire_leases(self, now_s: float) -> list[tuple[str, str]]:
        """(task, device) of the leases that ran out before now_s; their tasks are pending again, no attempt is
        counted.
        """
        with self._database.writing() as connection:
            return run_rows.expire(connection, now_s)

    def tasks(self, run_id: str) -> list[TaskRecord]:
        """In the order in which they were added."""
        with self._database.reading() as connection:
            return run_rows.tasks_of(connection, run_id)

    # ---- measurements ----

    def add_measurements(self, device: str, measurements: Sequence[Offered]) -> list[Outcome]:
        """Store what `device` offers: values of protos.types, messages, their bytes, or both. See add_batch."""
        return self.add_batch([(device, measurement) for measurement in measurements])

    def add_batch(self, offers: Sequence[tuple[str, Offered]]) -> list[Outcome]:
        """Store (device, measurement) pairs in one transaction; an outcome for each, in their order.

        "stored" and "duplicate" are durable when this returns. Refused, with a code and a sentence, is what belongs
        to no task, comes from a device that does not hold the task's newest lease, or cannot be true for its run.
        """
        if not offers:
            return []
        with self._database.writing() as connection:
            return measurement_rows.add(connection, offers, lambda run_id: self._rules_of(connection, run_id))

    def _rules_of(self, connection: Connection, run_id: str) -> EvidenceCheck:
        rules = self._rules.get(run_id)
        if rules is None:
            row = run_rows.find_run(connection, run_id)
            assert row is not None  # tasks refer to runs
            rules = self._rules[run_id] = EvidenceCheck(self._spec(row.spec))
        return rules

    def measurements(self, run_id: str, kind: str) -> Iterator[StoredMeasurement]:
        """Of kind "latency" or "power", by task and then as the device made them: the same whenever they arrived."""
        return (row.value() for row in self._rows(run_id, kind))

    def messages(self, run_id: str, kind: str) -> Iterator[common_pb2.Measurement]:
        """The same as messages: a tenth of the cost, for those who count and do not compute."""
        return (row.message for row in self._rows(run_id, kind))

    def _rows(self, run_id: str, kind: str) -> Iterator[measurement_rows.Row]:
        if kind not in KINDS:
            raise BadInputError(f"measurement kind {kind!r} must be one of {', '.join(KINDS)}")
        with self._database.reading() as connection:
            tasks = measurement_rows.task_ids(connection, run_id)
        for task_id in tasks:
            # One short transaction for each task: nobody waits while the caller thinks.
            with self._database.reading() as connection:
                part = list(measurement_rows.of_task(connection, task_id, kind))
            yield from part

    # ---- devices ----

    def upsert_device(self, device: Device) -> None:
        """Remember what is known of a board now, under its name."""
        with self._database.writing() as connection:
            device_rows.upsert(connection, device)

    def devices(self) -> list[Device]:
        """By name."""
        with self._database.reading() as connection:
            return device_rows.every(connection)

    # ---- LUT versions ----

    def add_lut(self, lut: Lut, run_ids: Sequence[str] = ()) -> Lut:
        """Store a version built from `run_ids` and give it the next number of its device type and space.

        A LUT with the same digest that is already there is returned instead. Raises NotFoundError for a run that is
        not there.
        """
        with self._database.writing() as connection:
            for run_id in run_ids:
                if run_rows.find_run(connection, run_id) is None:
                    raise NotFoundError(f"there is no run {run_id}")
            series_id, newest = lut_rows.lock_series(connection, lut.configuration)
            stored = lut_rows.document(connection, lut.digest)
            if stored is None:
                lut = replace(lut, version=newest + 1, created_wall_s=lut.created_wall_s or time.time())
                lut_rows.add(connection, lut, series_id, run_ids)
                return lut
        return self._decode(stored, self.name)

    def lut(self, query: LutQuery) -> Lut:
        """The one version that is meant. Raises NotFoundError or AmbiguousError, which name what there is."""
        return self._decode(self.lut_document(query)[1], self.name)

    def lut_by_digest(self, digest: str) -> Lut:
        """Raises NotFoundError."""
        return self.lut(LutQuery(digest=digest))

    def lut_document(self, query: LutQuery, known_digest: str = "") -> tuple[str, bytes]:
        """(digest, the .lut file) of the one version that is meant; no bytes when it is the one that the caller
        knows.
        """
        with self._database.reading() as connection:
            digest = lut_rows.find(connection, query)
            return digest, b"" if digest == known_digest else lut_rows.document(connection, digest) or b""

    def luts(self, query: LutQuery | None = None) -> list[LutSummary]:
        """Every version that fits, by device type and space, newest first; with version "latest" the newest of each
        configuration alone."""
        with self._database.reading() as connection:
            return lut_rows.summaries(connection, query or LutQuery())
