"""Knob settings: HANNA's thirty, and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.cost import CostTable
from nas.grid import DOMINANCE, Knobs, hanna30, load_grid, previewed
from protos.errors import BadInputError
from tests.lut_store.samples import lut_of, space_of


@pytest.mark.parametrize("size", [4, 16])
def test_thirty_settings_half_of_them_dominated_by_energy(size: int) -> None:
    uniform = CostTable.from_lut(lut_of(space_of(((1, 16, 1), (2, 24, 2)), size=size))).uniform()
    seen = previewed(hanna30(), uniform, normalise=True)
    assert len({setting.knobs for setting in seen}) == 30
    assert [setting.dominant for setting in seen].count("energy") == 15
    for setting in seen:
        ratio = setting.v_energy / setting.v_latency
        assert max(ratio, 1 / ratio) == pytest.approx(DOMINANCE)


def test_the_papers_example() -> None:
    """α 0.5, β 1.5, γ 0.5, δ 0.5 at 3.5 s and 18.43 J (arXiv 1906.07214, section 5.1)."""
    (seen,) = previewed([Knobs(0.5, 1.5, 0.5, 0.5)], (3.5, 18.43), normalise=False)
    assert seen.v_latency == pytest.approx(0.5 * 3.5**1.5)
    assert seen.v_energy == pytest.approx(0.5 * 18.43**0.5)
    assert seen.dominant == "latency"


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "grid.csv"
    path.write_text("alpha,beta,gamma,delta\n0.5,1.5,0.5,0.5\n1,1,0,1\n")
    assert load_grid(str(path)) == (Knobs(0.5, 1.5, 0.5, 0.5), Knobs(1.0, 1.0, 0.0, 1.0))
    assert load_grid("hanna30") == hanna30()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha,beta,gamma\n1,1,1\n", "must have the columns alpha, beta, gamma, delta"),
        ("alpha,beta,gamma,delta\n", "at least one line"),
        ("alpha,beta,gamma,delta\n1,1,1,1\n1,1,x,1\n", "line 3: .* must be numbers"),
        ("alpha,beta,gamma,delta\n1,1,1\n", "line 2: .* must be numbers"),
        ("alpha,beta,gamma,delta\n-1,1,1,1\n", "line 2: alpha is -1.0"),
        ("alpha,beta,gamma,delta\nnan,1,1,1\n", "line 2: alpha is nan"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "grid.csv"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message):
        load_grid(str(path))


def test_unknown_grids() -> None:
    with pytest.raises(BadInputError, match="unknown grid 'hanna31'; there is hanna30"):
        load_grid("hanna31")
    with pytest.raises(BadInputError, match="cannot be read"):
        load_grid("nowhere.csv")
