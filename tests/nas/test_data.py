"""Images: what comes with the packages, archives and folders that are whole, missing or damaged."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas import data_cifar
from nas.config import SearchConfig
from nas.data import Source, load_dataset, load_images, moved
from nas.data_cifar import ARCHIVES, Archive
from nas.data_folder import load_folder
from protos.errors import BadInputError
from tests.lut_store.samples import space_of

SPACE = space_of(((1, 16, 1),), size=16)  # takes 3 × 32 × 32, has 10 outputs
WIDE = replace(SPACE, head=(SPACE.head[0], replace(SPACE.head[1], out_channels=100)))


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
    with pytest.raises(BadInputError, match="unknown data 'digit'"):
        Source("digit")


def test_a_harder_task_is_the_same_every_time() -> None:
    plain, hard, again = (
        load_dataset(Source("synthetic", samples=40, noise=noise, shift=shift), SPACE)
        for noise, shift in ((0.0, 0), (0.5, 3), (0.5, 3))
    )
    assert torch.equal(hard.train.x, again.train.x)
    assert torch.equal(hard.test.x, again.test.x)
    assert not torch.equal(hard.train.x, plain.train.x)
    noisy = load_dataset(Source("synthetic", samples=40, noise=0.5), SPACE)
    assert float((noisy.train.x - plain.train.x).std()) == pytest.approx(0.5, rel=0.02)


def test_moved_images_continue_their_edge() -> None:
    x = torch.arange(2 * 3 * 5 * 4, dtype=torch.float32).reshape(2, 3, 5, 4)
    generator = torch.Generator().manual_seed(0)
    dy, dx = torch.randint(-2, 3, (2, 2), generator=torch.Generator().manual_seed(0)).tolist()
    y = moved(x, 2, generator)
    for n in range(2):
        for row in range(5):
            for column in range(4):
                source = min(max(row + dy[n], 0), 4), min(max(column + dx[n], 0), 3)
                assert torch.equal(y[n, :, row, column], x[n, :, source[0], source[1]])


# ---- CIFAR -----------------------------------------------------------------------------------------------------------


def python2_pickle(batch: dict[str, Any]) -> bytes:
    """The opcodes of the published batches: protocol 2, byte strings, numpy's old names."""
    out = io.BytesIO()
    out.write(b"\x80\x02}(")
    for key, value in batch.items():
        out.write(_string(key.encode()))
        if isinstance(value, np.ndarray):
            out.write(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85")
            out.write(_string(b"b") + b"tR(K\x01" + _whole(value.shape[0]) + _whole(value.shape[1]) + b"\x86")
            out.write(b"cnumpy\ndtype\n" + _string(b"u1") + b"K\x00K\x01\x87R(K\x03" + _string(b"|") + b"NNN")
            out.write(_whole(-1) + _whole(-1) + b"K\x00tb\x89" + _string(value.tobytes()) + b"tb")
        else:
            out.write(b"](" + b"".join(map(_whole, value)) + b"e")
    out.write(b"u.")
    return out.getvalue()


def _string(text: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(text)) + text


def _whole(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def content(kind: Archive, images: int = 4) -> bytes:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, (images, max(kind.labels, 1)))
    pixels = rng.integers(0, 256, (images, 3072)).astype(np.uint8)
    if kind.labels:
        return np.concatenate([labels, pixels], axis=1).astype(np.uint8).tobytes()
    name = "labels" if kind.classes == 10 else "fine_labels"
    return python2_pickle({name: labels[:, 0].tolist(), "data": pixels, "filenames": []})


def archive(folder: Path, kind: Archive, monkeypatch: pytest.MonkeyPatch, data: bytes | None = None) -> None:
    """A small archive of the same form, with its own checksum taken for the published one."""
    folder.mkdir(exist_ok=True)
    path = folder / kind.name
    with tarfile.open(path, "w:gz") as tar:
        for part in (*kind.train, kind.test):
            own = content(kind) if data is None else data
            entry = tarfile.TarInfo(part)
            entry.size = len(own)
            tar.addfile(entry, io.BytesIO(own))
    trust(path, kind, monkeypatch)


def trust(path: Path, kind: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    name = "cifar10" if kind.classes == 10 else "cifar100"
    known = tuple(replace(a, md5=digest) if a.name == kind.name else a for a in ARCHIVES[name])
    monkeypatch.setitem(data_cifar.ARCHIVES, name, known)


EVERY = [pytest.param(kind, id=kind.name) for kinds in ARCHIVES.values() for kind in kinds]


@pytest.mark.parametrize("kind", EVERY)
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Archive) -> None:
    name = "cifar10" if kind.classes == 10 else "cifar100"
    with monkeypatch.context() as trusted:
        archive(tmp_path, kind, trusted)
        found = load_dataset(Source(name, str(tmp_path)), WIDE)
    assert (len(found.train), len(found.test), len(found.classes)) == (4 * len(kind.train), 4, kind.classes)
    assert found.train.x.shape[1:] == (3, 32, 32)
    pixels = np.random.default_rng(0)
    pixels.integers(0, 10, (4, max(kind.labels, 1)))
    first = pixels.integers(0, 256, (4, 3072)).astype(np.uint8)[0].reshape(3, 32, 32) / 255
    shown = found.test.x[0].numpy() * found.spread[:, None, None] + found.mean[:, None, None]
    assert shown == pytest.approx(first, abs=1e-5)
    with pytest.raises(BadInputError, match="is damaged: its MD5 is"):
        load_dataset(Source(name, str(tmp_path)), WIDE)


def test_a_missing_archive_says_where_it_is_from(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"cifar-10-binary.tar.gz or cifar-10-python.*download.*cs.toronto.edu"):
        load_images(SearchConfig(data="cifar10", data_folder=str(tmp_path)), SPACE)


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("1 / 0",))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pickle.dumps(_Harm(), protocol=2), "it asks for"),
        (python2_pickle({"labels": [1, 2], "data": np.zeros((3, 3072), np.uint8)}), "not \\(2, 3072\\) bytes"),
        (python2_pickle({"data": np.zeros((3, 3072), np.uint8)}), "is no batch of images"),
        (python2_pickle({"labels": [11] * 3, "data": np.zeros((3, 3072), np.uint8)}), "not those of 10 classes"),
        (b"", "is no batch of images"),
    ],
)
def test_a_pickle_that_is_no_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, says: str) -> None:
    archive(tmp_path, ARCHIVES["cifar10"][1], monkeypatch, data)
    with pytest.raises(BadInputError, match=says):
        load_dataset(Source("cifar10", str(tmp_path)), SPACE)


