"""Guesses for cells that were not measured: what they are made of, how they are labelled, how good they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lut_store import formats, regressor
from lut_store.estimated import correction_ratios, estimated
from lut_store.features import QUANTITIES, log_matrix, quantities
from lut_store.lut import Lut, MissingCellError
from lut_store.metric import Array, Metric
from nas import opstats
from nas.space import load_space
from protos.errors import BadInputError
from protos.types import BlockSpec, CellRef, Configuration, SearchSpace
from tests.lut_store.samples import fbnet, items_of, lut_of, space_of

SPACE = fbnet()


def true_cost(spec: BlockSpec) -> float:
    """A made-up board: compute, memory and calls, with a cache and with stride, so that no model of ours is exact."""
    q = quantities(spec)
    compute = q["pointwise_macs"] / 2e9 + q["depthwise_macs"] / (4e8 * spec.kernel**0.5) + q["dense_macs"] / 1.5e9
    memory = q["weight_bytes"] / 1e9 + q["activation_bytes"] / (4e9 if q["activation_bytes"] < 1e5 else 2e9)
    return (max(compute, memory) + 0.3 * min(compute, memory)) * (1.1 if spec.groups > 1 else 1) + 2e-5 * q["calls"]


def modelled(space: SearchSpace, factor: float = 1.02) -> Lut:
    items = items_of(space)
    value = np.array([true_cost(item.spec) for item in items])
    noise = np.random.default_rng(0).normal(1, 0.003, len(items))
    latency, energy = (
        Metric.from_items(space, items, scale * value * noise, scale * value * 0.003, np.full(len(items), 30),
                          scale * value * noise * factor, correction={"method": "factor", "factor": factor},
                          factor_rel_se=0.002, residual_rel_sd=0.004)
        for scale in (1.0, 2.5)
    )  # fmt: skip
    return Lut(
        Configuration("made-up", space.name), space, latency, energy, provenance={"method": {"latency": "paths"}}
    )


def without(lut: Lut, cells: list[CellRef], metrics: tuple[str, ...] = ("latency", "energy")) -> Lut:
    """The LUT without the operators in these cells, wherever they stand."""
    gone = {lut.space.spec(cell.layer, cell.op) for cell in cells}
    changed = {}
    for name in metrics:
        metric: Metric = getattr(lut, name)
        hole = np.array([[cell.spec in gone for cell in row.cells] for row in lut.space.layers])
        ends = np.array([spec in gone for spec in (*lut.space.stem, *lut.space.head)])
        arrays = {part: np.where(hole, np.nan, getattr(metric, part)) for part in ("value", "se", "corrected")}
        arrays |= {
            f"fixed_{part}": np.where(ends, np.nan, getattr(metric, f"fixed_{part}"))
            for part in ("value", "se", "corrected")
        }
        changed[name] = replace(metric, **arrays)
    return replace(lut, **changed)  # type: ignore[arg-type]


@given(
    st.builds(
        BlockSpec,
        kind=st.sampled_from(["mbconv", "conv", "pool_linear"]),
        in_channels=st.sampled_from([8, 24, 112]),
        out_channels=st.sampled_from([8, 16, 352]),
        kernel=st.sampled_from([1, 3, 5]),
        stride=st.sampled_from([1, 2]),
        expansion=st.sampled_from([1, 6]),
        groups=st.sampled_from([1, 2]),
        input_height=st.integers(1, 30),
        input_width=st.integers(1, 30),
        batch=st.sampled_from([1, 3]),
    )
)
@settings(max_examples=60, deadline=None)
def test_the_quantities_are_those_of_the_modules(spec: BlockSpec) -> None:
    if spec.kind == "pool_linear":
        spec = replace(spec, kernel=1, stride=1, groups=1, expansion=1)
    if spec.kind == "conv":
        spec = replace(spec, expansion=1)
    found = quantities(spec)
    assert tuple(found) == QUANTITIES
    assert found["pointwise_macs"] + found["depthwise_macs"] + found["dense_macs"] == opstats.macs(spec)
    assert found["weight_bytes"] == opstats.weight_bytes(spec)
    assert found["activation_bytes"] == opstats.activation_bytes(spec)
    assert np.isfinite(log_matrix([spec])).all()


# ---- the regressor ----


def split(share: float, seed: int = 0) -> tuple[list[BlockSpec], Array, list[BlockSpec], Array]:
    specs = [item.spec for item in items_of(load_space("fbnet-imagenet")) if item.spec.kind == "mbconv"]
    order = np.random.default_rng(seed).permutation(len(specs)).tolist()
    out, inside = order[: round(share * len(specs))], order[round(share * len(specs)) :]
    cost = np.array([true_cost(spec) for spec in specs])
    return [specs[i] for i in inside], cost[inside], [specs[i] for i in out], cost[out]


def test_left_out_operators_are_predicted_within_what_cross_validation_says() -> None:
    sources, cost, wanted, truth = split(0.2)
    found = regressor.fit(sources, cost, np.full(len(cost), 0.003))
    error = np.abs(found.predict(wanted) / truth - 1)
    assert found.validation.mape < 0.05
    assert error.mean() < 3 * found.validation.mape + 0.01
    assert found.validation.mape <= min(found.validation.others_mape.values())
    assert set(found.validation.others_mape) | {found.validation.method} == {"linear", "ridge", "gp"}


def test_the_same_operators_give_the_same_numbers() -> None:
    sources, cost, wanted, _ = split(0.5)
    one, other = (regressor.fit(sources, cost, np.full(len(cost), np.nan)) for _ in range(2))
    assert np.array_equal(one.predict(wanted), other.predict(wanted))
    assert one.validation == other.validation


def test_whole_shapes_are_left_out_where_whole_shapes_are_missing() -> None:
    sources, cost, _, _ = split(0.0)
    plain = regressor.fit(sources, cost, np.full(len(cost), np.nan), only=("ridge",))
    strict = regressor.fit(sources, cost, np.full(len(cost), np.nan), only=("ridge",), by_shape=True)
    assert (plain.validation.left_out, strict.validation.left_out) == ("operators", "shapes")
    assert strict.validation.mape > plain.validation.mape


def test_too_few_operators_and_kinds_without_a_model_are_refused() -> None:
    sources, cost, _, _ = split(0.0)
    with pytest.raises(BadInputError, match="5 measured operators of kind mbconv are too few"):
        regressor.fit(sources[:5], cost[:5], cost[:5])
    skips = [BlockSpec("skip", 8, 8, activation="none", input_height=n, input_width=n) for n in range(1, 20)]
    with pytest.raises(BadInputError, match="kind skip cannot be estimated"):
        regressor.fit(skips, np.ones(19), np.ones(19))


# ---- the LUT ----


def test_missing_cells_are_filled_labelled_and_judged() -> None:
    whole = modelled(SPACE)
    holes = [CellRef(2, 3), CellRef(7, 5), CellRef(15, 0), CellRef(18, 7)]
    partial = without(whole, holes)
    with pytest.raises(MissingCellError, match=r"layer 2, k3_e6 has no latency and energy.*lut\.estimated\(\)"):
        partial.predict([[0, 0, 3, *[0] * 19]])
    assert partial.coverage["latency"] < 1
    full = partial.estimated()
    assert full.coverage == {"latency": 1.0, "energy": 1.0}
    marked = {cell for cell, words in full.flags.items() if "estimated" in words}
    assert set(holes) <= marked
    assert marked == {CellRef(int(a), int(b)) for a, b in np.argwhere(np.isnan(partial.latency_s) & partial.allowed)}
    assert full.latency is not None
    assert whole.latency is not None
    for cell in holes:
        place = cell.layer, cell.op
        value, se = full.latency.value[place], full.latency.se[place]
        assert value == pytest.approx(whole.latency.value[place], rel=0.15)
        assert abs(value - whole.latency.value[place]) < 4 * se
        assert full.latency.n[place] == 0
        assert full.latency.corrected[place] == pytest.approx(1.02 * value)
    measured = ~np.isnan(partial.latency_s)
    assert np.array_equal(full.latency_s[measured], whole.latency_s[measured])
    record = full.provenance["estimates"]
    assert record["of"] == partial.digest
    assert record["latency"]["operators"] == 4
    assert record["latency"]["kinds"]["mbconv"]["mape"] < 0.1
    assert not np.isnan(full.predict([[0, 0, 3, *[0] * 19]])).any()
    assert full.digest != partial.digest
    assert full.estimated() is full


def test_only_the_metric_that_lacks_a_cell_is_guessed() -> None:
    partial = without(modelled(SPACE), [CellRef(2, 3)], ("energy",))
    full = estimated(partial)
    assert full.latency is not None
    assert np.array_equal(full.latency.value, partial.latency.value, equal_nan=True)  # type: ignore[union-attr]
    assert full.provenance["estimates"]["latency"]["cells"] == 0
    assert full.provenance["estimates"]["energy"]["cells"] == 3
    assert full.flags[CellRef(2, 3)] == ("estimated",)


def test_a_whole_lut_is_itself_and_an_unmeasured_metric_stays_unmeasured() -> None:
    lut = modelled(SPACE)
    assert lut.estimated() is lut
    latency_only = without(replace(lut, energy=None), [CellRef(2, 3)], ("latency",))
    assert estimated(latency_only).energy is None


def test_operators_of_a_kind_that_was_hardly_measured_stay_missing_and_are_named() -> None:
    partial = without(modelled(SPACE), [CellRef(2, 3), CellRef(-1, 2)])
    full = estimated(partial)
    assert full.latency is not None
    assert np.isnan(full.latency.fixed_value[2])
    (name,) = full.provenance["estimates"]["latency"]["left_missing"]
    assert formats.from_bytes(formats.to_bytes(full), "full.lut") == full
    assert name.startswith("pool_linear")
    with pytest.raises(BadInputError, match=r"no missing cell can be estimated: .*too few"):
        estimated(without(modelled(SPACE), [CellRef(-1, 2)]))


def test_a_small_table_cannot_be_estimated() -> None:
    space = space_of(((1, 16, 1),))
    with pytest.raises(BadInputError, match="too few for an estimate"):
        estimated(without(lut_of(space, flags={}), [CellRef(0, 0)]))


def test_a_missing_skip_costs_what_other_skips_cost() -> None:
    lut = modelled(SPACE)
    assert lut.latency is not None
    value = lut.latency.value.copy()
    value[:, 8] = np.where(np.isnan(value[:, 8]), np.nan, 0.002)  # a table of others, in which they cost something
    value[2, 8] = np.nan
    latency = replace(lut.latency, value=value, corrected=value)
    filled = estimated(replace(lut, latency=latency, energy=None))
    assert filled.latency_s[2, 8] == 0.002
    assert filled.latency is not None
    assert np.isnan(filled.latency.se[2, 8])


def test_the_correction_of_a_guess_is_that_of_its_candidate() -> None:
    metric = modelled(SPACE).latency
    assert metric is not None
    corrected = metric.corrected.copy()
    corrected[:, 3] = metric.value[:, 3] * 2
    ratios = correction_ratios(replace(metric, corrected=corrected))
    assert ratios[3] == pytest.approx(2.0)
    assert ratios[0] == pytest.approx(1.02)
