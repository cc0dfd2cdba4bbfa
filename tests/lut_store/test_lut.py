"""The Lut object: its numbers, predictions and intervals."""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest

from lut_store.lut import BadChoiceError, Lut, MissingCellError
from lut_store.metric import Metric
from protos.errors import BadInputError
from protos.types import CellRef, Configuration, SearchSpace
from tests.lut_store.samples import OP_NAMES, fbnet, items_of, lut_of, metric_of, random_choices, space_of

SKIP = OP_NAMES.index("skip")


def with_value(metric: Metric, **arrays: object) -> Metric:
    return replace(metric, **arrays)


def changed(array: np.ndarray, place: object, value: float) -> np.ndarray:
    copied = array.copy()
    copied[place] = value
    return copied


def missing_at(metric: Metric, layer: int, op: int) -> Metric:
    place = (layer, op)
    return replace(
        metric,
        value=changed(metric.value, place, np.nan),
        corrected=changed(metric.corrected, place, np.nan),
        se=changed(metric.se, place, np.nan),
    )


def naive(lut: Lut, choices: np.ndarray) -> np.ndarray:
    """The definition: a loop over cells."""
    out = []
    for row in choices:
        pair = []
        for metric in (lut.latency, lut.energy):
            if metric is None:
                pair.append(np.nan)
                continue
            fixed = metric.fixed_corrected.sum() if lut.fixed_included else 0.0
            pair.append(fixed + sum(metric.corrected[layer, op] for layer, op in enumerate(row)))
        out.append(pair)
    return np.array(out).reshape(-1, 2)


# ---- numbers ----


def test_arrays_have_the_shape_of_the_space_and_nan_where_a_candidate_is_not_allowed() -> None:
    lut = lut_of(fbnet())
    assert lut.latency_s.shape == lut.energy_j.shape == (22, 9)
    assert lut.latency_s.dtype == lut.energy_j.dtype == np.float64
    not_allowed = [layer for layer in range(22) if np.isnan(lut.latency_s[layer, SKIP])]
    assert not_allowed == [0, 1, 5, 9, 13, 17, 21]
    assert np.array_equal(np.isnan(lut.latency_s), ~lut.allowed)
    assert lut.latency is not None
    assert lut.fixed_latency_s == pytest.approx(lut.latency.fixed_value.sum())
    assert lut.coverage == {"latency": 1.0, "energy": 1.0}


def test_an_allowed_skip_is_exactly_zero_and_cells_of_one_operator_share_their_number() -> None:
    lut = lut_of()  # the second and third block of the second stage are the same operators
    assert lut.latency_s[2, SKIP] == lut.energy_j[2, SKIP] == 0.0
    assert np.array_equal(lut.latency_s[2], lut.latency_s[3])


def test_arrays_are_read_only_also_after_pickling() -> None:
    lut = lut_of()
    for each in (lut, pickle.loads(pickle.dumps(lut)), copy.deepcopy(lut)):
        for array in (each.latency_s, each.energy_corrected_j, each.allowed):
            with pytest.raises(ValueError, match="read-only"):
                array[0, 0] = 1.0
    unmeasured = lut_of(energy=False).energy_j
    with pytest.raises(ValueError, match="read-only"):
        unmeasured[0, 0] = 1.0


def test_a_lut_does_not_change_with_the_arrays_and_records_it_was_made_from() -> None:
    space = space_of()
    metric, record = metric_of(space), {"method": {"a": [1, 2]}}
    value = metric.value.copy()
    lut = lut_of(space, latency=replace(metric, value=value), provenance=record)
    before = lut.digest
    value[0, 0] = 99.0
    record["method"]["a"].append(3)
    assert lut.latency_s[0, 0] != 99.0
    assert lut.provenance["method"] == {"a": [1, 2]}
    assert replace(lut).digest == before


