"""A backup: the whole database as one SQLite file, whatever it is a backup of. It opens like any other database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from lut_store.database import Database
from lut_store.transfer import Progress, copy, row_counts, silent
from protos.errors import BadInputError, StorageError

PART = ".part"  # ends the name of a backup that is being made


def backup(source: Database, output: Path, progress: Progress = silent) -> dict[str, int]:
    """Write one state of the database to `output`, which is whole or not there; rows by table.

    Runs may go on meanwhile. Raises BadInputError when something stands at `output`, StorageError.
    """
    if output.exists():
        raise BadInputError(f"{output} exists already, and a backup never replaces anything: name another file")
    if not output.parent.is_dir():
        raise BadInputError(f"there is no folder {output.parent}: make it first")
    part = output.with_name(output.name + PART)
    discard(part)
    try:
        if source.embedded:
            _compact(source, part)
        else:
            _copied(source, part, progress)
        with contextlib.closing(Database(f"sqlite:///{part}")) as made, made.reading() as connection:
            counts = row_counts(connection)
        _settle(part, output)
    except BaseException:
        discard(part)
        raise
    return counts


def discard(path: Path) -> None:
    """Remove an embedded database and what SQLite and a coordinator keep beside it."""
    for beside in ("", "-wal", "-shm", "-journal", "-claims"):
        path.with_name(path.name + beside).unlink(missing_ok=True)


def _compact(source: Database, part: Path) -> None:
    """SQLite's own way: one state, without the room that deleted rows left."""
    with source.sentences(), source.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        try:
            raw.execute("VACUUM INTO ?", (str(part),))
        except sqlite3.Error as error:
            raise StorageError(_why(source, part, error)) from error


def _why(source: Database, part: Path, error: sqlite3.Error) -> str:
    where = part.name.removesuffix(PART)
    if "malformed" in str(error):
        return f"{source.name}: the database is damaged, and no backup can be made of it ({error})"
    if "full" in str(error) or "disk I/O" in str(error):
        return f"{part.with_name(where)}: the disk is full or failed, and no backup was made ({error})"
    return f"{part.with_name(where)} cannot be written: {error}"


def _copied(source: Database, part: Path, progress: Progress) -> None:
    with contextlib.closing(Database(f"sqlite:///{part}")) as made:
        copy(source, made, progress)


def _settle(part: Path, output: Path) -> None:
    """On the disk, then under its name."""
    try:
        for path in (part, part.parent):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        part.rename(output)
    except OSError as error:
        raise StorageError(f"{output} cannot be written: {error.strerror}") from error
