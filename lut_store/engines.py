"""From a database URL to a SQLAlchemy engine whose connections are set up, and the same URL as people may see it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, Engine

from protos.errors import BadInputError, NotFoundError, StorageError

BUSY_S = 30.0  # how long a writer waits for another process
WRITES = "edgelut_writes"  # an execution option: SQLite takes the writer's lock when such a transaction begins
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_PASSWORD = re.compile(r":[^:/@]*@")
# Pages of the database that a connection keeps in memory, in KiB: the indices of a million measurements fit.
_SQLITE_CACHE_KIB = 64 << 10
# A server that lost its power is noticed within about half a minute.
_KEEPALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
CONNECT_S = 10
# Pages (4 KiB) of the log that are copied into the database together: what many transactions changed is copied once.
_SQLITE_LOG_PAGES = 8000


def parse_url(url: str) -> sa.URL:
    """The URL with the driver that edgelut brings. Raises BadInputError with what to write instead."""
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError as error:
        hidden = _PASSWORD.sub(":***@", url)
        raise BadInputError(
            f"{hidden!r} is not a database URL; write for example sqlite:////path/to/edgelut.db "
            "or postgresql://user@host/edgelut"
        ) from error
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS:
        raise BadInputError(f"database {backend!r} is not supported; use sqlite:///FILE or postgresql://…")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise BadInputError("a database in memory would be lost; write sqlite:///FILE")
    return parsed.set(drivername=_DRIVERS[backend]) if parsed.drivername in _DRIVERS else parsed


def shown(url: str) -> str:
    """The URL without its password."""
    return parse_url(url).render_as_string(hide_password=True)


def sqlite_file(url: str) -> Path | None:
    """The file of an embedded database; None for a server's."""
    parsed = parse_url(url)
    return Path(parsed.database).expanduser() if parsed.database and parsed.get_backend_name() == "sqlite" else None


def require_existing(url: str) -> None:
    """Raises NotFoundError for an embedded database that is not there: opening it would make an empty one."""
    path = sqlite_file(url)
    if path is not None and not path.is_file():
        raise NotFoundError(f"there is no database {path}")


def make_engine(url: sa.URL) -> Engine:
    """Raises BadInputError or StorageError."""
    return _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)


def _postgresql(url: sa.URL) -> Engine:
    # What stands in the URL itself wins: libpq reads it last.
    options: dict[str, Any] = {"connect_timeout": CONNECT_S, **_KEEPALIVE}
    options = {name: value for name, value in options.items() if name not in url.query}
    try:
        return sa.create_engine(url, pool_pre_ping=True, max_overflow=-1, connect_args=options)
    except (ImportError, exc.NoSuchModuleError) as error:
        raise BadInputError(f"{url.drivername} needs a driver that is not installed: {error}") from error


def _sqlite(url: sa.URL) -> Engine:
    path = Path(url.database or "").expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the folder of {path} cannot be made: {error.strerror}") from error
    engine = sa.create_engine(
        url.set(database=str(path)), max_overflow=-1, connect_args={"timeout": BUSY_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions are begun below; sqlite3 must not
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"cache_size = -{_SQLITE_CACHE_KIB}",
            f"wal_autocheckpoint = {_SQLITE_LOG_PAGES}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