def test_equality_hash_and_pickle() -> None:
    lut, same = lut_of(), lut_of()
    assert lut == same
    assert hash(lut) == hash(same)
    assert pickle.loads(pickle.dumps(lut)) == lut
    assert lut != lut_of(seed=1)
    assert lut != replace(lut, version=2)
    assert lut.__eq__("a LUT") is NotImplemented


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"configuration": Configuration("rpi3b", "other")}, "names space other"),
        ({"version": -1}, "version is -1"),
        ({"flags": {CellRef(9, 0): ("x",)}}, "flags name layer 9"),
        ({"flags": {CellRef(-1, 3): ("x",)}}, "flags name layer -1, candidate 3"),
        ({"latency": metric_of(fbnet())}, r"latency is \(22, 9\)"),
        ({"fixed_included": False}, "numbers for stem and head"),
        ({"provenance": {1: 2}}, "key that is not text"),
        ({"validation": {"x": object()}}, r"validation\.x is a object"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lut_of(**changes)  # type: ignore[arg-type]


def test_a_number_in_a_cell_that_is_not_allowed_is_refused() -> None:
    space = space_of()
    metric = metric_of(space)
    stray = replace(
        metric, value=changed(metric.value, (0, SKIP), 1.0), corrected=changed(metric.corrected, (0, SKIP), 1.0)
    )
    with pytest.raises(ValueError, match="latency has a number at layer 0, skip, which is not allowed"):
        lut_of(space, latency=stray)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("value", np.inf, "infinite"),
        ("se", -1.0, "negative standard error"),
        ("corrected", np.nan, "NaN in the same places"),
        ("factor_rel_se", -0.1, "factor_rel_se is -0.1"),
        ("residual_rel_sd", np.inf, "residual_rel_sd is inf"),
    ],
)
def test_a_metric_is_checked_at_birth(name: str, value: float, words: str) -> None:
    metric = metric_of(space_of())
    old = getattr(metric, name)
    with pytest.raises(ValueError, match=words):
        replace(metric, **{name: value if isinstance(old, float) else changed(old, (0, 0), value)})


def test_a_metric_of_mixed_shapes_is_refused() -> None:
    metric = metric_of(space_of())
    with pytest.raises(ValueError, match=r"se has the shape \(4, 8\), value has \(4, 9\)"):
        replace(metric, se=metric.se[:, :8])
    with pytest.raises(ValueError, match="whole numbers"):
        replace(metric, n=metric.n * 0.3)


# ---- digest ----


def test_the_digest_covers_numbers_evidence_and_method_alone() -> None:
    lut = lut_of()
    same = [
        replace(lut, version=7, created_wall_s=1.0),
        replace(lut, provenance={**lut.provenance, "git": "other", "run_ids": []}),
        replace(lut, validation={**lut.validation, "anchors": {"against": "rpi3b/sample@1"}, "findings": ["x"]}),
    ]
    assert {each.digest for each in same} == {lut.digest}
    assert lut.latency is not None
    other = [
        replace(lut, provenance={**lut.provenance, "evidence": ["m9"]}),
        replace(lut, provenance={**lut.provenance, "method": {"latency": "isolated"}}),
        replace(lut, latency=replace(lut.latency, residual_rel_sd=0.1)),
        replace(lut, configuration=replace(lut.configuration, threads=2)),
        replace(lut, flags={}),
        replace(lut, energy=None),
        replace(lut, validation={}),
    ]
    assert len({lut.digest, *(each.digest for each in other)}) == len(other) + 1


# ---- predict ----


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int8, np.int16, np.uint64, ">i4"])
def test_predict_is_the_sum_of_the_corrected_cells_and_the_fixed_operators(dtype: str) -> None:
    lut = lut_of(fbnet())
    choices = random_choices(lut.space, 50).astype(dtype)
    np.testing.assert_allclose(lut.predict(choices), naive(lut, choices), rtol=1e-12)


def test_predict_over_many_chunks_and_odd_layouts() -> None:
    lut = lut_of()
    choices = random_choices(lut.space, 20_000)
    whole = lut.predict(choices)
    assert whole.shape == (20_000, 2)
    np.testing.assert_allclose(whole[[0, 8191, 8192, 19_999]], naive(lut, choices[[0, 8191, 8192, 19_999]]))
    np.testing.assert_array_equal(lut.predict(np.asfortranarray(choices)), whole)
    np.testing.assert_array_equal(lut.predict(choices[::-3]), whole[::-3])
    np.testing.assert_array_equal(lut.predict(choices[:2].tolist()), whole[:2])
    assert lut.predict(np.zeros((0, 4), int)).shape == (0, 2)


