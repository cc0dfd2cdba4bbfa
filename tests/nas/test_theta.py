"""θ files: HANNA's text, padding that never wins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.theta import allowed_cells, argmax_choices, read_theta, sampled_choices, uniform_theta, write_theta
from protos.errors import BadInputError
from tests.hanna import FOLDER, hanna_lut, needs_tables
from tests.lut_store.samples import space_of

SPACE = space_of(((1, 16, 1), (3, 24, 2)))


def test_there_and_back(tmp_path: Path) -> None:
    theta = np.random.default_rng(0).normal(size=SPACE.shape)
    write_theta(tmp_path / "theta.txt", theta, SPACE)
    expected = np.where(allowed_cells(SPACE), theta, 0.0)
    assert np.array_equal(read_theta(tmp_path / "theta.txt", SPACE), expected)
    assert (tmp_path / "theta.txt").read_text().splitlines()[0].endswith(" 0.0")


@given(st.floats(-5, -1e-3), st.floats(0, 1e9))
def test_padding_never_wins(logit: float, padding: float) -> None:
    theta = np.full(SPACE.shape, logit)
    theta[:, 8] = padding
    choices = argmax_choices(theta, SPACE)
    assert choices[:2] == (0, 0)
    SPACE.check_choices(choices)


def test_padding_of_a_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "theta.txt"
    path.write_text("-1 -2 -3 -4 -5 -6 -7 -8 99\n" * 4)
    assert read_theta(path, SPACE)[0, 8] == 0.0
    assert argmax_choices(read_theta(path, SPACE), SPACE) == (0, 0, 8, 8)


def test_uniform_theta_prefers_the_first() -> None:
    assert argmax_choices(uniform_theta(SPACE), SPACE) == (0, 0, 0, 0)


def test_bad_files_name_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "theta.txt"
    path.write_text("0 0 0 0 0 0 0 0 0\n" * 3)
    with pytest.raises(BadInputError, match="has 3 lines; space sample has 4"):
        read_theta(path, SPACE)
    path.write_text("0 0 0 0 0 0 0 0 0\n" * 3 + "0 0 0 0 nan 0 0 0 0\n")
    with pytest.raises(BadInputError, match="line 4, column 5: 'nan' is not finite"):
        read_theta(path, SPACE)


@needs_tables
def test_the_papers_network() -> None:
    space = hanna_lut().space
    theta = read_theta(FOLDER / "theta_model29.txt", space)
    assert argmax_choices(theta, space) == (1, 7, 8, 8, 8, 7, 8, 8, 8, 5, 8, 8, 8, 1, 8, 8, 8, 1, 8, 8, 8, 1)


def test_samples_follow_the_softmax_over_what_is_allowed() -> None:
    theta = np.zeros(SPACE.shape)
    theta[:, 8] = np.log(8)  # half of the probability, where it is allowed
    samples = np.array(sampled_choices(theta, SPACE, 4000, 0))
    assert (samples[:, :2] != 8).all()
    assert (samples[:, 2] == 8).mean() == pytest.approx(0.5, abs=0.03)
    assert (samples[:, 0] == 3).mean() == pytest.approx(1 / 8, abs=0.03)
    assert sampled_choices(theta, SPACE, 5, 1) == sampled_choices(theta, SPACE, 5, 1)
