"""Images of one's own: a folder for each class, read by Pillow.

DIR/train/CLASS/IMAGE and DIR/test/CLASS/IMAGE, or DIR/CLASS/IMAGE, of which a fifth becomes the test set.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from protos.errors import BadInputError

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_IMAGES = 1_000_000
MODES = {1: "L", 3: "RGB"}
# What Pillow raises for files that are none, are cut off, or claim to be larger than any image should be.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
Raw = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]  # (N, C, H, W), (N,)


def load_folder(folder: Path, shape: tuple[int, int, int]) -> tuple[tuple[str, ...], Raw, Raw | None]:
    """Class names, training images and test images (None without a test folder) of `shape` (C, H, W).

    Images are scaled to cover H × W and cut to it from the middle. Raises BadInputError for a folder without classes, a
    class without images, classes that only the test set has, and a file that is no image.
    """
    if shape[0] not in MODES:
        raise BadInputError(f"the space takes images of {shape[0]} channels; a folder gives 1 (grey) or 3 (colour)")
    split = (folder / "train").is_dir()
    train = _classes(folder / "train" if split else folder)
    names = tuple(train)
    test = _classes(folder / "test") if split and (folder / "test").is_dir() else None
    if test is not None and (only := sorted(set(test) - set(names))):
        raise BadInputError(f"{folder / 'test' / only[0]}: there is no such class among those of {folder / 'train'}")
    return names, _images(train, names, shape), None if test is None else _images(test, names, shape)


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The images of every class, by name."""
    try:
        classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise BadInputError(
            f"{folder} cannot be read ({error.strerror}): name a folder with one folder of images per class with "
            "data_folder=DIR"
        ) from error
    if len(classes) < 2:
        raise BadInputError(f"{folder} holds {len(classes)} folders; it must hold one per class, at least two")
    found = {}
    for path in classes:
        images = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())
        if not images:
            raise BadInputError(f"{path} holds no image ({', '.join(ENDINGS)})")
        found[path.name] = images
    count = sum(map(len, found.values()))
    if count > MAX_IMAGES:
        raise BadInputError(f"{folder} holds {count} images; at most {MAX_IMAGES} are read into memory")
    return found


def _images(classes: dict[str, list[Path]], names: tuple[str, ...], shape: tuple[int, int, int]) -> Raw:
    paths = [(path, names.index(name)) for name, own in classes.items() for path in own]
    x = np.empty((len(paths), *shape), np.uint8)  # (N, C, H, W)
    for row, (path, _) in enumerate(paths):
        x[row] = _image(path, shape)
    return x, np.array([label for _, label in paths], np.int64)


def _image(path: Path, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    channels, height, width = shape
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened).convert(MODES[channels])
        fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    except _DAMAGED as error:
        raise BadInputError(f"{path} is no image that can be read, or is damaged: {error}") from error
    return np.asarray(fitted, np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
