"""Images: what comes with the packages, and archives that are whole, missing or damaged."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nas import data
from nas.config import SearchConfig
from nas.data import ARCHIVES, load_images
from protos.errors import BadInputError
from tests.lut_store.samples import space_of

SPACE = space_of(((1, 16, 1),), size=16)  # takes 3 × 32 × 32, has 10 outputs


def test_digits_are_up_sampled_to_the_space() -> None:
    train, test = load_images(SearchConfig(), SPACE)
    assert len(train) + len(test) == 1797
    assert train.x.shape[1:] == (3, 32, 32)
    assert sorted(set(train.y.tolist())) == list(range(10))
    assert abs(float(train.x.mean())) < 0.05
    assert torch.equal(train.x[:, 0], train.x[:, 1])


def test_synthetic_is_the_same_every_time_and_can_be_short() -> None:
    config = SearchConfig(data="synthetic", samples=50, seed=3)
    one, test = load_images(config, SPACE)
    two, _ = load_images(replace(config, seed=4), SPACE)
    assert len(one) == 50
    assert len(test) == 400
    assert torch.equal(one.x, two.x)


def test_what_cannot_be_shared_out_or_told_apart() -> None:
    with pytest.raises(BadInputError, match="1 images cannot be shared out"):
        load_images(SearchConfig(samples=1), SPACE)
    small = replace(SPACE, name="small", head=(replace(SPACE.head[0]), replace(SPACE.head[1], out_channels=5)))
    with pytest.raises(BadInputError, match="digits has 10 classes; space small has 5 outputs"):
        load_images(SearchConfig(), small)


def archive(folder: Path, name: str, images: int = 4) -> None:
    """A small archive of the same form."""
    kind = ARCHIVES[name]
    rng = np.random.default_rng(0)
    with tarfile.open(folder / kind.name, "w:gz") as tar:
        for part in (*kind.train, kind.test):
            labels = rng.integers(0, 10, (images, kind.labels))
            pixels = rng.integers(0, 256, (images, 3072))
            content = np.concatenate([labels, pixels], axis=1).astype(np.uint8).tobytes()
            entry = tarfile.TarInfo(part)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize(("name", "count"), [("cifar10", 20), ("cifar100", 4)])
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    archive(tmp_path, name)
    config = SearchConfig(data=name, data_folder=str(tmp_path))
    with pytest.raises(BadInputError, match="is damaged: its MD5 is"):
        load_images(config, SPACE)
    digest = hashlib.md5((tmp_path / ARCHIVES[name].name).read_bytes()).hexdigest()
    monkeypatch.setitem(data.ARCHIVES, name, replace(ARCHIVES[name], md5=digest))
    train, test = load_images(config, SPACE)
    assert (len(train), len(test)) == (count, 4)
    assert train.x.shape[1:] == (3, 32, 32)


def test_a_missing_archive_says_where_it_is_from(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"cifar-10-binary.tar.gz cannot be read.*download.*cs.toronto.edu"):
        load_images(SearchConfig(data="cifar10", data_folder=str(tmp_path)), SPACE)
