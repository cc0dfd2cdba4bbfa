"""CIFAR-10 and CIFAR-100 from their standard archives, binary or Python version, in a folder that the user names.

An archive is read only when its checksum is the published one. The Python version holds pickles: they are read by an
unpickler that knows plain values and numpy arrays and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protos.errors import BadInputError

SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
SIZE = 3 * 32 * 32
UInt8Array = npt.NDArray[np.uint8]
Raw = tuple[UInt8Array, npt.NDArray[np.int64]]  # (N, 3, 32, 32), (N,)


@dataclass(frozen=True)
class Archive:
    """labels: bytes before each image in the binary version, of which the last one counts; 0 for the Python version."""

    name: str
    md5: str
    train: tuple[str, ...]
    test: str
    labels: int
    classes: int


ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "cifar10": (
        Archive(
            "cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
            tuple(f"cifar-10-batches-bin/data_batch_{n}.bin" for n in range(1, 6)),
            "cifar-10-batches-bin/test_batch.bin",
            labels=1,
            classes=10,
        ),
        Archive(
            "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            tuple(f"cifar-10-batches-py/data_batch_{n}" for n in range(1, 6)),
            "cifar-10-batches-py/test_batch",
            labels=0,
            classes=10,
        ),
    ),
    "cifar100": (
        Archive(
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
            ("cifar-100-binary/train.bin",),
            "cifar-100-binary/test.bin",
            labels=2,
            classes=100,
        ),
        Archive(
            "cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            ("cifar-100-python/train",),
            "cifar-100-python/test",
            labels=0,
            classes=100,
        ),
    ),
}


def load_cifar(name: str, folder: Path) -> tuple[Raw, Raw]:
    """Training and test images of "cifar10" or "cifar100".

    Raises BadInputError when neither archive is in the folder, or the one that is there is damaged.
    """
    archives = ARCHIVES[name]
    found = next((archive for archive in archives if (folder / archive.name).exists()), None)
    if found is None:
        names = " or ".join(archive.name for archive in archives)
        raise BadInputError(
            f"{folder} holds no {names}: download one of them from {SOURCE} and name its folder with data_folder=DIR"
        )
    path = folder / found.name
    _check_whole(path, found)
    try:
        with tarfile.open(path, "r:gz") as tar:
            parts = [_part(tar, member, found, path) for member in (*found.train, found.test)]
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise BadInputError(f"{path} cannot be unpacked: {error}") from error
    train = np.concatenate([x for x, _ in parts[:-1]]), np.concatenate([y for _, y in parts[:-1]])
    return train, parts[-1]


def _check_whole(path: Path, archive: Archive) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error
    if found != archive.md5:
        raise BadInputError(
            f"{path} is damaged: its MD5 is {found}, not {archive.md5}; download it again from {SOURCE}"
        )


def _part(tar: tarfile.TarFile, member: str, archive: Archive, path: Path) -> Raw:
    try:
        file = tar.extractfile(member)
    except KeyError:
        file = None
    if file is None:
        raise BadInputError(f"{path} holds no file {member}")
    with file:
        data = file.read()
    where = f"{path}, {member}"
    images, labels = _records(data, archive.labels, where) if archive.labels else _pickled(data, where)
    if not len(labels) or labels.min() < 0 or labels.max() >= archive.classes:
        raise BadInputError(f"{where}: the labels are not those of {archive.classes} classes")
    return images.reshape(-1, 3, 32, 32), labels


def _records(data: bytes, labels: int, where: str) -> Raw:
    length = labels + SIZE
    if len(data) % length:
        raise BadInputError(f"{where} has {len(data)} bytes, which are no whole records of {length}")
    records = np.frombuffer(data, np.uint8).reshape(-1, length)
    return records[:, labels:], records[:, labels - 1].astype(np.int64)


def _pickled(data: bytes, where: str) -> Raw:
    try:
        batch = _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
        images = np.asarray(batch["data"])
        labels = np.asarray(batch["labels"] if "labels" in batch else batch["fine_labels"], np.int64)
    # A pickle is a program: what runs off the rails in it can raise any of these.
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BadInputError(f"{where} is no batch of images: {error}") from error
    if images.dtype != np.uint8 or images.shape != (len(labels), SIZE):
        raise BadInputError(f"{where} holds images of shape {images.shape}, not {(len(labels), SIZE)} bytes")
    return images, labels


_RECONSTRUCT: Any = np.zeros(0).__reduce__()[0]  # a function; where it lives depends on numpy's version


def _latin1(text: str, _encoding: str) -> bytes:
    """How Python 3 writes bytes in an old protocol."""
    return text.encode("latin1")


class _PlainUnpickler(pickle.Unpickler):
    """Plain values and numpy arrays; whatever else a pickle asks for is refused."""

    _KNOWN: dict[tuple[str, str], Any] = {  # noqa: RUF012 — never changed
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image needs")
        return self._KNOWN[module, name]
