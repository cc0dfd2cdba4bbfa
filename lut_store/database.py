"""The connection to the database: opened safely, its schema brought up to date, its errors put into sentences.

SQLite is embedded: WAL, so that readers never wait for the writer, with a full sync at every commit; writers take the
lock when they begin (BEGIN IMMEDIATE), so that no transaction fails half-way because another process was faster.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine, Row

from lut_store.schema import REVISION
from protos.errors import BadInputError, IncompatibleError, StorageError

if TYPE_CHECKING:  # SQLAlchemy 2.0 would not understand it when it runs
    AnyRow = Row[*tuple[Any, ...]]

BUSY_S = 30.0  # how long a writer waits for another process
_WRITES = "edgelut_writes"
_UPGRADE_LOCK = 0x6564_6765_6C75_74  # "edgelut": the advisory lock of those who upgrade a shared PostgreSQL


def insert(connection: Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """The insert of the connection's dialect, which knows ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


class Database:
    """An engine whose schema is the one that this program knows. Thread-safe."""

    def __init__(self, url: str) -> None:
        """Raises BadInputError, StorageError or IncompatibleError with what to do."""
        self.engine = _engine(url)
        self.name = self.engine.url.render_as_string(hide_password=True)
        # Within a process, waiting for a lock is fairer and quicker than SQLite's polling.
        self._writer = threading.Lock() if self.engine.dialect.name == "sqlite" else nullcontext()
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
        with self._sentences(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is durable when the block ends, and leaves nothing behind when it raises StorageError."""
        with self._sentences(), self._writer, self.engine.connect() as connection:
            connection = connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except exc.SQLAlchemyError as error:
            raise StorageError(self._sentence(error)) from error

    def _sentence(self, error: exc.SQLAlchemyError) -> str:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        for mark, sentence in _SENTENCES:
            if mark in cause:
                return f"{self.name}: {sentence} ({cause})"
        return f"{self.name}: the database failed: {cause}"

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


_SENTENCES = (
    ("disk is full", "the disk is full and nothing of this was stored; free some space and try again"),
    ("readonly", "the database cannot be written to; give this user the right to, or name another one"),
    ("unable to open", "the database cannot be opened; check that its folder exists and may be written to"),
    ("locked", f"another process has been writing to the database for more than {BUSY_S:.0f} s"),
    ("not a database", "this file is no database; name another one"),
    ("malformed", "the database is damaged; restore it from a backup"),
    ("disk I/O error", "the disk failed or is full, and nothing of this was stored"),
    ("could not extend file", "the database server's disk is full and nothing of this was stored"),
)


def _engine(url: str) -> Engine:
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError as error:
        raise BadInputError(
            f"{url!r} is not a database URL; write for example sqlite:////path/to/edgelut.db"
        ) from error
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise BadInputError(f"database {backend!r} is not supported; use sqlite:///FILE or postgresql://…")
    if backend == "sqlite":
        return _sqlite(parsed)
    try:
        return sa.create_engine(parsed, pool_pre_ping=True, max_overflow=-1)
    except (ImportError, exc.NoSuchModuleError) as error:
        raise BadInputError(f"{url.split('@')[-1]} needs a driver that is not installed: {error}") from error


def _sqlite(url: sa.URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise BadInputError("a database in memory would be lost; write sqlite:///FILE")
    try:
        Path(url.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the folder of {url.database} cannot be made: {error.strerror}") from error
    engine = sa.create_engine(url, max_overflow=-1, connect_args={"timeout": BUSY_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # this module begins transactions itself (below), sqlite3 must not
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
