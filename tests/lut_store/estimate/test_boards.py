"""How boards of one type differ: known ratios come back, and who lies outside is told from who does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lut_store.estimate.boards import compare, is_enough


def world(levels: list[float], *, operator_sd: float = 0.0, noise: float = 0.002, seed: int = 0, items: int = 80):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1e-4, 1e-2, items)
    own = truth * np.array(levels)[:, None] * np.exp(operator_sd * rng.standard_normal((len(levels), items)))
    value = own * np.exp(noise * rng.standard_normal(own.shape))
    return [f"pi-{number}" for number in range(len(levels))], value, noise * value


def test_levels_and_both_spreads_are_found() -> None:
    levels = [1.0, 1.04, 0.97, 1.01, 0.98]
    found = compare(*world(levels, operator_sd=0.01))
    np.testing.assert_allclose(found.ratio, np.array(levels) / np.median(levels), rtol=0.005)
    assert found.level_rel_sd == pytest.approx(np.std(np.log(levels), ddof=1), rel=0.15)
    assert found.operator_rel_sd == pytest.approx(0.01, rel=0.15)
    assert found.outside == ()


def test_noise_is_no_spread() -> None:
    found = compare(*world([1.0, 1.0, 1.0, 1.0], noise=0.01))
    assert found.level_rel_sd < 0.002
    assert found.operator_rel_sd < 0.004
    assert found.outside == ()


@pytest.mark.parametrize("level", [0.9, 1.08])
def test_the_one_outside_is_named(level: float) -> None:
    found = compare(*world([1.0, 1.01, level, 0.995]))
    assert found.outside == ("pi-2",)
    assert abs(found.robust_z[2]) > 3.5


def test_of_two_nobody_is_outside() -> None:
    found = compare(*world([1.0, 1.5]))
    assert found.outside == ()
    assert np.isnan(found.robust_z).all()
    np.testing.assert_allclose(found.ratio[1] / found.ratio[0], 1.5, rtol=0.01)


def test_operators_that_a_board_lacks_are_not_compared() -> None:
    names, value, se = world([1.0, 1.02, 0.98])
    value[0, :40], value[1, 0] = np.nan, -1.0
    found = compare(names, value, se)
    np.testing.assert_allclose(found.ratio, [1.0, 1.02, 0.98], rtol=0.005)
    value[0, 5:] = np.nan
    nothing = compare(names, value, se)
    np.testing.assert_array_equal(nothing.ratio, 1.0)
    assert np.isnan(nothing.rel_sd)


def test_a_board_that_knows_half_of_its_operators_is_compared() -> None:
    _, (value, _), (se, _) = world([1.0, 1.0], items=10)
    assert is_enough(value, se)
    se[:5] = np.nan
    assert is_enough(value, se)
    value[5] = np.nan
    assert not is_enough(value, se)


def test_the_entries_are_less_certain_with_few_boards_that_differ() -> None:
    few, many = compare(*world([1.0, 1.05])), compare(*world([1.0, 1.05] * 5))
    value, se = np.ones(3), np.full(3, 0.002)
    assert (few.combined_se(value, se) > many.combined_se(value, se)).all()
    assert (many.combined_se(value, se) > se).all()
    assert few.prediction_rel_se(0.003) > few.level_rel_sd


@given(
    st.integers(2, 6).flatmap(
        lambda boards: st.lists(
            st.lists(st.floats(1e-9, 1e9) | st.just(float("nan")), min_size=4, max_size=4),
            min_size=boards,
            max_size=boards,
        )
    )
)
def test_whatever_was_measured_the_spread_is_a_number_or_not_known(rows: list[list[float]]) -> None:
    value = np.array(rows)
    found = compare([str(n) for n in range(len(rows))], value, 0.01 * value)
    assert np.isfinite(found.ratio).all()
    for spread in (found.level_rel_sd, found.operator_rel_sd):
        assert np.isnan(spread) or spread >= 0
