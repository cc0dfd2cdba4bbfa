"""The HANNA text pair: what is kept, what is refused, and the authors' own tables where they are at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lut_store.formats import hanna
from lut_store.lut import Lut
from nas.space import load_space
from protos.errors import BadInputError
from protos.types import SearchSpace
from tests.hanna import FOLDER, needs_tables
from tests.lut_store.samples import lut_of, space_of

SPACE = space_of(((1, 16, 1), (2, 24, 2)))  # layers 0 and 1 without skip


def pair(tmp_path: Path, latency: np.ndarray, energy: np.ndarray) -> tuple[Path, Path]:
    paths = tmp_path / "speed.txt", tmp_path / "energy.txt"
    for path, grid in zip(paths, (latency, energy), strict=True):
        path.write_text(hanna.format_grid(grid))
    return paths


def grids(space: SearchSpace = SPACE) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(0.01, 1, space.shape), rng.uniform(1e-6, 1, space.shape)


def test_a_pair_keeps_its_numbers_and_claims_nothing_more(tmp_path: Path) -> None:
    latency, energy = grids()
    lut = hanna.load_pair(SPACE, "theirs", *pair(tmp_path, latency, energy))
    assert np.array_equal(lut.latency_s[lut.allowed], latency[lut.allowed])
    assert np.array_equal(lut.energy_j[lut.allowed], energy[lut.allowed])
    assert np.isnan(lut.latency_s[~lut.allowed]).all()
    assert lut.latency is not None
    assert np.isnan(lut.latency.se).all()
    assert not lut.fixed_included
    assert lut.predict([[0, 1, 8]])[0] == pytest.approx(
        [g[0, 0] + g[1, 1] + g[2, 8] for g in (latency, energy)], rel=1e-12
    )
    assert np.isnan(lut.predict_interval([[0, 1, 8]])).all()
    assert lut.provenance["origin"]["files"] == {"latency": "speed.txt", "energy": "energy.txt"}


def test_a_pair_goes_through_a_lut_file_without_loss(tmp_path: Path) -> None:
    paths = pair(tmp_path, *grids())
    hanna.load_pair(SPACE, "theirs", *paths).save(tmp_path / "theirs.lut")
    texts = hanna.dump_pair(Lut.load(tmp_path / "theirs.lut"))
    assert texts == tuple(path.read_text() for path in paths)


def test_the_digest_follows_the_evidence_not_the_place(tmp_path: Path) -> None:
    latency, energy = grids()
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    one = hanna.load_pair(SPACE, "theirs", *pair(first, latency, energy))
    assert one.digest == hanna.load_pair(SPACE, "theirs", *pair(second, latency, energy)).digest
    assert one.digest != hanna.load_pair(SPACE, "theirs", *pair(second, latency * 2, energy)).digest


def test_a_measured_lut_is_exported_with_zeros_where_nothing_is_allowed() -> None:
    lut = lut_of(SPACE)
    latency, _ = hanna.dump_pair(lut)
    grid = hanna.parse_grid(latency, "text", SPACE)
    assert np.array_equal(grid, np.where(lut.allowed, lut.latency_s, 0.0))


def test_what_the_format_cannot_hold_is_not_exported() -> None:
    lut = lut_of(SPACE, energy=False)
    with pytest.raises(BadInputError, match="holds no energy"):
        hanna.dump_pair(lut)
    assert lut.latency is not None
    value = lut.latency.value.copy()
    value[2, 3] = np.nan
    holed = replace(lut, latency=replace(lut.latency, value=value, corrected=value))
    with pytest.raises(BadInputError, match="layer 2, k3_e6 has no latency"):
        hanna.dump_pair(holed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "has 2 lines; space sample has 3 layers"),
        (lambda lines: [lines[0], lines[1] + " 1", lines[2]], "line 2: 10 numbers; space sample has 9"),
        (lambda lines: [lines[0], "", lines[2]], "line 2: 0 numbers"),
        (lambda lines: [lines[0], lines[1], "1 2 fast 4 5 6 7 8 9"], "line 3, column 3: 'fast' is no number"),
        (lambda lines: ["1 nan 3 4 5 6 7 8 9", *lines[1:]], "line 1, column 2: 'nan' is not finite"),
        (lambda lines: ["1 2 3 4 5 6 7 8 1e999", *lines[1:]], "line 1, column 9: '1e999' is not finite"),
        (lambda lines: ["-1 2 3 4 5 6 7 8 9", *lines[1:]], "line 1, column 1: -1 is negative"),
    ],
)
def test_bad_tables_name_file_line_and_column(tmp_path: Path, change: object, message: str) -> None:
    latency, energy = pair(tmp_path, *grids())
    energy.write_text("\n".join(change(energy.read_text().splitlines())))  # type: ignore[operator]
    with pytest.raises(BadInputError, match=message) as caught:
        hanna.load_pair(SPACE, "theirs", latency, energy)
    assert str(energy) in str(caught.value)


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    latency, energy = pair(tmp_path, *grids())
    energy.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInputError, match="no text file"):
        hanna.load_pair(SPACE, "theirs", latency, energy)
    with pytest.raises(BadInputError, match="cannot be read"):
        hanna.load_pair(SPACE, "theirs", latency, tmp_path / "nowhere.txt")


@given(st.text())
def test_any_text_is_a_grid_or_a_sentence(text: str) -> None:
    try:
        grid = hanna.parse_grid(text, "text", SPACE)
    except BadInputError:
        return
    assert grid.shape == SPACE.shape


@given(st.lists(st.floats(0, 1e9), min_size=27, max_size=27))
def test_numbers_survive_the_text(values: list[float]) -> None:
    grid = np.array(values).reshape(SPACE.shape)
    assert np.array_equal(hanna.parse_grid(hanna.format_grid(grid), "text", SPACE), grid)


@needs_tables
def test_the_authors_tables_come_back_as_they_are() -> None:
    space, paths = load_space("fbnet-cifar10"), (FOLDER / "rpi_speed.txt", FOLDER / "new_rpi_energy.txt")
    lut = hanna.load_pair(space, "rpi3b-hanna", *paths)
    for text, path in zip(hanna.dump_pair(lut), paths, strict=True):
        assert np.array_equal(np.loadtxt(text.splitlines()), np.loadtxt(path))
    assert lut.latency_s[1, 8] != lut.latency_s[1, 8]  # no skip on layer 1
    assert lut.latency_s[2, 8] == 0.128105401993
