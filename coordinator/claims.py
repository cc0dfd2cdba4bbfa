"""Which coordinator drives a run: several processes may share a database, one of them drives a run.

A claim is a lock that ends with its process, however that ends, so that a run never stays claimed by nobody: for an
embedded database a lock on one byte of a file beside it, for PostgreSQL an advisory lock of a session of its own
(coordinator.advisory).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
from pathlib import Path
from typing import Protocol

from coordinator.advisory import AdvisoryLocks
from lut_store.engines import sqlite_file
from protos.errors import StorageError


class Locks(Protocol):
    """Locks by run, which end with this process. Every method may raise StorageError."""

    def lock(self, run_id: str) -> bool:
        """False when another coordinator holds it; locking again what is held is harmless."""
        ...

    def unlock(self, run_id: str) -> None: ...

    def taken(self, run_id: str) -> bool:
        """Whether another coordinator holds it."""
        ...

    def check(self) -> None:
        """Raises StorageError when the locks have been lost; they can be taken again afterwards."""
        ...

    def close(self) -> None: ...


class Claims:
    """Claims on the runs of one database. What changes them is called by one thread at a time."""

    def __init__(self, database_url: str) -> None:
        path = sqlite_file(database_url)
        self._locks: Locks = AdvisoryLocks(database_url) if path is None else FileLocks(Path(f"{path}-claims"))
        self._held: set[str] = set()

    def take(self, run_id: str) -> bool:
        """Claim the run; False when another coordinator drives it."""
        if run_id not in self._held and self._locks.lock(run_id):
            self._held.add(run_id)
        return run_id in self._held

    def drop(self, run_id: str) -> None:
        if run_id in self._held:
            self._held.remove(run_id)
            self._locks.unlock(run_id)

    def close(self) -> None:
        """Drop all claims."""
        self._held.clear()
        self._locks.close()

    def taken(self, run_id: str) -> bool:
        """Whether another coordinator has claimed the run."""
        return run_id not in self._held and self._locks.taken(run_id)

    def lost(self) -> list[str]:
        """Runs that this process drove and another one does now: the database server had forgotten the claims, and
        these could not be taken again. Raises StorageError while the server cannot be reached.
        """
        if self._held:
            self._locks.check()
        gone = sorted(run_id for run_id in self._held if not self._locks.lock(run_id))
        self._held.difference_update(gone)
        return gone


class FileLocks:
    """Locks on single bytes of a file, at offsets that the runs' ids give. The kernel drops them with the process."""

    def __init__(self, path: Path) -> None:
        """Raises StorageError."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{path} cannot be opened: {error.strerror}") from error

    def lock(self, run_id: str) -> bool:
        return self._set(run_id, fcntl.F_WRLCK)

    def unlock(self, run_id: str) -> None:
        self._set(run_id, fcntl.F_UNLCK)

    def taken(self, run_id: str) -> bool:
        if self._fd < 0:
            return False
        found = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _flock(run_id, fcntl.F_WRLCK))
        kind: int = struct.unpack(_FLOCK, found)[0]
        return kind != fcntl.F_UNLCK

    def check(self) -> None:
        """The kernel forgets nothing."""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _set(self, run_id: str, kind: int) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(run_id, kind))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise StorageError(f"the claim on run {run_id} cannot be locked: {error.strerror}") from error
        return True


_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, process


def _flock(run_id: str, kind: int) -> bytes:
    """One byte for the run. The commands that take it are of open file descriptions: unlike plain fcntl locks, those
    also hold between coordinators inside one process.
    """
    offset = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:7], "big")
    return struct.pack(_FLOCK, kind, os.SEEK_SET, offset, 1, 0)
