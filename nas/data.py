"""Images for searches and trainings, as tensors in memory, at the resolution of the space.

`digits` are scikit-learn's real handwritten digits (1,797 of 8×8, part of the package), `synthetic` is seeded noise
with a pattern for each class; `cifar10` and `cifar100` (nas/data_cifar.py) and `folder` (nas/data_folder.py) read what
the user has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lut_store.metric import Array
from nas.config import DATASETS, SearchConfig
from nas.data_cifar import load_cifar
from nas.data_folder import load_folder
from protos.errors import BadInputError, unknown
from protos.types import SearchSpace

TEST_SHARE = 0.2  # of images that have no test set of their own
SYNTHETIC = 2000
SPLIT_SEED = 1906  # which images are the test set does not depend on the search's seed
CHUNK = 4096  # images that are converted at a time: 50,000 of 3 × 32 × 32 are 0.6 GB as it is
LEAST_SPREAD = 1e-6
WHITE = 255

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]  # (N, C, H, W): bytes, or numbers around 0 to 1
Raw = tuple[Pixels, npt.NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Images:
    """x: (N, C, H, W) float, each channel standardised; y: (N,) class numbers."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def part(self, index: Tensor) -> Images:
        return Images(self.x[index], self.y[index])


@dataclass(frozen=True)
class Source:
    """Which images; the fields of SearchConfig with the same names."""

    data: str = "digits"
    data_folder: str = ""
    samples: int = 0
    noise: float = 0.0
    shift: int = 0

    def __post_init__(self) -> None:
        if self.data not in DATASETS:
            raise unknown("data", self.data, DATASETS)


@dataclass(frozen=True, eq=False)
class Dataset:
    """mean and spread (C,): of the training images, with bytes counted from 0 to 1; x = (pixel − mean) / spread."""

    train: Images
    test: Images
    classes: tuple[str, ...]
    mean: Array
    spread: Array


def load_images(config: SearchConfig, space: SearchSpace) -> tuple[Images, Images]:
    """Training and test images of a search.

    Raises BadInputError as `load_dataset`, and when the images cannot be shared out between weights and θ.
    """
    found = load_dataset(Source(config.data, config.data_folder, config.samples, config.noise, config.shift), space)
    count = len(found.train)
    if not 1 <= int(count * config.weight_share) < count:
        raise BadInputError(f"{count} images cannot be shared out between weights and θ; take more samples")
    return found.train, found.test


def load_dataset(source: Source, space: SearchSpace) -> Dataset:
    """The images of `source`, resized to what `space` takes.

    Raises BadInputError when an archive or a folder is missing or damaged, and when the space has fewer outputs than
    there are classes.
    """
    _, channels, height, width = space.input_shape
    classes, train, test = _raw(source, space)
    outputs = space.head[-1].out_channels if space.head else 0
    if outputs < len(classes):
        raise BadInputError(f"{source.data} has {len(classes)} classes; space {space.name} has {outputs} outputs")
    if train[0].shape[1] not in (1, channels):
        raise BadInputError(f"the images have {train[0].shape[1]} channels; space {space.name} takes {channels}")
    kept = np.random.default_rng(SPLIT_SEED).permutation(len(train[1]))[: source.samples or None]
    train = train[0][kept], train[1][kept]
    mean, spread = _moments(train[0])
    first, second = (
        Images(
            _made_harder(_standardised(x, mean, spread, (channels, height, width)), source, part),
            torch.from_numpy(y.astype(np.int64)),
        )
        for part, (x, y) in enumerate((train, test))
    )
    return Dataset(first, second, classes, *(np.broadcast_to(v, channels).copy() for v in (mean, spread)))


def _raw(source: Source, space: SearchSpace) -> tuple[tuple[str, ...], Raw, Raw]:
    """Class names, training and test images."""
    if source.data in ("cifar10", "cifar100"):
        train, test = load_cifar(source.data, Path(source.data_folder))
        return _numbered(100 if source.data == "cifar100" else 10), train, test
    if source.data == "folder":
        names, own, others = load_folder(Path(source.data_folder), space.input_shape[1:])
        return names, *(_split(*own) if others is None else (own, others))
    if source.data == "digits":
        return _numbered(10), *_split(*_digits())
    images, labels = _synthetic(space)
    return _numbered(int(labels.max()) + 1), *_split(images, labels)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


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


def _split(x: Pixels, y: npt.NDArray[np.int64]) -> tuple[Raw, Raw]:
    order = np.random.default_rng(SPLIT_SEED).permutation(len(y))
    cut = int(len(y) * TEST_SHARE)
    return (x[order[cut:]], y[order[cut:]]), (x[order[:cut]], y[order[:cut]])


# ---- from pixels to tensors ------------------------------------------------------------------------------------------


def _moments(x: Pixels) -> tuple[Array, Array]:
    """Mean and spread of each channel, (C,) each, with bytes counted from 0 to 1."""
    if x.dtype != np.uint8:
        return x.mean((0, 2, 3), dtype=np.float64), np.maximum(x.std((0, 2, 3), dtype=np.float64), LEAST_SPREAD)
    values = np.arange(WHITE + 1) / WHITE
    # A table of the 256 values of a byte, because a copy in float64 of all of them would be eight times as large.
    counts = np.array([np.bincount(x[:, channel].ravel(), minlength=WHITE + 1) for channel in range(x.shape[1])])
    share = counts / counts.sum(axis=1, keepdims=True)  # (C, 256)
    mean = share @ values
    return mean, np.maximum(np.sqrt(np.maximum(share @ values**2 - mean**2, 0.0)), LEAST_SPREAD)


def _standardised(x: Pixels, mean: Array, spread: Array, shape: tuple[int, int, int]) -> Tensor:
    """(N, C, H, W) float32 of that shape: bilinear, and a grey image in every channel."""
    made = torch.empty((len(x), *shape))
    scale = WHITE if x.dtype == np.uint8 else 1
    middle, width = (torch.from_numpy(v.astype(np.float32))[:, None, None] for v in (mean * scale, spread * scale))
    for start in range(0, len(x), CHUNK):
        part = torch.from_numpy(np.ascontiguousarray(x[start : start + CHUNK], np.float32))
        part = (part - middle) / width
        if part.shape[2:] != shape[1:]:
            smaller = part.shape[2] > shape[1] or part.shape[3] > shape[2]
            part = torch.nn.functional.interpolate(
                part, shape[1:], mode="bilinear", align_corners=False, antialias=smaller
            )
        made[start : start + CHUNK] = part  # grey is broadcast
    return made


def _made_harder(x: Tensor, source: Source, part: int) -> Tensor:
    """Every image moved (its edge is continued) and under noise: always the same for the same `source` and `part`."""
    generator = torch.Generator().manual_seed(SPLIT_SEED + part)
    if source.shift:
        x = moved(x, source.shift, generator)
    if source.noise:
        x = x + source.noise * torch.randn(x.shape, generator=generator)
    return x


def moved(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each image of x (N, C, H, W) moved by −most to most pixels either way; its edge is continued."""
    height, width = x.shape[2:]
    dy, dx = torch.randint(-most, most + 1, (2, len(x)), generator=generator)
    rows = (torch.arange(height) + dy[:, None]).clamp(0, height - 1)  # (N, H)
    columns = (torch.arange(width) + dx[:, None]).clamp(0, width - 1)  # (N, W)
    image = torch.arange(len(x))[:, None, None]
    # Advanced indices apart from each other put their axes first: (N, H, W, C).
    return x[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
