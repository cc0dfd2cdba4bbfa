"""Whether a database is whole: its pages, its references, and what its rows say."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import sqlalchemy as sa
from google.protobuf.message import DecodeError
from sqlalchemy.engine import Connection

from lut_store.database import Database
from lut_store.formats import from_bytes
from lut_store.schema import REVISION, luts, measurements, runs, series
from lut_store.transfer import Progress, row_counts, silent
from protos import common_pb2
from protos.errors import EdgelutError, StorageError

MAX_PROBLEMS = 100  # named; a database with more is lost anyway
_AT_ONCE = 200  # rows that are read together


@dataclass
class Report:
    """What a check has found; no problems: everything could be read and fits together."""

    database: str
    schema: str = REVISION
    rows: dict[str, int] = field(default_factory=dict)
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)


Part = Callable[[Connection, Progress], Iterator[str]]


def check(database: Database, *, quick: bool = False, progress: Progress = silent) -> Report:
    """Read everything and say what is wrong; `quick` leaves out what raw measurements say. Runs may go on meanwhile."""
    report = Report(database.name)

    def sizes(connection: Connection, _: Progress) -> Iterator[str]:
        report.size_bytes = size_bytes(connection)
        report.rows = row_counts(connection)
        yield from ()

    parts: list[Part] = [sizes, *([_pages, _references] if database.embedded else [])]
    parts += [_series, _versions, _runs]
    if not quick:
        parts.append(_measurements)
    for part in parts:
        try:
            with database.reading() as connection:
                for problem in part(connection, progress):
                    report.problems.append(problem)
                    if len(report.problems) >= MAX_PROBLEMS:
                        return report
        except StorageError as error:  # the database itself could not be read on
            if str(error) not in report.problems:
                report.problems.append(str(error))
    return report


def size_bytes(connection: Connection) -> int:
    """What the database takes on the disk, indices included."""
    if connection.dialect.name == "postgresql":
        query = "SELECT pg_database_size(current_database())"
        return int(connection.execute(sa.text(query)).scalar_one())
    pages, size = (connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0 for name in ("page_count", "page_size"))
    return int(pages) * int(size)


# ---- the file ----


def _pages(connection: Connection, _: Progress) -> Iterator[str]:
    for row in connection.exec_driver_sql(f"PRAGMA integrity_check({MAX_PROBLEMS})"):
        for line in str(row[0]).splitlines():
            if line != "ok" and not line.startswith("***"):
                yield f"the file is damaged: {line}"


def _references(connection: Connection, _: Progress) -> Iterator[str]:
    for table, number, parent, _index in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"row {number} of {table} refers to a row of {parent} that is not there"


# ---- the content ----


def _series(connection: Connection, _: Progress) -> Iterator[str]:
    """Version numbers count up from 1 without a gap."""
    query = (
        sa.select(series, sa.func.count(luts.c.version).label("count"), sa.func.max(luts.c.version).label("newest"))
        .select_from(series.outerjoin(luts, luts.c.series_id == series.c.series_id))
        .group_by(*series.c)
    )
    for row in connection.execute(query):
        if row.count != row.last_version or (row.newest or 0) != row.last_version:
            name = f"{row.device_type}/{row.space}"
            yield f"{name}: {row.count} versions are there up to {row.newest}; {row.last_version} have been numbered"


def _versions(connection: Connection, progress: Progress) -> Iterator[str]:
    """Every LUT can be read and is what its digest says."""
    query = sa.select(luts.c.digest, luts.c.version, luts.c.document).execution_options(yield_per=_AT_ONCE)
    for number, row in enumerate(connection.execute(query), 1):
        progress("luts", number)
        try:
            lut = from_bytes(bytes(row.document), f"LUT {row.digest[:16]}")
        except EdgelutError as error:
            yield str(error)
            continue
        if lut.digest != row.digest:
            yield f"LUT {row.digest[:16]} holds numbers whose digest is {lut.digest[:16]}"
        if lut.version != row.version:
            yield f"LUT {row.digest[:16]} is version {row.version} in the database and {lut.version} in itself"


def _runs(connection: Connection, _: Progress) -> Iterator[str]:
    query = sa.select(runs.c.run_id, runs.c.spec).execution_options(yield_per=_AT_ONCE)
    for row in connection.execute(query):
        try:
            common_pb2.RunSpec.FromString(zlib.decompress(row.spec))
        except (DecodeError, zlib.error) as error:
            yield f"run {row.run_id}: its specification cannot be read ({error})"


def _measurements(connection: Connection, progress: Progress) -> Iterator[str]:
    columns = (measurements.c.id, measurements.c.kind, measurements.c.compressed, measurements.c.body)
    query = sa.select(*columns).execution_options(yield_per=_AT_ONCE)
    for number, row in enumerate(connection.execute(query), 1):
        if number % _AT_ONCE == 0:
            progress("measurements", number)
        try:
            body = zlib.decompress(row.body) if row.compressed else bytes(row.body)
            message = common_pb2.Measurement.FromString(body)
        except (DecodeError, zlib.error) as error:
            yield f"measurement {row.id} cannot be read ({error})"
            continue
        if message.id != row.id or not message.HasField(row.kind):
            yield f"measurement {row.id} holds another one ({message.id[:64] or 'without an id'})"
