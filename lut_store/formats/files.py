"""Bytes in files: whole or not at all, never more than a limit."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from pathlib import Path

from protos.errors import BadInputError, StorageError

# The document of 22 × 9 cells is 50 kB; several hundred times as much is not a LUT but a mistake or an attack.
MAX_FILE_BYTES = 32 << 20
MAX_DOCUMENT_BYTES = 32 << 20


def read(path: Path, limit: int | None = None) -> bytes:
    """Raises BadInputError when the file cannot be read or is larger than `limit` (by default MAX_FILE_BYTES)."""
    limit = MAX_FILE_BYTES if limit is None else limit
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise BadInputError(f"{path} is larger than {limit >> 20} MiB, which no LUT is")
    return data


def text_of(data: bytes, source: str) -> str:
    """The UTF-8 text, without its byte order mark. Raises BadInputError naming `source` and the line of the fault."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInputError(
            f"{source}, line {line}: byte {error.start} is not UTF-8, so this is no text file"
        ) from error


def write(path: Path, data: bytes) -> None:
    """Raises StorageError; then what stood at `path` before still stands there."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            part.chmod(0o666 & ~umask)  # mkstemp makes files for the owner alone; a LUT is made to be shared
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def compress(data: bytes) -> bytes:
    """gzip without a time stamp, so that equal data give equal bytes."""
    return gzip.compress(data, compresslevel=6, mtime=0)


def decompress(data: bytes, source: str) -> bytes:
    """Raises BadInputError when `data` is not one whole gzip member, or one that grows beyond MAX_DOCUMENT_BYTES."""
    unpack = zlib.decompressobj(wbits=31)
    try:
        text = unpack.decompress(data, MAX_DOCUMENT_BYTES)
    except zlib.error as error:
        raise BadInputError(f"{source} is not a .lut file, or is damaged: {error}") from error
    if unpack.unconsumed_tail:
        raise BadInputError(f"{source} unpacks to more than {MAX_DOCUMENT_BYTES >> 20} MiB, which no LUT does")
    if not unpack.eof:
        raise BadInputError(f"{source} is cut off: its compressed data do not end")
    if unpack.unused_data:
        raise BadInputError(f"{source} goes on after its end with {len(unpack.unused_data)} bytes that are no LUT")
    return text
