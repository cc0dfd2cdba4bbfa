"""The database of a coordinator: runs, tasks, raw measurements (append-only), devices and LUT versions (immutable)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection

from lut_store import (
    descent_rows,
    device_rows,
    enrolment_rows,
    lint_rows,
    lut_rows,
    measurement_rows,
    run_rows,
    tag_rows,
)
from lut_store.database import Database
from lut_store.descent_rows import Descent
from lut_store.evidence import EvidenceCheck
from lut_store.formats import from_bytes
from lut_store.lint import lint
from lut_store.lut import Lut
from lut_store.measurement_rows import Offered
from lut_store.records import Invitation, Issued, Outcome, RunRecord, StoredMeasurement, TaskRecord
from lut_store.reference import STABLE, check_tag
from lut_store.stable import MAX_MAPE, objections
from protos import common_pb2
from protos.errors import BadInputError, ConflictError, NotFoundError
from protos.types import Device, Finding, Lease, LutQuery, LutSummary, RunSpec, TagMove

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

    # ---- certificates ----

    def invite(self, secret: str, holder: Invitation, now_s: float, expires_s: float) -> None:
        """Keep a token. Raises ConflictError when the name belongs to somebody with another role or device type."""
        with self._database.writing() as connection:
            enrolment_rows.invite(connection, secret, holder, now_s, expires_s)

    def redeem(self, secret: str, now_s: float) -> Invitation:
        """Use a token up. Raises StaleLeaseError for one that is not valid."""
        with self._database.writing() as connection:
            return enrolment_rows.redeem(connection, secret, now_s)

    def add_certificate(self, issued: Issued) -> None:
        with self._database.writing() as connection:
            enrolment_rows.add_certificate(connection, issued)

    def revoke(self, name: str, reason: str, now_s: float) -> tuple[Sequence[str], int]:
        """(serials, number of tokens) that were valid until now. Raises BadInputError when there are none."""
        with self._database.writing() as connection:
            return enrolment_rows.revoke(connection, name, reason, now_s)

    def revoked_certificates(self, now_s: float) -> frozenset[str]:
        """Serials."""
        with self._database.reading() as connection:
            return enrolment_rows.revoked_serials(connection, now_s)

    def certificates(self, now_s: float) -> list[Issued]:
        """Those that have not expired, and those that were revoked."""
        with self._database.reading() as connection:
            return enrolment_rows.every(connection, now_s)

    # ---- LUT versions ----

    def add_lut(self, lut: Lut, run_ids: Sequence[str] = ()) -> Lut:
        """Store a version built from `run_ids`, with what lint finds in it, and give it the next number of its device
        type and space.

        A LUT with the same digest that is already there is returned instead. Raises NotFoundError for a run that is
        not there.
        """
        lut = replace(lut, created_wall_s=lut.created_wall_s or time.time())
        findings = lint(lut)
        with self._database.writing() as connection:
            for run_id in run_ids:
                if run_rows.find_run(connection, run_id) is None:
                    raise NotFoundError(f"there is no run {run_id}")
            series_id, newest = lut_rows.lock_series(connection, lut.configuration)
            stored = lut_rows.document(connection, lut.digest)
            if stored is None:
                lut = replace(lut, version=newest + 1)
                lut_rows.add(connection, lut, series_id, run_ids)
                lint_rows.add(connection, lut.digest, findings)
                return lut
        return self._decode(stored, self.name)

    def descents(self, run_ids: Sequence[str]) -> list[Descent]:
        """The versions that were built from any of these runs, perhaps with others; the oldest first."""
        with self._database.reading() as connection:
            return descent_rows.of_runs(connection, run_ids)

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
        """Every version that fits, by device type and space, newest first; with version "latest" or a tag only what
        that means in each configuration.
        """
        with self._database.reading() as connection:
            return lut_rows.summaries(connection, query or LutQuery())

    # ---- what is said of versions ----

    def findings(self, query: LutQuery) -> tuple[str, tuple[Finding, ...]]:
        """(digest, what lint found) of the one version that is meant. Raises NotFoundError or AmbiguousError."""
        with self._database.reading() as connection:
            digest = lut_rows.find(connection, query)
            stored = lint_rows.of_version(connection, digest)
        # A version that an older edgelut has stored is looked at now.
        return digest, lint(self.lut_by_digest(digest)) if stored is None else stored

    def tags(self, query: LutQuery | None = None, *, history: bool = False) -> list[TagMove]:
        """The tags of the configurations that fit, where they point now, or every move that they made, newest first.

        The query's version is a tag, a number for what points there, or empty for all. Raises NotFoundError.
        """
        query = query or LutQuery()
        with self._database.reading() as connection:
            found = tag_rows.moves(connection, lut_rows.conditions(query), history=history)
            named = [move for move in found if query.version in ("", move.name, str(move.version))]
            if not named and query != LutQuery():
                lut_rows.find(connection, query)
        return named

    def move_tag(
        self,
        query: LutQuery,
        name: str,
        *,
        moved_by: str,
        reason: str = "",
        force: bool = False,
        max_mape: float = MAX_MAPE,
    ) -> TagMove:
        """Point a tag at the one version that the query means, and keep the move for ever; the version stays as it is.

        `stable` is refused (BadInputError with every reason) to a version that lut_store.stable objects to, unless it
        is forced, which the history then says. A tag that points there already does not move. Raises NotFoundError or
        AmbiguousError for the version, BadInputError for a name that no tag may have.
        """
        check_tag(name)
        if not max_mape >= 0:
            raise BadInputError(f"the largest MAPE of a {STABLE} version is {max_mape}; it must be zero or more")
        digest, findings = self.findings(query)
        lut = self.lut_by_digest(digest)
        against = objections(lut, findings, max_mape) if name == STABLE else ()
        if against and not force:
            raise BadInputError(
                f"{lut.reference} cannot be {STABLE}: {'; '.join(against)}. "
                "Choose another version, or force it, which the tag's history will say"
            )
        with self._database.writing() as connection:
            lut_rows.lock_series(connection, lut.configuration)
            tag_rows.add(connection, digest, name, moved_by=moved_by, reason=reason, objections=against)
        own = LutQuery(version=name, **asdict(lut.configuration))
        return self.tags(own)[0]
