"""The connection to the database: opened safely, its schema brought up to date, its errors put into sentences.

SQLite is embedded: WAL, so that readers never wait for the writer, with a full sync at every commit; writers take the
lock when they begin (BEGIN IMMEDIATE), so that no transaction fails half-way because another process was faster.
PostgreSQL serves several coordinators: readers see one snapshot (REPEATABLE READ), writers lock rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Row

from lut_store.engines import BUSY_S, WRITES, make_engine, parse_url
from lut_store.schema import REVISION
from protos.errors import BadInputError, IncompatibleError, StorageError

if TYPE_CHECKING:  # SQLAlchemy 2.0 would not understand it when it runs
    AnyRow = Row[*tuple[Any, ...]]

_UPGRADE_LOCK = 0x6564_6765_6C75_74  # "edgelut": the advisory lock of those who upgrade a shared PostgreSQL
_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def insert(connection: Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """The insert of the connection's dialect, which knows ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


class Database:
    """An engine whose schema is the one that this program knows. Thread-safe."""

    def __init__(self, url: str) -> None:
        """Raises BadInputError, StorageError or IncompatibleError with what to do."""
        self.engine = make_engine(parse_url(url))
        self.name = self.engine.url.render_as_string(hide_password=True)
        self.embedded = self.engine.dialect.name == "sqlite"
        # Within a process, waiting for a lock is fairer and quicker than SQLite's polling.
        self._writer = threading.Lock() if self.embedded else nullcontext()
        # Both share the pool. A transaction of SQLite is a snapshot in any case.
        self._reads = self.engine if self.embedded else self.engine.execution_options(**_SNAPSHOT)
        self._writes = self.engine.execution_options(**{WRITES: True})
        try:
            self._open()
        except BaseException:
            self.engine.dispose()
            raise

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database. Raises StorageError."""
        with self.sentences(), self._reads.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is durable when the block ends, and leaves nothing behind when it raises StorageError."""
        with self.sentences(), self._writer, self._writes.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def sentences(self) -> Iterator[None]:
        """What the database says inside the block becomes StorageError, with what to do."""
        try:
            yield
        except exc.SQLAlchemyError as error:
            raise StorageError(f"{self.name}: {_sentence(error)}") from error

    # ---- schema ----

    def _open(self) -> None:
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                with self.reading() as connection:
                    current = self._revision(connection)
                if current != REVISION:
                    self._upgrade()
                return
            except StorageError as error:
                # Two processes that make a WAL database at the same moment: SQLite tells one of them to come back.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _revision(self, connection: Connection) -> str | None:
        """The schema's; None for an empty database. Raises BadInputError for somebody else's."""
        tables = sa.inspect(connection).get_table_names()
        if "alembic_version" not in tables:
            if tables:
                raise BadInputError(
                    f"{self.name} holds other tables ({', '.join(sorted(tables)[:3])}): name another one"
                )
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()

    def _upgrade(self) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
            current = self._revision(connection)  # another process may have been faster
            known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
            if current is not None and current not in known:
                raise IncompatibleError(
                    f"{self.name} has the schema {current}, this edgelut knows schemas up to {REVISION}: "
                    "upgrade edgelut, or name another database"
                )
            if current != REVISION:
                config.attributes["connection"] = connection
                command.upgrade(config, REVISION)


# What the drivers say, and what to do about it; the first mark that is in the cause counts.
_SENTENCES = (
    ("disk is full", "the disk is full and nothing of this was stored; free some space and try again"),
    ("No space left", "the database server's disk is full and nothing of this was stored; free some space there"),
    ("could not extend file", "the database server's disk is full and nothing of this was stored; free some there"),
    ("readonly", "the database cannot be written to; give this user the right to, or name another one"),
    ("read-only", "the database cannot be written to: it is a copy that follows another; name the one that leads"),
    ("unable to open", "the database cannot be opened; check that its folder exists and may be written to"),
    ("database is locked", f"another process has been writing to the database for more than {BUSY_S:.0f} s"),
    ("not a database", "this file is no database; name another one"),
    ("disk image is malformed", "the database is damaged; restore it from a backup"),
    ("malformed database schema", "the database is damaged; restore it from a backup"),
    ("disk I/O error", "the disk failed or is full, and nothing of this was stored"),
    ("password authentication failed", "the server refuses this user or password"),
    ("no password supplied", "the server asks for a password; put it into the URL, PGPASSWORD or ~/.pgpass"),
    ("does not exist", "there is no such database, table or user on the server; make it first (createdb NAME)"),
    ("permission denied", "this user may not do that; GRANT it the right to create tables and to use them"),
    ("cannot contain NUL", "a text holds a NUL character, which PostgreSQL does not store"),
    ("Connection refused", "no database server answers there; start it, or correct the address"),
    ("timeout expired", "no database server answers there; start it, or correct the address"),
    ("resolve host", "there is no machine of that name; correct the address"),
    ("server closed the connection", "the database server went away, and nothing of this was stored"),
    ("terminating connection", "the database server went away, and nothing of this was stored"),
)


def _sentence(error: exc.SQLAlchemyError) -> str:
    lines = str(getattr(error, "orig", None) or error).split("\n")
    cause = " ".join(line.strip() for line in lines[:2] if line.strip())
    return next(
        (f"{sentence} ({cause})" for mark, sentence in _SENTENCES if mark in cause), f"the database failed: {cause}"
    )