def test_every_architecture_of_a_small_space() -> None:
    lut = lut_of(space_of(((1, 16, 1), (2, 24, 2))))
    every = np.array(list(itertools.product(*(lut.space.allowed(layer) for layer in range(3)))))
    np.testing.assert_allclose(lut.predict(every), naive(lut, every), rtol=1e-12)


def test_spaces_of_one_candidate_and_of_very_many() -> None:
    space = space_of()
    one = SearchSpace("one", ("a",), tuple(replace(row, cells=row.cells[:1]) for row in space.layers))
    assert lut_of(one, flags={}).predict(np.zeros((3, 4), int)).shape == (3, 2)
    names = tuple(f"op{index}" for index in range(250))
    layers = tuple(replace(row, cells=(row.cells[:8] * 32)[:250]) for row in space.layers)
    many = lut_of(SearchSpace("many", names, layers, space.stem, space.head))
    choices = random_choices(many.space, 20)
    np.testing.assert_allclose(many.predict(choices), naive(many, choices), rtol=1e-12)


def test_a_metric_that_was_not_measured_is_nan() -> None:
    lut = lut_of(energy=False)
    prediction = lut.predict(random_choices(lut.space, 3))
    assert not np.isnan(prediction[:, 0]).any()
    assert np.isnan(prediction[:, 1]).all()
    assert np.isnan(lut.energy_j).all()
    assert np.isnan(lut.fixed_energy_j)
    assert np.isnan(lut.predict_interval(random_choices(lut.space, 3))[:, 1]).all()


@pytest.mark.parametrize(("op", "dtype"), [(9, int), (-1, int), (200, np.uint8), (-128, np.int8), (1 << 40, int)])
def test_a_choice_out_of_range_is_named(op: int, dtype: type) -> None:
    lut = lut_of()
    choices = np.zeros((9000, 4), dtype)
    choices[8500, 2] = op
    with pytest.raises(ValueError, match=rf"architecture 8500, layer 2: choice {op} is out of range 0…8"):
        lut.predict(choices)
    with pytest.raises(BadChoiceError):
        lut.predict_interval(choices)


def test_a_cell_that_is_not_allowed_is_named_with_what_is() -> None:
    lut = lut_of()
    with pytest.raises(ValueError, match=r"architecture 0, layer 1: skip is not allowed there; allowed are k3_e1, "):
        lut.predict([[0, SKIP, 0, 0]])


def test_a_cell_without_a_number_is_named_and_the_others_can_be_predicted() -> None:
    lut = lut_of(version=3)
    assert lut.latency is not None
    partial = replace(lut, latency=missing_at(lut.latency, 2, 4))
    with pytest.raises(MissingCellError, match=r"rpi3b/sample@3: layer 2, k5_e1 has no latency"):
        partial.predict([[0, 0, 4, 0]])
    assert partial.coverage["latency"] == pytest.approx(33 / 34)
    assert not np.isnan(partial.predict([[4, 4, 3, 4]])).any()


def test_a_metric_without_a_fixed_operator_counts_as_not_measured() -> None:
    lut = lut_of()
    assert lut.energy is not None
    nothing = changed(lut.energy.fixed_value, 1, np.nan)
    partial = replace(lut, energy=replace(lut.energy, fixed_value=nothing, fixed_corrected=nothing))
    choices = np.zeros((1, len(lut.space.layers)), np.int64)
    latency_s, energy_j = partial.predict(choices)[0]
    assert latency_s == lut.predict(choices)[0, 0]
    assert np.isnan(energy_j)
    assert np.isnan(partial.predict_interval(choices)[0, 1]).all()
    with pytest.raises(BadChoiceError, match="out of range"):
        partial.predict(choices + 99)
    with pytest.raises(MissingCellError, match="head0 has no number"):
        replace(partial, latency=None).predict(choices)


