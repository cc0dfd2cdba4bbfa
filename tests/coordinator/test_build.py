"""Versions from stored evidence: what makes them equal, what sets them apart, and where they come from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.build import BuildRequest, build, build_lut
from coordinator.software import git_state
from lut_store.estimate.settings import Settings
from lut_store.lut import Lut
from lut_store.store import Store
from protos.errors import BadInputError, NotFoundError
from protos.types import Calibration, MeterInfo
from tests.coordinator.recorded import FACTS, Board, add_task, record, rounds_of, spec_of, traces_of, true_latency_s


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database: a copy is much quicker than the migrations."""
    path = tmp_path_factory.mktemp("template") / "edgelut.db"
    Store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def stores(template: Path, tmp_path: Path) -> Iterator[list[Store]]:
    """Two databases that know nothing of each other."""
    opened = [Store(f"sqlite:///{shutil.copy(template, tmp_path / f'{name}.db')}") for name in ("one", "two")]
    yield opened
    for store in opened:
        store.close()


@pytest.fixture
def store(stores: list[Store]) -> Store:
    return stores[0]


def built(store: Store, *runs: str, **options: object) -> Lut:
    return build(store, BuildRequest(runs, **options))  # type: ignore[arg-type]


def items_s(lut: Lut) -> np.ndarray:
    """(L, K) flat, the order of the items of recorded.spec_of."""
    return lut.latency_s.ravel()


# ---- the same evidence and settings ----


def test_a_profile_and_a_build_with_defaults_are_one_version(stores: list[Store]) -> None:
    store, other = stores
    record(store, "one")
    profiled = build_lut(store, "one")
    again = built(store, "one")
    assert (again.digest, again.version) == (profiled.digest, 1)
    assert again == profiled
    record(other, "one")
    assert built(other, "one").digest == profiled.digest


def test_the_order_of_runs_and_their_repetition_change_nothing(store: Store) -> None:
    record(store, "one", energy=False)
    record(store, "two", spec=spec_of(1), energy=False, seed=1)
    first = built(store, "one", "two")
    assert built(store, "two", "one", "two").digest == first.digest
    assert first.provenance["runs"] == ["one", "two"]


def test_the_default_record_of_the_method_stays_as_it_was(store: Store) -> None:
    record(store, "one")
    assert built(store, "one").provenance["method"] == {
        "latency": "paths",
        "latency_statistic": "median per operator, common mode of the machine taken out",
        "energy": "one least-squares fit of the trace, (P_load - P_idle) x t",
        "dedupe": True,
    }


# ---- settings ----


def test_each_setting_makes_a_version_of_its_own_and_says_so(store: Store) -> None:
    spec = record(store, "one")
    luts = {
        name: built(store, "one", settings=settings)
        for name, settings in {
            "default": Settings(),
            "p10": Settings(latency="p10"),
            "mean": Settings(latency="mean"),
            "peak": Settings(energy="peak"),
            "hanna": Settings(energy_form="hanna"),
            "plain": Settings(correction=False),
        }.items()
    }
    assert [lut.version for lut in luts.values()] == [1, 2, 3, 4, 5, 6]
    assert len({lut.digest for lut in luts.values()}) == 6
    assert len({str(lut.provenance["method"]) for lut in luts.values()}) == 6
    assert luts["p10"].provenance["settings"] == Settings(latency="p10").document()
    default = luts["default"]
    assert (items_s(luts["p10"]) < items_s(default)).all()
    np.testing.assert_allclose(items_s(luts["mean"]), items_s(default), rtol=0.03)
    np.testing.assert_allclose(items_s(default), true_latency_s(spec), rtol=0.05)
    np.testing.assert_array_equal(luts["peak"].latency_s, default.latency_s)
    assert np.median(luts["peak"].energy_j / default.energy_j) > 1.0
    for lut in luts.values():
        assert np.isfinite(lut.predict_interval([[0, 1, 2, 0]])).all()
        assert lut.validation["energy"]["corrected"]["n"] > 0


