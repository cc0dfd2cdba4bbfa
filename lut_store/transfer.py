"""A whole database into another one: rows as they are, so that every digest stays what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lut_store.database import Database
from lut_store.schema import metadata
from protos.errors import ConflictError, StorageError

# Of one statement; rows of measurements are a few kB to a few MB.
CHUNK_ROWS = 1000
CHUNK_BYTES = 8 << 20

Progress = Callable[[str, int], None]  # told (table, rows so far)


def silent(_table: str, _rows: int) -> None:
    """Progress that nobody looks at."""


def row_counts(connection: Connection) -> dict[str, int]:
    """Rows by table, parents before children."""
    return {
        table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        for table in metadata.sorted_tables
    }


def copy(source: Database, target: Database, progress: Progress = silent) -> dict[str, int]:
    """Copy every row of one state of `source` into `target` in one transaction; rows by table.

    Raises ConflictError when the target holds anything, StorageError when either end fails: the target is then as it
    was.
    """
    copied: dict[str, int] = {}
    with source.reading() as there, target.writing() as here:
        held = {name: rows for name, rows in row_counts(here).items() if rows}
        if held:
            words = ", ".join(f"{rows} {name}" for name, rows in held.items())
            raise ConflictError(f"{target.name} is not empty ({words}): name an empty database")
        for table in metadata.sorted_tables:
            copied[table.name] = 0
            for chunk in _chunks(source, there, table):
                here.execute(table.insert(), chunk)
                copied[table.name] += len(chunk)
                progress(table.name, copied[table.name])
        _count_on(here)
        _compare(target, copied, row_counts(here))
    return copied


def _chunks(source: Database, connection: Connection, table: sa.Table) -> Iterator[list[dict[str, Any]]]:
    """The rows of a table in the order of its key, as many at once as fit in memory."""
    query = sa.select(table).order_by(*table.primary_key).execution_options(yield_per=CHUNK_ROWS // 10)
    chunk: list[dict[str, Any]] = []
    size = 0
    with source.sentences():  # what fails here is the source, not the target whose transaction is open
        for row in connection.execute(query).mappings():
            chunk.append(dict(row))
            size += sum(len(value) for value in row.values() if isinstance(value, (str, bytes)))
            if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def _count_on(connection: Connection) -> None:
    """PostgreSQL counts rows apart from them: its counters go on after the largest number that was copied."""
    if connection.dialect.name != "postgresql":
        return
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None:
            continue
        largest = connection.execute(sa.select(sa.func.max(column))).scalar()
        if largest is not None:
            counter = sa.func.pg_get_serial_sequence(table.name, column.name)
            connection.execute(sa.select(sa.func.setval(counter, largest)))


def _compare(target: Database, sent: Mapping[str, int], arrived: Mapping[str, int]) -> None:
    for name, rows in sent.items():
        if arrived[name] != rows:
            raise StorageError(f"{target.name}: {rows} rows of {name} were sent and {arrived[name]} arrived")
