"""What changed from one LUT to another, against changes that were planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lut_store.diff import UNIFORM, LutDiff, diff, welch_degrees
from lut_store.lut import Lut
from lut_store.metric import Metric
from protos.errors import BadInputError
from protos.types import CellRef, Configuration
from tests.lut_store.samples import fbnet, items_of, lut_of, random_choices, space_of

SPACE = fbnet()
ITEMS = items_of(SPACE)
REL_SE = 0.01


def measured(seed: int, planted: dict[int, float] | None = None, *, rel_se: float = REL_SE) -> Metric:
    """The same true costs, measured with noise; the items of `planted` have changed by a factor."""
    truth = 1e-3 * np.random.default_rng(99).uniform(0.5, 3.0, len(ITEMS))
    for item, factor in (planted or {}).items():
        truth[item] *= factor
    value = truth * (1 + REL_SE * np.random.default_rng(seed).standard_normal(len(ITEMS)))
    return Metric.from_items(SPACE, ITEMS, value, rel_se * value, np.full(len(ITEMS), 30), factor_rel_se=0.002)


def lut(metric: Metric, **changes: object) -> Lut:
    return replace(lut_of(SPACE), latency=metric, energy=None, **changes)  # type: ignore[arg-type]


def changed_items(found: LutDiff) -> set[int]:
    of_cell = {cell: index for index, item in enumerate(ITEMS) for cell in item.cells}
    return {of_cell[change.cells[0]] for change in found.metrics[0].changed}


def test_a_lut_does_not_differ_from_itself() -> None:
    own = lut_of(SPACE)
    found = diff(own, own)
    assert [m.metric for m in found.metrics] == ["latency", "energy"]
    for metric in found.metrics:
        assert metric.changed == ()
        assert metric.tested == len(metric.changes) == len(ITEMS)  # one test per operator, not per cell
        assert {change.relative for change in metric.changes} == {0.0}
        assert metric.totals[0].relative == 0
    assert found.record == ()


def test_planted_changes_are_found_and_little_else() -> None:
    planted = {3: 1.15, 20: 0.85, 50: 1.3, 90: 1.1}
    false = []
    for seed in range(20):
        found = changed_items(diff(lut(measured(seed)), lut(measured(100 + seed, planted))))
        assert {20, 50, 3} <= found
        false.append(len(found - set(planted)) / max(len(found), 1))
    assert np.mean(false) <= 0.10  # the rate that is promised is 0.05; twenty comparisons scatter around it
    largest = diff(lut(measured(0)), lut(measured(100, planted))).metrics[0].changed[0]
    assert largest.cells == ITEMS[50].cells
    assert largest.relative == pytest.approx(0.3, abs=0.06)


def test_without_any_change_most_comparisons_find_none() -> None:
    found = [len(changed_items(diff(lut(measured(seed)), lut(measured(500 + seed))))) for seed in range(20)]
    assert sum(count > 0 for count in found) <= 4  # each with probability 0.05


def test_a_common_shift_within_the_common_error_is_no_change() -> None:
    base = measured(0)
    moved = replace(base, value=1.03 * base.value, corrected=1.03 * base.corrected, factor_rel_se=0.03)
    assert diff(lut(base), lut(moved)).metrics[0].changed == ()
    certain = replace(moved, factor_rel_se=0.0)
    assert diff(lut(base), lut(certain)).metrics[0].totals[0].relative == pytest.approx(
        0.03 * (1 - base.fixed_corrected.sum() / _uniform(base)), abs=1e-3
    )


def _uniform(metric: Metric) -> float:
    allowed = lut(metric).allowed
    mixture = allowed / allowed.sum(axis=1, keepdims=True)
    return float(np.nansum(mixture * np.nan_to_num(metric.corrected)) + metric.fixed_corrected.sum())


def test_totals_are_those_of_predict() -> None:
    a, b = lut(measured(0)), lut(measured(1, {5: 1.5}))
    choices = random_choices(SPACE, 4, seed=3).tolist()
    uniform, *networks = diff(a, b, choices).metrics[0].totals
    assert uniform.name == UNIFORM
    assert uniform.choices is None
    assert (uniform.a, uniform.b) == pytest.approx((_uniform(a.latency), _uniform(b.latency)))  # type: ignore[arg-type]
    for row, total in zip(choices, networks, strict=True):
        assert total.choices == tuple(row)
        assert (total.a, total.b) == pytest.approx((a.predict([row])[0, 0], b.predict([row])[0, 0]))
        # Without the spread of networks around their sums, which is the networks' and not the tables', it is predict's.
        bare = replace(a, latency=replace(a.latency, residual_rel_sd=0.0))  # type: ignore[type-var]
        half = np.diff(bare.predict_interval([row])[0, 0])[0] / 2 / 1.959964
        other = replace(b, latency=replace(b.latency, residual_rel_sd=0.0))  # type: ignore[type-var]
        half_b = np.diff(other.predict_interval([row])[0, 0])[0] / 2 / 1.959964
        expected = np.hypot(half / total.a, half_b / total.b) * (1 + total.relative)
        assert total.relative_se == pytest.approx(expected, rel=1e-6)


def test_tables_without_uncertainty_are_shown_and_not_judged() -> None:
    bare = measured(0, rel_se=float("nan"))
    found = diff(lut(bare), lut(measured(1, {4: 2.0})))
    metric = found.metrics[0]
    assert metric.tested == 0
    assert metric.changed == ()
    assert max(change.relative for change in metric.changes) == pytest.approx(1.0, abs=0.1)
    assert f"{len(ITEMS)} of {len(ITEMS)} latency entries have no uncertainty" in found.notes[0]
    assert np.isnan(metric.totals[0].relative_se)


def test_cells_that_one_of_them_lacks() -> None:
    base = measured(0)
    value = base.value.copy()
    value[1, 2] = np.nan
    holed = replace(base, value=value, corrected=value)
    metric = diff(lut(holed), lut(base)).metrics[0]
    assert (metric.only_in_a, metric.only_in_b) == ((), (CellRef(1, 2),))
    assert np.isnan(metric.totals[0].a)
    assert CellRef(1, 2) not in {cell for change in metric.changes for cell in change.cells}


def test_what_was_made_differently_is_named() -> None:
    shared = {"runs": ["r1"], "evidence": {"sha256": "a"}, "rounds": 10, "plan": {"threads": 1}}
    devices = [{"name": "pi-01", "last_seen_s": 1.0, "facts": {"kernel": "6.1", "torch_version": "2.9.1"}}]
    other = [{"name": "pi-01", "last_seen_s": 2.0, "facts": {"kernel": "6.6", "torch_version": "2.9.1"}}]
    a = lut(measured(0), provenance={**shared, "devices": devices, "preset": "quick"})
    b = lut(
        measured(1),
        provenance={**shared, "rounds": 20, "devices": other, "software": {"git": "abc"}},
        configuration=Configuration("rpi3b", SPACE.name, threads=4),
    )
    found = diff(a, b)
    assert [(change.key, change.a, change.b) for change in found.record] == [
        ("configuration.threads", 1, 4),
        ("devices.facts.kernel", "6.1", "6.6"),
        ("preset", "quick", None),
        ("software.git", None, "abc"),
    ]
    assert "both rest on run r1" in " ".join(found.notes)
    halves = diff(lut_of(SPACE), lut(measured(0)))
    assert [m.metric for m in halves.metrics] == ["latency"]
    assert "only rpi3b/fbnet-cifar10" in halves.notes[0]
    assert halves.notes[0].endswith("holds energy")


def test_what_cannot_be_compared() -> None:
    with pytest.raises(BadInputError, match=r"are of different spaces .*only tables of the same operators"):
        diff(lut_of(SPACE), lut_of(space_of()))
    with pytest.raises(BadInputError, match="layer 0: skip is not allowed"):
        diff(lut_of(SPACE), lut_of(SPACE), [[8] * 22])
    for rate in (0.0, 1.0, float("nan")):
        with pytest.raises(BadInputError, match="must lie between 0 and 1"):
            diff(lut_of(SPACE), lut_of(SPACE), fdr=rate)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.5, 2.0), st.integers(0, len(ITEMS) - 1))
def test_there_and_back(seed: int, factor: float, item: int) -> None:
    a, b = lut(measured(seed)), lut(measured(seed + 1, {item: factor}))
    there, back = diff(a, b).metrics[0], diff(b, a).metrics[0]
    assert {change.cells for change in there.changed} == {change.cells for change in back.changed}
    for one, other in zip(there.totals, back.totals, strict=True):
        assert (1 + one.relative) * (1 + other.relative) == pytest.approx(1)


def test_few_samples_need_a_larger_change() -> None:
    many = lut(measured(1)), lut(measured(2, {7: 1.08}))
    few = [replace(one, latency=replace(one.latency, n=np.minimum(one.latency.n, 3))) for one in many if one.latency]
    assert 7 in changed_items(diff(*many))
    assert changed_items(diff(*few)) == set()


def test_degrees_of_freedom() -> None:
    one, none = np.ones(1), np.full(1, np.nan)
    assert welch_degrees(one, one, 10 * one, 10 * one) == pytest.approx(18)  # the textbook's n + n − 2
    assert welch_degrees(one, 1e-9 * one, 4 * one, 100 * one) == pytest.approx(3)
    assert welch_degrees(one, one, 0 * one, one) == pytest.approx(2)
    assert np.isnan(welch_degrees(one, none, one, one)).all()
