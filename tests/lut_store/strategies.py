"""Hypothesis strategies for spaces and LUTs."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from lut_store.lut import Lut
from lut_store.metric import Metric
from protos.types import CONTEXTS, EMULATIONS, BlockSpec, Cell, CellRef, Configuration, Layer, SearchSpace

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORD = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=12)  # without control characters and blanks
NAME = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="@"), min_size=1, max_size=12)
NUMBER = st.floats(-1e6, 1e6, allow_nan=False) | st.floats(min_value=0, max_value=1e-300)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
RECORD = st.dictionaries(TEXT, PLAIN, max_size=3)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Layers that keep 8 channels at 4 × 4, so that any operator fits anywhere; at least one allowed on each."""
    fixed = {"in_channels": 8, "out_channels": 8, "input_height": 4, "input_width": 4}
    operator = st.builds(
        lambda kernel, expansion, groups: BlockSpec(
            "mbconv", kernel=kernel, expansion=expansion, groups=groups, **fixed
        ),
        st.sampled_from([1, 3, 5]),
        st.integers(1, 3),
        st.sampled_from([1, 2]),
    )
    skip = st.just(BlockSpec("skip", 8, 8, activation="none", input_height=4, input_width=4))
    ops, layers = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rows = []
    for _ in range(layers):
        cells = draw(st.lists(st.builds(Cell, st.none() | operator | skip), min_size=ops, max_size=ops))
        if all(cell.spec is None for cell in cells):
            cells[0] = Cell(draw(operator))
        rows.append(Layer(tuple(cells)))
    stem = draw(st.lists(operator, max_size=2))
    head = draw(st.lists(operator, max_size=2))
    return SearchSpace(draw(NAME), tuple(f"op{index}" for index in range(ops)), tuple(rows), tuple(stem), tuple(head))


@st.composite
def metrics(draw: st.DrawFn, space: SearchSpace, *, fixed_included: bool, positive: bool) -> Metric:
    layers, ops = space.shape
    fixed = len(space.stem) + len(space.head)
    number = NUMBER.map(abs) if positive else NUMBER
    error = NUMBER.map(abs) | st.just(float("nan"))

    def array(element: st.SearchStrategy[Any], size: int) -> np.ndarray:
        return np.array(draw(st.lists(element, min_size=size, max_size=size)), np.float64)

    allowed = np.array([[cell.spec is not None for cell in row.cells] for row in space.layers])
    present = allowed & (array(st.booleans(), layers * ops).reshape(layers, ops) > 0)
    fixed_present = (array(st.booleans(), fixed) > 0) & fixed_included
    return Metric(
        value=np.where(present, array(number, layers * ops).reshape(layers, ops), np.nan),
        se=array(error, layers * ops).reshape(layers, ops),
        n=array(st.integers(0, 2**40), layers * ops).reshape(layers, ops).astype(int),
        corrected=np.where(present, array(number, layers * ops).reshape(layers, ops), np.nan),
        fixed_value=np.where(fixed_present, array(number, fixed), np.nan),
        fixed_se=array(error, fixed),
        fixed_corrected=np.where(fixed_present, array(number, fixed), np.nan),
        correction=draw(RECORD),
        factor_rel_se=draw(error),
        residual_rel_sd=draw(error),
        fixed_n=array(st.integers(0, 2**40), fixed).astype(int),
    )


@st.composite
def luts(draw: st.DrawFn) -> Lut:
    space = draw(spaces())
    fixed_included = draw(st.booleans())
    places = [CellRef(layer, op) for layer in range(space.shape[0]) for op in range(space.shape[1])]
    places += [CellRef(-1, index) for index in range(len(space.stem) + len(space.head))]
    return Lut(
        configuration=Configuration(
            draw(NAME),
            space.name,
            draw(st.sampled_from(EMULATIONS)),
            draw(st.sampled_from(CONTEXTS)),
            draw(st.integers(1, 64)),
            draw(st.integers(1, 64)),
            draw(WORD),
            draw(WORD),
        ),
        space=space,
        latency=draw(st.none() | metrics(space, fixed_included=fixed_included, positive=True)),
        energy=draw(st.none() | metrics(space, fixed_included=fixed_included, positive=False)),
        flags=draw(
            st.dictionaries(st.sampled_from(places), st.lists(WORD, min_size=1, max_size=2).map(tuple), max_size=3)
        ),
        validation=draw(RECORD),
        provenance=draw(RECORD),
        version=draw(st.integers(0, 10**6)),
        created_wall_s=draw(st.floats(0, 2e9)),
        fixed_included=fixed_included,
    )