@pytest.mark.parametrize("choices", [[0, 0, 0, 0], [[0, 0, 0]], [[0.0, 0.0, 0.0, 0.0]], [[True] * 4], "0000", [[]]])
def test_choices_of_another_shape_or_kind_are_refused(choices: object) -> None:
    with pytest.raises(ValueError, match=r"whole numbers of the shape \(N, 4\)"):
        lut_of().predict(choices)  # type: ignore[arg-type]


def imported() -> Lut:
    """As from a table that holds neither stem and head nor uncertainty, and whose skip has a cost."""
    space = space_of()
    value = np.where([[c.spec is not None for c in row.cells] for row in space.layers], 0.01, np.nan)
    unknown, fixed = np.full(value.shape, np.nan), np.full(3, np.nan)
    metric = Metric(value, unknown, np.zeros(value.shape, int), value, fixed, fixed, fixed)
    return Lut(Configuration("rpi3b-hanna", space.name), space, metric, None, fixed_included=False)


def test_a_lut_without_stem_and_head_sums_its_cells_alone_and_says_so() -> None:
    lut = imported()
    assert not lut.fixed_included
    assert np.isnan(lut.fixed_latency_s)
    assert lut.predict([[0, 0, SKIP, 0]])[0, 0] == pytest.approx(0.04)
    assert lut.frame()["layer"].min() == 0


# ---- intervals ----


def brute_force_half(lut: Lut, metric: Metric, choices: np.ndarray, level_z: float) -> float:
    """By the definition, operator by operator."""
    by_operator: dict[object, float] = {}
    ends = lut.space.stem + lut.space.head
    for spec, se in [
        *zip(ends, metric.fixed_se, strict=True),
        *((lut.space.spec(layer, int(op)), metric.se[layer, op]) for layer, op in enumerate(choices)),
    ]:
        by_operator[spec] = by_operator.get(spec, 0.0) + se * metric.se_scale
    total = naive(lut, choices[None])[0, 0 if metric is lut.latency else 1]
    relative = metric.factor_rel_se**2 + metric.residual_rel_sd**2
    return level_z * np.sqrt(sum(se**2 for se in by_operator.values()) + relative * total**2)


def test_interval_against_its_definition() -> None:
    lut = lut_of(fbnet())
    choices = random_choices(lut.space, 9000, seed=3)
    choices[-1] = 3  # expansion 6 everywhere: many cells share their operator
    bounds, middle = lut.predict_interval(choices), lut.predict(choices)
    assert bounds.shape == (9000, 2, 2)
    np.testing.assert_allclose(bounds.mean(axis=2), middle, rtol=1e-12)
    for row in (0, 8999):
        for column, metric in enumerate((lut.latency, lut.energy)):
            assert metric is not None
            half = brute_force_half(lut, metric, choices[row], 1.959963984540054)
            assert bounds[row, column, 1] - middle[row, column] == pytest.approx(half, rel=1e-9)


def test_cells_that_share_an_operator_err_together() -> None:
    lut = lut_of()
    assert lut.latency is not None
    certain = replace(
        lut.latency, se=np.zeros_like(lut.latency.se), fixed_se=np.zeros(3), factor_rel_se=0.0, residual_rel_sd=0.0
    )
    se = certain.se.copy()
    se[2, 0] = se[3, 0] = 1e-4  # the same operator on layers 2 and 3
    se[0, 0] = se[1, 0] = 1e-4  # two operators
    lut = replace(lut, latency=replace(certain, se=se, correction={}))
    half = np.diff(lut.predict_interval([[1, 1, 0, 0], [0, 0, 1, 1]])[:, 0])[:, 0] / 2 / 1.959964
    np.testing.assert_allclose(half, [2e-4, np.sqrt(2) * 1e-4], rtol=1e-6)


def test_a_wider_level_gives_a_wider_interval_and_a_senseless_one_is_refused() -> None:
    lut = lut_of()
    choices = random_choices(lut.space, 5)
    narrow, wide = (np.diff(lut.predict_interval(choices, level), axis=2) for level in (0.5, 0.99))
    assert (wide > narrow).all()
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(BadInputError, match="it must lie between 0 and 1"):
            lut.predict_interval(choices, level)