def test_the_form_of_hanna_leaves_out_the_sag_and_both_forms_are_kept(store: Store) -> None:
    record(store, "one")
    default, hanna = built(store, "one"), built(store, "one", settings=Settings(energy_form="hanna"))
    assert "5.1 V x (I_dynamic - I_idle) x t" in hanna.provenance["method"]["energy"]
    # At a supply that sags, the load's share of the power is less than 5.1 V times its share of the current.
    assert (hanna.energy_j > default.energy_j).mean() > 0.9
    for lut, key in ((default, "power_j"), (hanna, "hanna_j")):
        forms = lut.provenance["energy_forms"]
        assert set(forms) == {"hanna_voltage_v", "operators", "power_j", "hanna_j"}
        np.testing.assert_allclose(lut.energy_j.ravel(), forms[key])


def test_without_correction_the_sums_are_plain_and_the_error_is_known(store: Store) -> None:
    record(store, "one")
    lut = built(store, "one", settings=Settings(correction=False))
    for metric in (lut.latency, lut.energy):
        assert metric is not None
        np.testing.assert_array_equal(metric.corrected, metric.value)
        assert np.isfinite(metric.residual_rel_sd)
    assert lut.provenance["method"]["correction"] == "none"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"latency": "medain"}, "unknown --latency 'medain'.*did you mean 'median'"),
        ({"energy": "top"}, "unknown --energy 'top' \\(known: plateau, peak\\)"),
        ({"energy_form": "volts"}, "unknown --energy-form 'volts'"),
    ],
)
def test_a_setting_that_is_none_is_refused(settings: dict[str, str], says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        Settings(**settings)  # type: ignore[arg-type]


# ---- merging ----


def test_two_runs_give_one_table_that_is_known_better(store: Store) -> None:
    spec = record(store, "one")
    record(store, "two", spec=spec_of(1), seed=1)
    alone, both = built(store, "one"), built(store, "one", "two")
    assert alone.latency is not None
    assert both.latency is not None
    assert both.latency.n.sum() > 1.8 * alone.latency.n.sum()
    assert both.provenance["rounds"] == 2 * alone.provenance["rounds"]
    assert np.nanmedian(both.latency.se) < np.nanmedian(alone.latency.se)
    np.testing.assert_allclose(items_s(both), true_latency_s(spec), rtol=0.05)
    fitted = [n.choices for run in ("one", "two") for n in store.run(run).spec.networks if n.role == "fit"]
    held_out = both.validation["latency"]["networks"]
    assert len(held_out) > len(alone.validation["latency"]["networks"])
    assert not {tuple(network["choices"]) for network in held_out} & set(fitted)
    assert len(both.validation["anchors"]) == 2  # the same in both


def other(board: Board, **facts: object) -> Board:
    return replace(board, facts=replace(FACTS, **facts))  # type: ignore[arg-type]


DIFFERENT = {
    "governor": (replace(Board(), governor="ondemand"), {}, "performance (run one), ondemand (run two)"),
    "torch": (other(Board(), torch_version="2.10.0"), {}, "2.9.1 (run one), 2.10.0 (run two)"),
    "kernel": (other(Board(), kernel="6.12.1"), {}, "6.6.20 (run one), 6.12.1 (run two)"),
    "model": (other(Board(), model=""), {}, "Board 1.2 (run one), not known (run two)"),
    "meter": (replace(Board(), meter=MeterInfo("tc66c")), {}, "um25c (run one), tc66c (run two)"),
    "threads": (Board(), {"threads": 2}, "1 (run one), 2 (run two)"),
    "context": (Board(), {"context": "steady"}, "cold (run one), steady (run two)"),
    "sweep_bytes": (Board(), {"sweep_bytes": 4096}, "0 bytes (run one), 4096 bytes (run two)"),
}


@pytest.mark.parametrize("field", DIFFERENT)
def test_runs_that_differ_are_refused_by_name_until_it_is_allowed(store: Store, field: str) -> None:
    board, plan, values = DIFFERENT[field]
    record(store, "one", energy=field == "meter")
    profiled = build_lut(store, "one")  # keeps what the board was then
    store.set_run("one", "done", lut_digest=profiled.digest, lut_reference=profiled.reference)
    record(store, "two", [board], spec=spec_of(1, **plan), energy=field == "meter", seed=1)
    with pytest.raises(BadInputError) as refused:
        built(store, "one", "two")
    assert f"the runs differ in {field}: {values}" in str(refused.value)
    assert f"--allow-different {field}" in str(refused.value)
    assert len(store.luts()) == 1
    lut = built(store, "one", "two", allow_different=(field,))
    assert set(lut.provenance["differing"]) == {field}
    assert set(lut.provenance["conditions"][field]) == set(values.replace(" (run one)", "").replace(
        " (run two)", "").split(", "))  # fmt: skip
    assert any(f"differ in {field}, which was allowed: {values}" in said for said in lut.validation["findings"])


def test_everything_that_differs_is_named_at_once(store: Store) -> None:
    record(store, "one", energy=False)
    board = replace(Board("pi-02"), governor="ondemand", facts=replace(FACTS, kernel="6.12.1"))
    record(store, "two", [board], spec=spec_of(1), energy=False)
    with pytest.raises(
        BadInputError, match=r"governor: .*; in kernel: .*--allow-different governor --allow-different k"
    ):
        built(store, "one", "two")


def test_real_and_emulated_never_merge_nor_do_spaces_or_types(store: Store) -> None:
    record(store, "real", energy=False)
    record(store, "emulated", [Board("emu", emulation="device")], spec=spec_of(1), energy=False)
    record(store, "other type", [Board("pi4", device_type="rpi4")], spec=spec_of(1), energy=False)
    named = spec_of(1)
    space = replace(named.space, name="another")
    record(store, "other space", spec=replace(named, space=space), energy=False)
    for run, says in {
        "emulated": "differ in emulation: device .*, none .*never mix",
        "other type": "differ in device_type: rpi4 .*, rpi3b ",
        "other space": "differ in space: another .*, test ",
    }.items():
        with pytest.raises(BadInputError, match=says):
            built(store, run, "real")
    with pytest.raises(BadInputError, match="--allow-different emulation: what is real and what is emulated never mix"):
        built(store, "emulated", "real", allow_different=("emulation",))
    with pytest.raises(BadInputError, match=r"unknown field that may differ 'governer'.*did you mean 'governor'"):
        built(store, "real", allow_different=("governer",))


def test_what_differs_inside_one_run_is_said_not_refused(store: Store) -> None:
    boards = [Board(), other(Board("pi-02"), kernel="6.12.1")]
    record(store, "one", boards, energy=False)
    lut = build_lut(store, "one")
    assert "one run with different kernel: 6.12.1, 6.6.20" in lut.validation["findings"]


# ---- several boards ----


def test_boards_of_a_type_give_one_table_with_their_spread(store: Store) -> None:
    boards = [Board("pi-01"), Board("pi-02", 1.03, 1.02), Board("pi-03", 0.97, 0.98)]
    spec = record(store, "shared", boards)
    lut = built(store, "shared")
    spread = lut.provenance["boards"]["latency"]
    assert [device["name"] for device in spread["devices"]] == ["pi-01", "pi-02", "pi-03"]
    np.testing.assert_allclose([device["ratio"] for device in spread["devices"]], [1, 1.03, 0.97], atol=0.012)
    assert spread["between_rel_sd"] == pytest.approx(0.03, abs=0.012)
    assert spread["outside"] == []
    np.testing.assert_allclose(items_s(lut), true_latency_s(spec), rtol=0.05)
    assert lut.latency is not None
    within = np.array(spread["devices"][0]["se_s"])
    assert (lut.latency.se.ravel() > within / 2).all()
    assert (lut.latency.se.ravel() >= 0.9 * items_s(lut) * spread["between_rel_sd"] / np.sqrt(3)).all()
    assert lut.latency.factor_rel_se > spread["level_rel_sd"]
    frame = lut.frame()
    np.testing.assert_allclose(frame["latency_between_sd_s"], frame["latency_s"] * spread["between_rel_sd"])
    assert "energy" in lut.provenance["boards"]


def test_one_board_has_no_spread_and_its_numbers_stay(store: Store) -> None:
    record(store, "one", energy=False)
    lut = built(store, "one")
    assert lut.provenance["boards"] is None
    assert lut.frame()["latency_between_sd_s"].isna().all()


def test_a_board_outside_the_others_is_named_and_can_be_left_out(store: Store) -> None:
    boards = [Board("pi-01"), Board("pi-02", 1.005), Board("pi-03", 1.12), Board("pi-04", 0.995)]
    spec = record(store, "shared", boards, energy=False)
    lut = built(store, "shared")
    assert lut.provenance["boards"]["latency"]["outside"] == ["pi-03"]
    said = [finding for finding in lut.validation["findings"] if "lies outside" in finding]
    assert len(said) == 1
    assert said[0].startswith("pi-03 lies outside the other boards: latency +1")
    assert said[0].endswith("leave it out with --exclude-device pi-03")
    without = built(store, "shared", exclude_devices=("pi-03",))
    assert without.digest != lut.digest
    assert without.provenance["excluded_devices"] == ["pi-03"]
    assert [device["name"] for device in without.provenance["devices"]] == ["pi-01", "pi-02", "pi-04"]
    assert without.provenance["boards"]["latency"]["outside"] == []
    assert "left out as asked: pi-03" in without.validation["findings"]
    np.testing.assert_allclose(items_s(without), true_latency_s(spec), rtol=0.04)
    assert without.provenance["boards"]["latency"]["between_rel_sd"] < 0.02


def test_a_board_that_measured_too_little_alone_still_counts(store: Store) -> None:
    spec, late = record(store, "shared"), Board("pi-02")
    store.upsert_device(late.device())
    add_task(store, "shared", late, "latency", rounds_of(spec, 7, 1.0))
    trace = traces_of(spec, 7, late)[0]
    loaded = tuple(window for window in trace.windows if window.subject != "idle")[:2]
    add_task(store, "shared", late, "energy", [replace(trace, windows=loaded)])
    lut = built(store, "shared")
    assert [device["name"] for device in lut.provenance["devices"]] == ["pi-01", "pi-02"]
    assert "latency" in lut.provenance["boards"]
    assert "energy" not in lut.provenance["boards"]
    assert np.isfinite(lut.energy_j).all()


def test_of_two_boards_nobody_is_the_odd_one(store: Store) -> None:
    record(store, "one", [Board("pi-01")], energy=False)
    record(store, "two", [Board("pi-02", 1.08)], spec=spec_of(1), energy=False, seed=1)
    lut = built(store, "one", "two")
    assert lut.provenance["boards"]["latency"]["outside"] == []
    assert any(
        finding.startswith("pi-01 and pi-02 are ") and "a third board" in finding
        for finding in lut.validation["findings"]
    )


def test_a_device_that_measured_nothing_cannot_be_left_out_nor_can_all(store: Store) -> None:
    record(store, "one", energy=False)
    with pytest.raises(
        BadInputError, match=r"unknown device to leave out 'pi-1' \(known: pi-01\); did you mean 'pi-01'"
    ):
        built(store, "one", exclude_devices=("pi-1",))
    with pytest.raises(BadInputError, match="without pi-01 nothing is left"):
        built(store, "one", exclude_devices=("pi-01",))


# ---- where it comes from ----


def test_parents_are_the_versions_from_the_same_runs(store: Store) -> None:
    record(store, "one", energy=False)
    record(store, "two", spec=spec_of(1), energy=False, seed=1)
    first, second = built(store, "one"), built(store, "two")
    assert first.provenance["parents"] == second.provenance["parents"] == []
    assert second.provenance["follows"] == {"reference": first.reference, "digest": first.digest}
    both = built(store, "one", "two")
    assert [parent["reference"] for parent in both.provenance["parents"]] == [first.reference, second.reference]
    low = built(store, "one", settings=Settings(latency="p10"))
    assert [parent["digest"] for parent in low.provenance["parents"]] == [first.digest]
    assert low.provenance["follows"] is None  # another method says nothing of how the board has moved
    record(store, "three", spec=spec_of(2), energy=False, seed=2)
    third = built(store, "three")  # the newest version is of another method: the one before it is what this follows
    assert third.provenance["follows"] == {"reference": both.reference, "digest": both.digest}
    assert third.validation["anchor_shift"]["against"] == both.reference
    lower = built(store, "one", "two", settings=Settings(latency="p10"))
    assert [parent["digest"] for parent in lower.provenance["parents"]] == [both.digest]
    asked = built(store, "two", settings=Settings(latency="mean"), parents=(both.digest,))
    assert [parent["digest"] for parent in asked.provenance["parents"]] == [second.digest, both.digest]
    assert [lut.version for lut in (first, second, both, low, third, lower, asked)] == list(range(1, 8))


def test_the_provenance_says_what_a_reader_needs(store: Store) -> None:
    calibration = Calibration(0.4, 1.2, 0.01, 0.5, 1.3, 1.5, id="abc")
    meter = MeterInfo("um25c", model="UM25C", serial="42", rate_hz=2.0, calibration=calibration)
    record(store, "one", [Board(meter=meter)])
    p = built(store, "one").provenance
    assert p["meter"]["calibration"]["id"] == "abc"
    assert [(m["device"], m["serial"], m["calibration"]["lag_s"]) for m in p["meters"]] == [("pi-01", "42", 0.4)]
    assert p["conditions"]["governor"] == ["performance"]
    assert p["conditions"]["kernel"] == ["6.6.20"]
    assert p["devices"][0]["facts"]["torch_version"] == "2.9.1"
    assert p["differing"] == {}
    assert p["software"]["edgelut"]
    assert set(p["software"]["git"] or {"commit", "changed"}) == {"commit", "changed"}


def test_the_facts_of_a_board_are_those_of_the_time_of_its_run(store: Store) -> None:
    record(store, "one", energy=False)
    first = build_lut(store, "one")
    store.set_run("one", "done", lut_digest=first.digest, lut_reference=first.reference)
    store.upsert_device(replace(Board(), facts=replace(FACTS, kernel="6.12.1")).device())
    assert built(store, "one", settings=Settings(latency="mean")).provenance["conditions"]["kernel"] == ["6.6.20"]


def test_no_git_is_no_error(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert git_state(tmp_path) is None


# ---- what cannot be built ----


def test_what_cannot_be_built_is_said(store: Store) -> None:
    store.add_run("empty", spec_of())
    record(store, "check", spec=replace(spec_of(), purpose="validate"), energy=False)
    with pytest.raises(NotFoundError, match="there is no run nothing; `coordinator runs list` shows"):
        built(store, "nothing")
    with pytest.raises(BadInputError, match="no run is named"):
        built(store)
    with pytest.raises(BadInputError, match="run empty has no latency measurement"):
        built(store, "empty")
    with pytest.raises(BadInputError, match="run check was to validate a LUT"):
        built(store, "check")
    record(store, "one", energy=False)
    with pytest.raises(NotFoundError, match="there is no LUT with the digest 0000"):
        built(store, "one", parents=("0" * 64,))
    assert store.luts() == []
