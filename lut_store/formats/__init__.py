"""Files that hold a LUT; the ending chooses the format (docs/lut-format.md).

.lut (one compressed document, what travels over gRPC too), .json (the same document, readable) and .parquet (the frame
with the document in the file's metadata) load back losslessly; .csv is the frame alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lut_store.formats import files, json_text, parquet
from lut_store.formats.decode import from_text
from protos.errors import BadInputError

if TYPE_CHECKING:  # lut_store.lut imports this module when it is asked to load or save
    from lut_store.lut import Lut

ENDINGS = (".lut", ".csv", ".json", ".parquet")
LOADABLE = (".lut", ".json", ".parquet")  # these hold everything


def to_bytes(lut: Lut) -> bytes:
    """The one-file form (.lut): equal LUTs give equal bytes."""
    return files.compress(json_text.canonical(lut).encode())


def from_bytes(data: bytes, source: str) -> Lut:
    """The LUT of the one-file form; `source` names it in messages. Raises BadInputError."""
    return from_text(files.decompress(data, source), source)


def _csv(lut: Lut) -> bytes:
    return lut.frame().to_csv(index=False).encode()


def _json(lut: Lut) -> bytes:
    return json_text.readable(lut).encode()


_WRITERS: dict[str, Callable[[Lut], bytes]] = {
    ".lut": to_bytes,
    ".csv": _csv,
    ".json": _json,
    ".parquet": parquet.to_bytes,
}
_READERS: dict[str, Callable[[bytes, str], Lut]] = {
    ".lut": from_bytes,
    ".json": from_text,
    ".parquet": parquet.from_bytes,
}


def save(lut: Lut, path: Path) -> None:
    """Write `lut`; the file is either whole or not there. Raises BadInputError for an unknown ending, StorageError."""
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise BadInputError(f"{path}: the ending chooses the format and must be one of {', '.join(ENDINGS)}")
    files.write(path, writer(lut))


def load(path: Path) -> Lut:
    """Raises BadInputError with file and field."""
    ending = path.suffix.lower()
    reader = _READERS.get(ending)
    if reader is None:
        why = "a .csv file holds the table alone, not the whole LUT" if ending == ".csv" else "not a LUT's ending"
        raise BadInputError(f"{path}: {why}; load one that ends in {', '.join(_READERS)}")
    return reader(files.read(path), str(path))


def read_as(ending: str, data: bytes, source: str) -> Lut:
    """The LUT in `data`, one of LOADABLE whatever the file is called; `source` names it. Raises BadInputError."""
    return _READERS[ending](data, source)


def save_as(ending: str, lut: Lut, path: Path) -> None:
    """`save` in the format of `ending`, one of ENDINGS, whatever the file is called."""
    files.write(path, _WRITERS[ending](lut))
