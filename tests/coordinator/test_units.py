from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.units import bytes_text, decimals_for, duration, percent, scale_for


@pytest.mark.parametrize(
    ("metric", "values", "unit"),
    [
        ("latency", [2.0, 3.0], "s"),
        ("latency", [0.31e-3, 0.5e-3], "ms"),
        ("latency", [80e-6, 120e-6, 1e-3], "µs"),
        ("energy", [0.02], "mJ"),
        ("energy", [4.0], "J"),
        ("latency", [np.nan, 0.0], "s"),
        ("energy", [1e-12], "nJ"),
    ],
)
def test_the_unit_fits_the_typical_value(metric: str, values: list[float], unit: str) -> None:
    assert scale_for(metric, values).unit == unit


def test_numbers_have_three_significant_digits_and_no_exponent() -> None:
    scale = scale_for("latency", [1e-3])
    assert scale.text(0.1234567e-3) == "0.123"
    assert scale.text(123.4567e-3) == "123"
    assert scale.text(0.0) == "0"
    assert scale.text(None) == scale.text(float("nan")) == "–"


@given(st.floats(min_value=1e-9, max_value=1e3))
def test_a_number_reads_back_within_its_digits(value: float) -> None:
    scale = scale_for("latency", [value])
    assert float(scale.text(value)) / scale.per_unit == pytest.approx(value, rel=0.006)


def test_percentages_have_a_true_minus_and_no_negative_zero() -> None:
    assert percent(-0.0123) == "−1.23 %"
    assert percent(0.0123) == "+1.23 %"
    assert percent(0.0123, sign=False) == "1.23 %"
    assert percent(-1e-9) == "0.00 %"
    assert percent(None) == percent(math.nan) == "–"


def test_durations_and_sizes() -> None:
    assert [duration(s) for s in (0, 59.6, 75, 3700, None, math.inf)] == ["0:00", "1:00", "1:15", "1:01:40", "–", "–"]
    assert bytes_text(950_000_000) == "906 MiB"
    assert bytes_text(None) == "–"
    assert bytes_text(5) == "5 B"


def test_decimals_of_a_table() -> None:
    assert decimals_for([120.0, 98.0, np.nan, 0.0]) == 0
    assert decimals_for([1.2, 3.4]) == 2
    assert decimals_for([]) == 2
    assert decimals_for([1e-7]) == 4
