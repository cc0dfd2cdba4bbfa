"""Every measurement is on the board's disk before it is offered, and stays there until the coordinator has said that
it is durable.

One file per measurement: `SEQUENCE-ID.measurement`, holding a header (magic, CRC32 and length of the rest) and the
serialised message. Files are written beside, synced and renamed, so that a crash leaves a whole file or none. A file
that cannot be true is moved to `corrupt/` and named in the log; the others are kept.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from protos import common_pb2
from protos.convert import to_message
from protos.errors import BadInputError, StorageError
from protos.types import Measurement

log = logging.getLogger(__name__)

LIMIT_BYTES = 256 << 20
SUFFIX = ".measurement"
MAGIC = b"EDGELUT1"
HEADER = struct.Struct("<8sII")  # magic, CRC32 of the payload, its length


class SpoolFullError(StorageError):
    """The spool has no room: nothing was written, nothing was lost, and it can be tried again when there is room."""


@dataclass(frozen=True)
class Entry:
    """A spooled measurement that has not been acknowledged."""

    id: str
    task_id: str
    fence: int
    path: Path
    size_bytes: int


class Spool:
    """The unacknowledged measurements below `directory`, in the order in which they were taken.

    Raises BadInputError when the directory cannot be used, or another agent is using it.
    """

    def __init__(self, directory: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._lock_fd = _lock(directory)
        self._index = threading.Lock()  # `put` may run in a thread; never held while the disk works
        self._entries: dict[str, Entry] = {}
        self._next = 0
        self._load()
        self._used_bytes = sum(entry.size_bytes for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, measurement_id: str) -> bool:
        return measurement_id in self._entries

    def entries(self) -> Iterator[Entry]:
        """What is there now, oldest first; entries may come and go while this is iterated."""
        return iter(tuple(self._entries.values()))

    def put(self, measurement: Measurement) -> Entry:
        """Store it durably. Raises SpoolFullError, with a sentence, when the spool's limit or the disk has no room."""
        payload = to_message(measurement).SerializeToString()
        size = HEADER.size + len(payload)
        with self._index:
            if self._used_bytes + size > self._limit_bytes:
                raise SpoolFullError(
                    f"the spool {self._directory} holds {self._used_bytes / 1e6:.1f} MB in {len(self)} measurements "
                    f"that no coordinator has acknowledged, and its limit is {self._limit_bytes / 1e6:.1f} MB; "
                    "measuring goes on when the coordinator takes some"
                )
            path = self._directory / f"{self._next:012d}-{measurement.id}{SUFFIX}"
            self._next += 1
            self._used_bytes += size
        try:
            _write(path, HEADER.pack(MAGIC, zlib.crc32(payload), len(payload)) + payload)
        except OSError as error:
            with self._index:
                self._used_bytes -= size
            raise SpoolFullError(f"the spool {self._directory} cannot be written: {error.strerror}") from error
        entry = Entry(measurement.id, measurement.task_id, measurement.fence, path, size)
        with self._index:
            self._entries[entry.id] = entry
        return entry

    def read(self, entry: Entry) -> common_pb2.Measurement | None:
        """The message of an entry; None when it is gone, or turned out to be damaged (it is then set aside)."""
        if entry.id not in self._entries:
            return None
        try:
            return _decode(entry.path.read_bytes())
        except (OSError, ValueError) as error:
            self._forget(entry)
            self._set_aside(entry.path, str(error))
            return None

    def discard(self, measurement_id: str) -> bool:
        """Delete what was acknowledged or refused; False when it is not there, which is harmless."""
        entry = self._entries.get(measurement_id)
        if entry is None:
            return False
        self._forget(entry)
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            log.error("spool: %s cannot be deleted (%s); it will be offered again, harmlessly", entry.path, error)
        return True

    def close(self) -> None:
        os.close(self._lock_fd)

    def _forget(self, entry: Entry) -> None:
        with self._index:
            del self._entries[entry.id]
            self._used_bytes -= entry.size_bytes

    def _load(self) -> None:
        for path in self._directory.glob("*.part"):  # the write that a crash interrupted; it was never offered
            path.unlink()
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            number, _, measurement_id = path.name.removesuffix(SUFFIX).partition("-")
            if number.isdigit():
                self._next = max(self._next, int(number) + 1)
            try:
                data = path.read_bytes()
                message = _decode(data)
                if message.id != measurement_id:
                    raise ValueError(f"it holds measurement {message.id!r}")
            except (OSError, ValueError) as error:
                self._set_aside(path, str(error))
                continue
            self._entries[message.id] = Entry(message.id, message.task_id, message.fence, path, len(data))

    def _set_aside(self, path: Path, reason: str) -> None:
        corrupt = self._directory / "corrupt"
        log.error("spool: %s is damaged (%s): set aside in %s; what it held is lost", path.name, reason, corrupt)
        try:
            corrupt.mkdir(exist_ok=True)
            path.replace(corrupt / path.name)
        except OSError as error:
            log.error("spool: %s cannot be set aside: %s", path, error)


def _lock(directory: Path) -> int:
    """A descriptor that holds the directory for this process alone."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadInputError(
            f"the state directory {directory} cannot be used: {error.strerror}; give another one with --state-dir"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise BadInputError(
            f"another agent uses the state directory {directory}; stop it, or give this one its own with --state-dir"
        ) from error
    return descriptor


def _write(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        _sync_directory(path.parent)
    except OSError:
        for leftover in (part, path):
            leftover.unlink(missing_ok=True)
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _decode(data: bytes) -> common_pb2.Measurement:
    """Raises ValueError with what is wrong."""
    if len(data) < HEADER.size:
        raise ValueError(f"{len(data)} bytes are too few")
    magic, crc, length = HEADER.unpack_from(data)
    payload = data[HEADER.size :]
    if magic != MAGIC:
        raise ValueError("it does not begin like a measurement")
    if len(payload) != length:
        raise ValueError(f"{len(payload)} of {length} bytes are there")
    if zlib.crc32(payload) != crc:
        raise ValueError("its checksum does not fit")
    try:
        return common_pb2.Measurement.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"it is no message: {error}") from error
