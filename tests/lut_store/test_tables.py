"""Tables of other programs: ProxylessNAS / once-for-all, HW-NAS-Bench, HANNA and CSV, there and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lut_store.formats import csv_table, hw_nas_bench, ofa, tables
from lut_store.formats.imported import kept_of
from lut_store.lut import Lut, MissingCellError
from lut_store.metric import Metric
from nas.space import load_space
from protos.errors import BadInputError
from protos.types import BlockSpec, Configuration, SearchSpace
from tests.lut_store.samples import OP_NAMES, lut_of, space_of
from tests.lut_store.strategies import luts

quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SKIP = OP_NAMES.index("skip")
SPACE = space_of(((1, 16, 1), (3, 24, 2)))
HOW = Configuration("theirs", SPACE.name)


def without_groups(space: SearchSpace) -> SearchSpace:
    """The space without its grouped candidates, which ProxylessNAS has no key for."""
    kept = [op for op, name in enumerate(space.op_names) if not name.endswith("g2")]
    layers = tuple(replace(layer, cells=tuple(layer.cells[op] for op in kept)) for layer in space.layers)
    return SearchSpace("plain", tuple(space.op_names[op] for op in kept), layers, space.stem, space.head)


def exported(tmp_path: Path, format_: str, lut: Lut) -> tuple[tuple[Path, Path], tuple[str, ...]]:
    paths = tmp_path / "latency", tmp_path / "energy"
    dumped = tables.dump_tables(format_, lut)
    assert tables.save_pair(dumped.texts, *paths) == paths
    return paths, dumped.notes


def same_numbers(one: Lut, other: Lut) -> None:
    for name in ("latency", "energy"):
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(a.value, b.value)
        if one.fixed_included and other.fixed_included:
            np.testing.assert_array_equal(a.fixed_value, b.fixed_value)


# ---- operator keys ----


def test_the_keys_are_those_that_the_projects_look_up() -> None:
    block = BlockSpec("mbconv", 16, 24, 5, 2, 3, input_height=112, input_width=112)
    assert ofa.parts(block) == (
        ("expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:5-stride:2-idskip:0",),
        ("expanded_conv-input:112x112x16-output:56x56x24-expand:48-kernel:5-stride:2-idskip:0-se:0-hs:0",),
    )
    assert ofa.parts(replace(block, groups=2)) == ()
    stem = BlockSpec("conv", 3, 16, 3, 2, activation="none", input_height=224, input_width=224)
    assert ofa.parts(stem) == (("Conv-input:224x224x3-output:112x112x16",),)
    mix = BlockSpec("conv", 352, 1504, activation="none", input_height=7, input_width=7)
    assert ofa.parts(mix) == (("Conv_1-input:7x7x352-output:7x7x1504",),)
    logits = BlockSpec("pool_linear", 1504, 1000, activation="none", input_height=7, input_width=7)
    assert ofa.parts(logits)[0] == ("Logits-input:7x7x1504-output:1000",)
    assert hw_nas_bench.parts(block) == (("ConvBlock_H112_W112_Cin16_Cout24_exp3_kernel5_stride2_group1",),)
    assert hw_nas_bench.parts(stem) == (("ConvNorm_H224_W224_Cin3_Cout16_kernel3_stride2_group1",),)
    assert hw_nas_bench.parts(logits) == (("AvgP_H7_W7_Cin1504_Cout1504_kernel7_stride1", "FC_Cin1504_Cout1000"),)
    skip = BlockSpec("skip", 24, 24, activation="none", input_height=8, input_width=8)
    assert hw_nas_bench.parts(skip) == (("Skip_H8_W8_Cin24_Cout24_stride1",),)


@pytest.mark.parametrize("format_", ["ofa", "hw-nas-bench"])
def test_a_measured_lut_goes_out_and_comes_back(tmp_path: Path, format_: str) -> None:
    lut = lut_of(without_groups(SPACE), flags={})
    paths, notes = exported(tmp_path, format_, lut)
    assert notes == ()
    back = tables.load_tables(format_, lut.space, replace(HOW, space="plain"), *paths)
    same_numbers(lut, back)
    assert back.fixed_included
    assert back.coverage == {"latency": 1.0, "energy": 1.0}
    assert back.latency is not None
    assert np.isnan(back.latency.se).all()
    assert np.isnan(back.predict_interval([[0, 0, 0, 0]])).all()
    assert back.provenance["origin"]["files"] == {"latency": "latency", "energy": "energy"}
    assert exported(tmp_path, format_, back)[1] == ()
    same_numbers(lut, tables.load_tables(format_, lut.space, replace(HOW, space="plain"), *paths))


@quick
@given(st.lists(st.floats(0, 1e6), min_size=80, max_size=80), st.sampled_from(["ofa", "hw-nas-bench"]))
def test_every_float_survives_both_ways(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], format_: str
) -> None:
    space = without_groups(SPACE)
    spread = {spec: values[i] for i, spec in enumerate({c.spec: 0 for layer in space.layers for c in layer.cells})}
    grid = np.array([[np.nan if c.spec is None else spread[c.spec] for c in layer.cells] for layer in space.layers])
    if format_ == "ofa":
        grid[:, -1] = np.where(np.isnan(grid[:, -1]), np.nan, 0.0)  # a skip costs nothing there
    nothing, fixed = np.full(grid.shape, np.nan), np.array(values[-3:])
    metric = Metric(grid, nothing, np.zeros(grid.shape, int), grid, fixed, np.full(3, np.nan), fixed)
    lut = Lut(Configuration("theirs", "plain"), space, metric, metric)
    paths, _ = exported(tmp_path_factory.mktemp("t"), format_, lut)
    same_numbers(lut, tables.load_tables(format_, space, lut.configuration, *paths))


def test_what_a_format_has_no_key_for_is_said_and_missing_afterwards(tmp_path: Path) -> None:
    lut = lut_of(SPACE)
    paths, notes = exported(tmp_path, "ofa", lut)
    assert notes == ("no key of the ofa format for 6 of the operators: they are not in the file",)
    back = tables.load_tables("ofa", SPACE, HOW, *paths)
    assert 0.7 < back.coverage["latency"] < 1
    with pytest.raises(MissingCellError, match="layer 1, k3_e1_g2 has no latency"):
        back.predict([[0, 1, 0, 0]])
    assert np.array_equal(back.predict([[0, 0, SKIP, 3]])[0] > 0, [True, True])


def test_the_yaml_is_what_the_projects_read(tmp_path: Path) -> None:
    paths, _ = exported(tmp_path, "ofa", lut_of(without_groups(SPACE)))
    table = yaml.safe_load(paths[0].read_text())
    first = "expanded_conv-input:16x16x16-output:16x16x16-expand:1-kernel:3-stride:1-idskip:1"
    assert isinstance(table[first]["mean"], float)
    assert table[first]["mean"] == pytest.approx(lut_of(without_groups(SPACE)).latency_s[0, 0] * 1e3)


def test_the_other_keys_of_once_for_all_are_read_too(tmp_path: Path) -> None:
    space = without_groups(SPACE)
    entries = {}
    for layer in space.layers:
        for cell in layer.cells:
            if cell.spec is not None and cell.spec.kind == "mbconv":
                entries[ofa.parts(cell.spec)[1][0]] = {"mean": 2.0, "count": 20}
    linear = space.head[1]
    entries |= {ofa.parts(space.stem[0])[0][0]: {"mean": 1}, ofa.parts(space.head[0])[0][0]: {"mean": 1}}
    entries |= {key: {"mean": 0.25} for key in ofa.parts(linear)[1]}
    (tmp_path / "lut.yaml").write_text(yaml.safe_dump(entries))
    lut = tables.load_tables("ofa", space, Configuration("note10", "plain"), tmp_path / "lut.yaml", None)
    assert lut.fixed_included
    assert lut.energy is None
    assert lut.predict([[0, 0, 0, 0]])[0, 0] == pytest.approx(8e-3 + 2.5e-3)


def hw_table(space: SearchSpace) -> dict[str, float]:
    rng = np.random.default_rng(0)
    specs = {c.spec for layer in space.layers for c in layer.cells if c.spec is not None} | {*space.stem, *space.head}
    return {key: round(float(rng.uniform(0.01, 9)), 6) for s in specs for way in hw_nas_bench.parts(s) for key in way}


def test_a_table_of_hw_nas_bench_is_kept_whole(tmp_path: Path) -> None:
    space = load_space("fbnet-cifar100-hwnas")
    table = hw_table(space) | {"Skip_H32_W32_Cin16_Cout24_stride1": 0.125}  # where FBNet's rule allows none
    (tmp_path / "raspi4.json").write_text(json.dumps(table))
    lut = tables.load_tables("hw-nas-bench", space, Configuration("raspi4", space.name), tmp_path / "raspi4.json", None)
    assert lut.coverage == {"latency": 1.0, "energy": 0.0}
    assert lut.fixed_included
    choices = [4] * len(space.layers)
    keys = [way[0] for layer in space.layers for way in hw_nas_bench.parts(layer.cells[4].spec)]  # type: ignore[arg-type]
    keys += [key for spec in (*space.stem, *space.head) for way in hw_nas_bench.parts(spec) for key in way]
    assert lut.predict([choices])[0, 0] == pytest.approx(sum(table[key] for key in keys) / 1e3)
    text = tables.dump_tables("hw-nas-bench", lut).texts["latency"]
    assert json.loads(text) == table


def test_a_table_without_stem_and_head_says_so(tmp_path: Path) -> None:
    space = load_space("fbnet-cifar100-hwnas")
    table = {key: value for key, value in hw_table(space).items() if not key.startswith("FC")}
    (tmp_path / "t.json").write_text(json.dumps(table))
    lut = tables.load_tables("hw-nas-bench", space, Configuration("raspi4", space.name), tmp_path / "t.json", None)
    assert not lut.fixed_included
    assert "stem and head are not included" in lut.provenance["origin"]["note"]
    assert json.loads(tables.dump_tables("hw-nas-bench", lut).texts["latency"]) == table


def test_identical_operators_with_different_numbers_become_their_mean_and_it_is_said() -> None:
    lut = lut_of(SPACE)
    assert lut.latency is not None
    value = lut.latency.value.copy()
    value[3, 0] *= 2  # the same operator as on layer 2
    apart = replace(lut, latency=replace(lut.latency, value=value, corrected=value))
    dumped = tables.dump_tables("hw-nas-bench", apart)
    assert any("on several layers, of which the file holds the mean: 1" in note for note in dumped.notes)
    (key,) = hw_nas_bench.parts(SPACE.layers[2].cells[0].spec)[0]  # type: ignore[arg-type]
    assert json.loads(dumped.texts["latency"])[key] == pytest.approx((value[2, 0] + value[3, 0]) / 2 * 1e3)


def test_hanna_says_what_it_leaves_out(tmp_path: Path) -> None:
    paths, notes = exported(tmp_path, "hanna", lut_of(SPACE))
    assert "stem and head are not in the files" in notes[0]
    back = tables.load_tables("hanna", SPACE, HOW, *paths)
    same_numbers(lut_of(SPACE), back)
    assert not back.fixed_included
    assert exported(tmp_path, "hanna", back)[1] == ()


# ---- CSV ----


def csv_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def test_the_frame_comes_back_from_csv(tmp_path: Path) -> None:
    lut = lut_of(SPACE)
    lut.save(tmp_path / "mine.csv")
    back = csv_table.load(SPACE, HOW, tmp_path / "mine.csv")
    for name in ("latency", "energy"):
        a, b = getattr(lut, name), getattr(back, name)
        for part in ("value", "se", "n", "corrected", "fixed_value", "fixed_se", "fixed_n", "fixed_corrected"):
            np.testing.assert_array_equal(getattr(a, part), getattr(b, part), err_msg=part)
    assert back.flags == lut.flags
    assert back.fixed_included
    assert back.latency is not None
    assert back.latency.correction == {"method": "imported"}
    choices = [[0, 1, 2, 3]]
    np.testing.assert_array_equal(back.predict(choices), lut.predict(choices))
    assert np.isnan(back.predict_interval(choices)).all()


@quick
@given(luts().filter(lambda lut: any(m is not None and not np.isnan(m.value).all() for m in (lut.latency, lut.energy))))
def test_any_frame_comes_back_from_csv(tmp_path_factory: pytest.TempPathFactory, lut: Lut) -> None:
    path = tmp_path_factory.mktemp("t") / "t.csv"
    lut.save(path)
    back = csv_table.load(lut.space, lut.configuration, path)
    for name in ("latency", "energy"):
        a, b = getattr(lut, name), getattr(back, name)
        if a is None or (np.isnan(a.value).all() and b is None):
            assert b is None
            continue
        for part in ("value", "se", "n", "corrected"):
            if part != "n" or name == "energy" or lut.latency is not None:
                np.testing.assert_array_equal(getattr(a, part)[lut.allowed], getattr(b, part)[lut.allowed])
        if back.fixed_included:
            np.testing.assert_array_equal(a.fixed_value, b.fixed_value)
        else:
            assert np.isnan(b.fixed_value).all()


def test_a_table_with_a_part_of_stem_and_head_includes_none(tmp_path: Path) -> None:
    cells = "".join(f"{layer},k3_e1,0.5,s{layer}\n" for layer in range(4))
    text = f"layer,op,latency_s,flags\n-1,stem0,0.1,odd\n-1,head1,,\n{cells}"
    lut = csv_table.load(SPACE, HOW, csv_file(tmp_path, text))
    assert not lut.fixed_included
    assert lut.predict([[0, 0, 0, 0]])[0, 0] == 2.0
    assert lut.provenance["origin"]["note"].endswith("contribute nothing to a prediction (no number of head0, head1)")
    assert set(lut.flags.values()) == {("s0",), ("s1",), ("s2",), ("s3",)}
    whole = csv_table.load(SPACE, HOW, csv_file(tmp_path, f"{text}-1,head0,0.1,\n".replace("head1,,", "head1,0.1,")))
    assert whole.fixed_included
    assert whole.predict([[0, 0, 0, 0]])[0, 0] == pytest.approx(2.3)


def test_a_table_of_ones_own_needs_three_columns(tmp_path: Path) -> None:
    lut = csv_table.load(SPACE, HOW, csv_file(tmp_path, "layer,op,latency_s,who\n0,k3_e1,0.5,me\n1,k5_e6,,me\n"))
    assert lut.latency_s[0, 0] == 0.5
    assert lut.energy is None
    assert not lut.fixed_included
    assert lut.coverage["latency"] == pytest.approx(1 / 34)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: there is no column 'layer'"),
        ("layer,op\n0,k3_e1\n", "line 1: there is neither a column 'latency_s' nor 'energy_j'"),
        ("layer,op,latency_s\n", "has a header and no rows"),
        ("layer,op,latency_s\n0,k3_e1,\n", "holds no number in latency_s or energy_j"),
        ("layer,op,latency_s,latency_s\n", "the column 'latency_s' stands twice"),
        ("layer,op,latency_s\n0,k3_e1\n", "line 2: 2 fields; the header has 3"),
        ("layer,op,latency_s\n0,k9_e1,1\n", "line 2: layer '0', op 'k9_e1' is no cell of space sample"),
        ("layer,op,latency_s\n0,skip,1\n", "line 2: layer '0', op 'skip' is no cell"),
        ("layer,op,latency_s\n99,k3_e1,1\n", "line 2: layer '99'"),
        ("layer,op,latency_s\n0,k3_e1,1\n0,k3_e1,1\n", "line 3: layer 0, k3_e1 stands twice"),
        ("layer,op,latency_s\n0,k3_e1,fast\n", "line 2, latency_s: 'fast' is no number"),
        ("layer,op,latency_s\n0,k3_e1,nan\n", "line 2, latency_s: 'nan' is not finite"),
        ("layer,op,latency_s\n0,k3_e1,1e999\n", "line 2, latency_s: '1e999' is not finite"),
        ("layer,op,latency_s\n0,k3_e1,-1\n", "line 2, latency_s: -1 is negative"),
        ("layer,op,latency_s,latency_corrected_s\n0,k3_e1,1,-1\n", "line 2, latency_corrected_s: -1 is negative"),
        ("layer,op,latency_s,n\n0,k3_e1,1,1.5\n", "line 2, n: '1.5' is no number of samples"),
        ("layer,op,latency_s,latency_corrected_s\n0,k3_e1,,1\n0,k5_e1,1,1\n", "line 2: .* without the measured one"),
        ('layer,op,latency_s\n0,"k3_e1,1\n', "not CSV"),
        ("layer,op,latency_s,operator_id\n0,k3_e1,1,0123456789abcdef\n", "the table is of another space"),
        ("layer,op," + ",".join(f"c{i}" for i in range(200)) + "\n", "202 columns"),
    ],
)
def test_bad_tables_name_file_line_and_column(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words) as refusal:
        csv_table.load(SPACE, HOW, csv_file(tmp_path, text))
    assert "table.csv" in str(refusal.value)


# ---- files of ours under any name ----


@pytest.mark.parametrize("format_", ["lut", "json", "parquet"])
def test_a_whole_lut_is_imported_with_its_digest_and_its_origin(tmp_path: Path, format_: str) -> None:
    lut = lut_of(SPACE, version=7)
    lut.save(tmp_path / f"theirs.{format_}")
    (tmp_path / f"theirs.{format_}").rename(tmp_path / "theirs")
    back = tables.load_file(format_, tmp_path / "theirs", SPACE, HOW, "rpi3b")
    assert back.digest == lut.digest
    assert back.provenance["origin"] == {
        "format": format_,
        "files": {"lut": "theirs"},
        "note": "a LUT of edgelut, there version 7",
    }
    with pytest.raises(BadInputError, match="is of space sample, which is not fbnet-cifar10"):
        tables.load_file(format_, tmp_path / "theirs", load_space("fbnet-cifar10"))
    with pytest.raises(BadInputError, match="is of device type rpi3b, not theirs"):
        tables.load_file(format_, tmp_path / "theirs", device_type="theirs")


def test_the_origin_of_an_import_survives_a_second_one(tmp_path: Path) -> None:
    paths, _ = exported(tmp_path, "hanna", lut_of(SPACE))
    first = tables.load_tables("hanna", SPACE, HOW, *paths)
    first.save(tmp_path / "theirs.lut")
    again = tables.load_file("lut", tmp_path / "theirs.lut")
    assert again == first
    assert kept_of(again, "hanna", "latency") == kept_of(first, "hanna", "latency")


def test_pairs_need_their_files(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="name both"):
        tables.load_tables("hanna", SPACE, HOW, tmp_path / "a", None)
    with pytest.raises(BadInputError, match="needs a file of latencies"):
        tables.load_tables("ofa", SPACE, HOW, None, None)
    with pytest.raises(BadInputError, match="say with --energy FILE where the energy goes"):
        tables.save_pair({"latency": "", "energy": ""}, tmp_path / "a", None)
    with pytest.raises(BadInputError, match="the LUT holds no energy"):
        tables.save_pair({"latency": ""}, tmp_path / "a", tmp_path / "b")
    assert not list(tmp_path.iterdir())
