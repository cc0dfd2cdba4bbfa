"""Images for searches, as tensors in memory, at the resolution of the space.

`digits` are scikit-learn's real handwritten digits (1,797 of 8×8, part of the package), `synthetic` is seeded noise
with a pattern for each class, `cifar10` and `cifar100` read the standard binary archives from a folder that the user
names.
"""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas.config import SearchConfig
from protos.errors import BadInputError
from protos.types import SearchSpace

TEST_SHARE = 0.2  # of `digits` and `synthetic`, which have no test set of their own
SYNTHETIC = 2000
SPLIT_SEED = 1906  # which images are the test set does not depend on the search's seed


@dataclass(frozen=True)
class _Archive:
    """The binary version: records of label bytes (the last one counts) and 3 × 32 × 32 bytes. No pickle is read."""

    name: str
    md5: str
    train: tuple[str, ...]
    test: str
    labels: int  # bytes
    classes: int


ARCHIVES = {
    "cifar10": _Archive(
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        tuple(f"cifar-10-batches-bin/data_batch_{n}.bin" for n in range(1, 6)),
        "cifar-10-batches-bin/test_batch.bin",
        1,
        10,
    ),
    "cifar100": _Archive(
        "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        ("cifar-100-binary/train.bin",),
        "cifar-100-binary/test.bin",
        2,
        100,
    ),
}
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True, eq=False)
class Images:
    """x: (N, C, H, W) float, each channel standardised; y: (N,) class numbers."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def part(self, index: Tensor) -> Images:
        return Images(self.x[index], self.y[index])


def load_images(config: SearchConfig, space: SearchSpace) -> tuple[Images, Images]:
    """Training and test images of `config.data`, resized to what `space` takes.

    Raises BadInputError when an archive is missing or damaged, when the space has fewer outputs than there are classes,
    and when no images are left to train on.
    """
    if config.data == "digits":
        train, test = _split(*_digits())
    elif config.data == "synthetic":
        train, test = _split(*_synthetic(space))
    else:
        train, test = _cifar(Path(config.data_folder), ARCHIVES[config.data])
    classes = int(max(train[1].max(), test[1].max())) + 1
    outputs = space.head[-1].out_channels if space.head else 0
    if outputs < classes:
        raise BadInputError(f"{config.data} has {classes} classes; space {space.name} has {outputs} outputs")
    kept = np.random.default_rng(SPLIT_SEED).permutation(len(train[1]))[: config.samples or None]
    train = train[0][kept], train[1][kept]
    if int(len(kept) * config.weight_share) < 1 or len(kept) - int(len(kept) * config.weight_share) < 1:
        raise BadInputError(f"{len(kept)} images cannot be shared out between weights and θ; take more samples")
    mean, spread = train[0].mean((0, 2, 3), keepdims=True), train[0].std((0, 2, 3), keepdims=True)
    first, second = (
        Images(_resized((x - mean) / np.maximum(spread, 1e-6), space), torch.from_numpy(y.astype(np.int64)))
        for x, y in (train, test)
    )
    return first, second


Raw = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def _digits() -> Raw:
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images[:, None] / 16).astype(np.float32), found.target.astype(np.int64)


def _synthetic(space: SearchSpace) -> Raw:
    rng = np.random.default_rng(SPLIT_SEED)
    classes = space.head[-1].out_channels if space.head else 10
    _, channels, height, width = space.input_shape
    patterns = rng.normal(size=(classes, channels, height, width))
    labels = rng.integers(0, classes, SYNTHETIC)
    noise = rng.normal(size=(SYNTHETIC, channels, height, width))
    return (0.3 * patterns[labels] + noise).astype(np.float32), labels


def _split(x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> tuple[Raw, Raw]:
    order = np.random.default_rng(SPLIT_SEED).permutation(len(y))
    cut = int(len(y) * TEST_SHARE)
    return (x[order[cut:]], y[order[cut:]]), (x[order[:cut]], y[order[:cut]])


def _cifar(folder: Path, archive: _Archive) -> tuple[Raw, Raw]:
    path = folder / archive.name
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read ({error.strerror}): download {archive.name} from {SOURCE} and name its folder "
            "with --set data_folder=DIR"
        ) from error
    if found != archive.md5:
        raise BadInputError(f"{path} is damaged: its MD5 is {found}, not {archive.md5}; download it again")
    with tarfile.open(path, "r:gz") as tar:
        parts = [_records(tar, name, archive) for name in (*archive.train, archive.test)]
    train = np.concatenate([x for x, _ in parts[:-1]]), np.concatenate([y for _, y in parts[:-1]])
    return train, parts[-1]


def _records(tar: tarfile.TarFile, name: str, archive: _Archive) -> Raw:
    member = tar.extractfile(name)
    if member is None:
        raise BadInputError(f"{archive.name} holds no file {name}")
    with member:
        data = np.frombuffer(member.read(), np.uint8)
    records = data.reshape(-1, archive.labels + 3 * 32 * 32)
    images = records[:, archive.labels :].reshape(-1, 3, 32, 32)
    return (images / np.float32(255)).astype(np.float32), records[:, archive.labels - 1].astype(np.int64)


def _resized(x: npt.NDArray[np.float32], space: SearchSpace) -> Tensor:
    """(N, C, H, W) of the space: bilinear, and a grey image in every channel."""
    _, channels, height, width = space.input_shape
    images = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    if images.shape[1] == 1:
        images = images.expand(-1, channels, -1, -1)
    if images.shape[1] != channels:
        raise BadInputError(f"the images have {images.shape[1]} channels; space {space.name} takes {channels}")
    if images.shape[2:] == (height, width):
        return images.contiguous()
    return torch.nn.functional.interpolate(images, (height, width), mode="bilinear", align_corners=False)
