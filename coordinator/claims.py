"""Which coordinator drives a run: several processes may have the same embedded database open, one of them may drive.

A claim is a lock on one byte of a file beside the database, at an offset that the run's id gives. The kernel drops it
when its process dies, however it dies, so that a run never stays claimed by nobody.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
from pathlib import Path

from sqlalchemy.engine import make_url

from protos.errors import StorageError


class Claims:
    """Claims on the runs of one database. A database that is not a file has one coordinator, which gets every claim."""

    def __init__(self, database_url: str) -> None:
        url = make_url(database_url)
        self._held: set[str] = set()
        self._fd = -1
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            path = Path(f"{url.database}-claims")
            try:
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise StorageError(f"{path} cannot be opened: {error.strerror}") from error

    def take(self, run_id: str) -> bool:
        """Claim the run; False when another coordinator drives it."""
        if run_id not in self._held and self._lock(run_id, fcntl.F_WRLCK):
            self._held.add(run_id)
        return run_id in self._held

    def drop(self, run_id: str) -> None:
        if run_id in self._held:
            self._lock(run_id, fcntl.F_UNLCK)
            self._held.remove(run_id)

    def close(self) -> None:
        """Drop all claims."""
        self._held.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def taken(self, run_id: str) -> bool:
        """Whether another coordinator has claimed the run."""
        if self._fd < 0 or run_id in self._held:
            return False
        found = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _flock(run_id, fcntl.F_WRLCK))
        kind: int = struct.unpack(_FLOCK, found)[0]
        return kind != fcntl.F_UNLCK

    def _lock(self, run_id: str, kind: int) -> bool:
        if self._fd < 0:
            return True
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
