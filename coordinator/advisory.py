"""Locks of PostgreSQL that belong to a session: they end when the session does, however its process ended.

They need a session of their own for as long as the coordinator lives, so a pooler between the two must pool sessions,
not transactions.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from lut_store.engines import make_engine, parse_url, shown
from protos.errors import StorageError

# The server drops the locks of a coordinator whose machine has lost its power after about half a minute.
_KEEPALIVE = ("tcp_keepalives_idle = 15", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 3")
_TAKEN = sa.text(
    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND (classid::bigint << 32 | objid::bigint) = :key AND pid <> pg_backend_pid()"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
)


class AdvisoryLocks:
    """Locks by run, held by one session that is opened when it is first needed. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._name = shown(url)
        self._engine = make_engine(parse_url(url)).execution_options(isolation_level="AUTOCOMMIT")
        self._session: Connection | None = None
        self._held: set[str] = set()  # by this session: it counts locks, and unlocks as often
        self._turn = threading.Lock()

    def lock(self, run_id: str) -> bool:
        with self._ask() as session:
            if run_id in self._held:
                return True
            locked = bool(session.execute(sa.select(sa.func.pg_try_advisory_lock(_key(run_id)))).scalar())
            if locked:
                self._held.add(run_id)
            return locked

    def unlock(self, run_id: str) -> None:
        # A session that has ended holds nothing.
        with contextlib.suppress(StorageError), self._ask() as session:
            session.execute(sa.select(sa.func.pg_advisory_unlock(_key(run_id))))
            self._held.discard(run_id)

    def taken(self, run_id: str) -> bool:
        with self._ask() as session:
            return bool(session.execute(_TAKEN, {"key": _key(run_id)}).scalar())

    def check(self) -> None:
        with self._ask() as session:
            session.execute(sa.text("SELECT 1"))

    def close(self) -> None:
        with self._turn:
            self._end()

    @contextlib.contextmanager
    def _ask(self) -> Iterator[Connection]:
        with self._turn:
            try:
                if self._session is None:
                    self._session = self._engine.connect()
                    for setting in _KEEPALIVE:
                        self._session.execute(sa.text(f"SET {setting}"))
                yield self._session
            except exc.SQLAlchemyError as error:
                self._end()
                cause = str(getattr(error, "orig", None) or error).splitlines()[0]
                raise StorageError(f"{self._name}: the locks of the runs cannot be reached ({cause})") from error

    def _end(self) -> None:
        """End the session, and with it every lock."""
        session, self._session = self._session, None
        self._held.clear()
        if session is not None:
            with contextlib.suppress(exc.SQLAlchemyError):
                session.invalidate()
                session.close()
        self._engine.dispose()


def _key(run_id: str) -> int:
    """63 bits of a hash, under a name of ours: other programs may lock in the same database."""
    return int.from_bytes(hashlib.sha256(f"edgelut run {run_id}".encode()).digest()[:8], "big") >> 1