def test_what_is_not_known_makes_the_interval_nan_and_never_narrow() -> None:
    lut = lut_of()
    assert lut.latency is not None
    choices = [[0, 0, 0, 0], [1, 0, 0, 0]]
    unknown_cell = replace(lut, latency=replace(lut.latency, se=changed(lut.latency.se, (0, 1), np.nan)))
    assert np.isnan(unknown_cell.predict_interval(choices)).tolist() == [[[False] * 2] * 2, [[True] * 2, [False] * 2]]
    for name in ("factor_rel_se", "residual_rel_sd"):
        unknown = replace(lut, latency=replace(lut.latency, **{name: float("nan")}))
        assert np.isnan(unknown.predict_interval(choices)[:, 0]).all()
        assert not np.isnan(unknown.predict_interval(choices)[:, 1]).any()
    assert np.isnan(imported().predict_interval(choices)).all()


# ---- Metric.from_items ----


def test_from_items_spreads_operators_over_their_cells() -> None:
    space = space_of()
    items = items_of(space)[:-1]  # the last operator was not measured
    value = np.arange(1.0, len(items) + 1)
    metric = Metric.from_items(space, items, value, value / 10, np.arange(len(items)))
    for index, item in enumerate(items):
        for cell in item.cells:
            if cell.layer == -1:
                found = metric.fixed_value[cell.op], metric.fixed_se[cell.op], metric.fixed_n[cell.op]
            else:
                found = metric.value[cell.layer, cell.op], metric.se[cell.layer, cell.op], metric.n[cell.layer, cell.op]
            assert found == (value[index], value[index] / 10, index)
    np.testing.assert_array_equal(metric.corrected, metric.value)
    assert np.isnan(metric.value[2, 7])
    assert np.isnan(metric.value[3, 7])
    assert metric.value[2, SKIP] == metric.se[2, SKIP] == metric.n[2, SKIP] == 0


def test_the_package_offers_the_lut() -> None:
    import lut_store

    assert lut_store.Lut is Lut
    with pytest.raises(AttributeError, match="nothing"):
        _ = lut_store.nothing


@pytest.mark.parametrize("when", [1e300, float("nan"), float("inf"), -1.0, 1.1e11])
def test_a_time_that_is_no_date_is_refused(when: float) -> None:
    with pytest.raises(ValueError, match=r"created_wall_s is .* must be seconds since 1970"):
        lut_of(created_wall_s=when)
    assert lut_of(created_wall_s=1e11).created_wall_s == 1e11


def test_a_negative_corrected_time_is_refused_and_a_negative_energy_is_not() -> None:
    lut = lut_of()
    assert lut.latency is not None
    assert lut.energy is not None
    for name in ("corrected", "fixed_corrected"):
        below = changed(getattr(lut.latency, name), 0 if name.startswith("fixed") else (0, 0), -1e-3)
        with pytest.raises(ValueError, match="negative corrected time"):
            replace(lut, latency=replace(lut.latency, **{name: below}))
        replace(lut, latency=replace(lut.latency, **{name: below}, correction={"method": "ridge"}))
        replace(lut, energy=replace(lut.energy, **{name: below}))  # a small operator's, above idle


@pytest.mark.parametrize("word", ["\x1b[2J", "a\nb", "\u202etxt"])
def test_words_that_would_move_a_terminal_are_refused(word: str) -> None:
    space = space_of()
    for name in (word, "a b", "a@b"):
        with pytest.raises(ValueError, match=r"the device type .* is no name"):
            lut_of(configuration=Configuration(name, space.name))
    with pytest.raises(ValueError, match=r"the space .* is no name"):
        lut_of(space_of(name=word), configuration=Configuration("rpi3b", word), flags={})
    with pytest.raises(ValueError, match="holds a control character"):
        lut_of(flags={CellRef(0, 0): (word,)})
    with pytest.raises(ValueError, match="holds a control character"):
        lut_of(replace(space, op_names=(word, *space.op_names[1:])))