def test_records_and_archives_that_are_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = ARCHIVES["cifar10"][0]
    archive(tmp_path, kind, monkeypatch, b"\x01" * 3074)
    with pytest.raises(BadInputError, match="3074 bytes, which are no whole records of 3073"):
        load_dataset(Source("cifar10", str(tmp_path)), SPACE)
    archive(tmp_path, kind, monkeypatch)
    path = tmp_path / kind.name
    path.write_bytes(path.read_bytes()[:-400])
    trust(path, kind, monkeypatch)
    with pytest.raises(BadInputError, match=r"cannot be unpacked|holds no file"):
        load_dataset(Source("cifar10", str(tmp_path)), SPACE)


# ---- folders ---------------------------------------------------------------------------------------------------------


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_a_folder_per_class(tmp_path: Path) -> None:
    for n in range(10):
        picture(tmp_path / "red" / f"{n}.png", (200, n, 0))
        picture(tmp_path / "blue" / f"{n}.JPG", (0, n, 200), (24, 40))
    (tmp_path / "red" / "notes.txt").write_text("no image")
    found = load_dataset(Source("folder", str(tmp_path)), SPACE)
    assert found.classes == ("blue", "red")
    assert (len(found.train), len(found.test)) == (16, 4)
    for images in (found.train, found.test):
        shown = images.x.numpy() * found.spread[:, None, None] + found.mean[:, None, None]
        assert ((shown[:, 0].mean((1, 2)) > 0.5) == (images.y.numpy() == 1)).all()


def test_a_folder_with_a_test_set_of_its_own(tmp_path: Path) -> None:
    for n, part in enumerate(("train", "train", "test")):
        for name in ("cat", "dog"):
            picture(tmp_path / part / name / f"{n}.png", (n * 50, 100, 30))
    found = load_dataset(Source("folder", str(tmp_path)), SPACE)
    assert (len(found.train), len(found.test)) == (4, 2)
    picture(tmp_path / "test" / "horse" / "1.png", (1, 2, 3))
    with pytest.raises(BadInputError, match="test/horse: there is no such class"):
        load_dataset(Source("folder", str(tmp_path)), SPACE)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nowhere cannot be read"):
        load_dataset(Source("folder", str(tmp_path / "nowhere")), SPACE)
    with pytest.raises(BadInputError, match="holds 0 folders; it must hold one per class"):
        load_dataset(Source("folder", str(tmp_path)), SPACE)
    picture(tmp_path / "cat" / "1.png", (1, 2, 3))
    (tmp_path / "dog").mkdir()
    with pytest.raises(BadInputError, match="dog holds no image"):
        load_dataset(Source("folder", str(tmp_path)), SPACE)
    (tmp_path / "dog" / "1.png").write_bytes(b"\x89PNG no image")
    with pytest.raises(BadInputError, match=r"dog/1\.png is no image that can be read"):
        load_dataset(Source("folder", str(tmp_path)), SPACE)


@settings(max_examples=60, deadline=None)
@given(
    at=st.integers(0, 400),
    value=st.integers(0, 255),
    cut=st.integers(0, 400),
    ending=st.sampled_from(("png", "jpg", "gif")),
)
def test_a_damaged_image_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, cut: int, ending: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        path = folder / name / f"1.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 8, 3)).astype(np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    path.write_bytes(data[: max(len(data) - cut, 0)])
    try:
        _, (x, _), _ = load_folder(folder, (3, 8, 8))
        assert x.shape == (2, 3, 8, 8)
    except BadInputError as error:
        if str(path) not in str(error):
            raise
    finally:
        for name in ("a", "b"):
            for left in (folder / name).iterdir():
                left.unlink()
