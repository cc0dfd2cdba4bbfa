"""The table that people and spreadsheets see."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd

from lut_store.formats import save
from lut_store.frame import COLUMNS
from tests.lut_store.samples import fbnet, lut_of, space_of


def test_one_row_for_every_allowed_cell_between_stem_and_head() -> None:
    lut = lut_of(fbnet())
    frame = lut.frame()
    assert tuple(frame.columns) == COLUMNS
    assert tuple(COLUMNS[:10]) == (
        *("layer", "op", "latency_s", "latency_lo_s", "latency_hi_s", "energy_j", "energy_lo_j", "energy_hi_j"),
        *("n", "flags"),
    )
    assert len(frame) == 22 * 9 - 7 + 3
    assert frame["op"].tolist()[:2] == ["stem0", "k3_e1"]
    assert frame["op"].tolist()[-2:] == ["head0", "head1"]
    cells = frame[frame["layer"] >= 0]
    assert not cells.duplicated(["layer", "op"]).any()
    for row in cells.itertuples():
        assert row.latency_s == lut.latency_s[row.layer, row.op_index]
        assert row.energy_corrected_j == lut.energy_corrected_j[row.layer, row.op_index]
    assert frame[frame["layer"] < 0]["latency_s"].sum() == lut.fixed_latency_s


def test_bounds_counts_flags_and_who_shares() -> None:
    lut = lut_of()
    frame = lut.frame().set_index(["layer", "op"])
    row = frame.loc[(2, "k5_e6")]
    assert lut.latency is not None
    se = lut.latency.se[2, 7]
    np.testing.assert_allclose(
        [row.latency_lo_s, row.latency_hi_s, row.latency_se_s],
        [row.latency_s - 1.959964 * se, row.latency_s + 1.959964 * se, se],
        rtol=1e-6,
    )
    assert row.n == lut.latency.n[2, 7]
    assert row.shared_with == 1  # layer 3 has the same operator
    assert row.operator_id == frame.loc[(3, "k5_e6")].operator_id
    assert row.label == "mbconv 24→24 k5 s1 e6 @8×8"
    assert frame.loc[(0, "k3_e1_g2")].loc["flags"] == "disturbed;budget"
    assert frame.loc[(-1, "stem0")].loc["flags"] == "throttled"
    skip = frame.loc[(2, "skip")]
    assert skip.latency_s == skip.latency_lo_s == skip.latency_hi_s == 0.0


def test_what_is_not_known_is_nan() -> None:
    lut = lut_of(energy=False)
    assert lut.latency is not None
    nothing = {"se": lut.latency.se * np.nan, "fixed_se": lut.latency.fixed_se * np.nan}
    frame = replace(lut, latency=replace(lut.latency, **nothing)).frame()
    assert frame["energy_j"].isna().all()
    assert frame["latency_lo_s"].isna().all()
    assert (frame["energy_n"] == 0).all()


def test_with_energy_alone_n_is_that_of_the_energy() -> None:
    lut = lut_of(space_of())
    frame = replace(lut, latency=None).frame()
    assert (frame["n"] == frame["energy_n"]).all()
    assert frame["n"].max() > 0


def test_csv_is_the_frame(tmp_path) -> None:
    lut = lut_of(fbnet())
    save(lut, tmp_path / "lut.csv")
    read = pd.read_csv(io.StringIO((tmp_path / "lut.csv").read_text()), keep_default_na=False, na_values=[""])
    read["flags"] = read["flags"].fillna("")
    pd.testing.assert_frame_equal(read, lut.frame(), check_dtype=False, rtol=0, atol=0)
