"""Each rule finds what it is for and is silent without it; HANNA's tables have the flaws that are known of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lut_store.lint import RULES, lint
from lut_store.lut import Lut
from lut_store.metric import Metric
from protos.types import CellRef, Configuration, Finding
from tests.hanna import hanna_lut, needs_tables
from tests.lut_store.samples import fbnet, items_of, lut_of, space_of

SPACE = fbnet()
TYPICAL_W = 1.5  # above idle, of a Pi 3B that works


def true_metric(*, energy: bool = False, rel_se: float = 0.01, n: int = 40, factor: float = 1.0) -> Metric:
    """Costs that grow with the work of the block, as those of a real board do."""
    items = items_of(SPACE)
    work = np.array(
        [i.spec.in_channels * i.spec.expansion * (i.spec.kernel**2 + i.spec.out_channels) for i in items], float
    )
    value = 1e-4 + 1e-8 * work / np.array([i.spec.groups for i in items])
    value *= TYPICAL_W if energy else 1.0
    return Metric.from_items(SPACE, items, value, rel_se * value, np.full(len(items), n), factor * value)


def good(**changes: Any) -> Lut:
    values: dict[str, Any] = {
        "configuration": Configuration("rpi3b", SPACE.name),
        "latency": true_metric(),
        "energy": true_metric(energy=True),
        "flags": {},
        "provenance": {
            "rounds_flagged": 2,
            "rounds_left_out": 2,
            "disturbed_share": 0.05,
            "host": {"throttled_bits": 0},
            "drift": {"latency": 0.004, "latency_se": 0.002},
            "power": {"idle_power_w": 1.3, "idle_power_sd_w": 0.01},
            "meter": {
                "kind": "um25c",
                "model": "UM25C",
                "emulated": False,
                "calibration": {"measured_wall_s": 1.7e9},
            },
        },
        "created_wall_s": 1.7e9 + 86400,
    }
    values |= changes
    return replace(lut_of(SPACE), **values)


def with_provenance(**changes: Any) -> Lut:
    return good(provenance={**good().provenance, **changes})


def changed(metric: Metric, places: dict[tuple[int, int], float]) -> Metric:
    """The cells at `places` multiplied."""
    value, corrected = metric.value.copy(), metric.corrected.copy()
    for place, factor in places.items():
        value[place] *= factor
        corrected[place] *= factor
    return replace(metric, value=value, corrected=corrected)


def without_se(metric: Metric) -> Metric:
    unknown = np.full_like(metric.se, np.nan)
    return replace(metric, se=unknown, fixed_se=np.full_like(metric.fixed_se, np.nan))


def only(lut: Lut, rule: str) -> Finding:
    """The one finding that there is."""
    (finding,) = lint(lut)
    assert finding.rule == rule
    return finding


def test_a_good_table_has_no_findings() -> None:
    assert lint(good()) == ()
    assert lint(good(energy=None)) == ()
    assert lint(lut_of(space_of(), provenance={})) is not None  # nothing is known of how it was measured
    bare = good(provenance={})
    assert lint(bare) == ()


def test_findings_are_pure_and_errors_come_first() -> None:
    lut = with_provenance(disturbed_share=0.5, rounds_left_out=0)
    assert lint(lut) == lint(lut)
    assert [finding.severity for finding in lint(lut)] == ["error", "warning"]


# ---- power ----


def test_power_beyond_what_the_board_draws_and_beyond_its_supply() -> None:
    hot = {(3, 0): 2.2, (4, 1): 9.0}
    energy = changed(true_metric(energy=True), hot)
    # The two cells are twins of others, and larger blocks are now cheaper: that is found too.
    errors = [f for f in lint(good(energy=energy)) if f.rule == "implied-power"]
    assert [(f.severity, f.metric) for f in errors] == [("error", "energy"), ("warning", "energy")]
    assert errors[0].cells == (CellRef(4, 1),)
    assert "more than 11.45 W above idle, which with 1.30 W at rest is the 12.75 W that its supply can give" in (
        errors[0].sentence
    )
    assert set(errors[1].cells) == {CellRef(3, 0), CellRef(4, 1)}
    assert "13.5 W (layer 4, k3_e1_g2)" in errors[1].sentence


def test_power_within_the_uncertainty_is_no_finding() -> None:
    energy = true_metric(energy=True, rel_se=0.3)
    assert lint(good(energy=changed(energy, dict.fromkeys([(layer, 0) for layer in range(22)], 2.0)))) == ()


def test_a_cell_without_power_was_not_measured() -> None:
    energy = changed(true_metric(energy=True), {(0, 0): -1.0})
    finding = next(f for f in lint(good(energy=energy)) if f.severity == "error")
    assert "imply no power above idle" in finding.sentence
    assert finding.cells == (CellRef(0, 0),)


def test_a_board_that_nobody_knows_has_no_limit() -> None:
    energy = changed(true_metric(energy=True), dict.fromkeys([(layer, 0) for layer in range(22)], 9.0))
    unknown = good(energy=energy, configuration=Configuration("toaster", SPACE.name))
    assert "implied-power" not in {f.rule for f in lint(unknown)}
    # What the device says of itself counts more than the name of its type.
    devices = [{"facts": {"model": "Raspberry Pi 5 Model B Rev 1.0"}}]
    pi5 = replace(unknown, provenance={**unknown.provenance, "devices": devices})
    assert "implied-power" not in {f.rule for f in lint(pi5)}
    pi3 = [{"facts": {"model": "Raspberry Pi 3 Model B Plus Rev 1.3"}}]
    severities = [
        f.severity
        for f in lint(replace(unknown, provenance={**unknown.provenance, "devices": pi3}))
        if f.rule == "implied-power"
    ]
    assert severities == ["error"]  # a 3B+ has a supply, but nobody has told what it draws


# ---- skip, twins, order ----


def test_a_skip_that_costs_something() -> None:
    latency = true_metric()
    value = latency.value.copy()
    value[2, 8] = 0.04 * value[2, :8].min()
    assert lint(good(latency=replace(latency, value=value, corrected=value))) == ()
    value[3, 8] = 0.5 * value[3, :8].min()
    finding = only(good(latency=replace(latency, value=value, corrected=value)), "expensive-skip")
    assert (finding.severity, finding.metric, finding.cells) == ("error", "latency", (CellRef(3, 8),))
    assert "a skip costs 50% to 50% of the cheapest block on 1 layers" in finding.sentence


def test_twins_that_differ_beyond_their_uncertainty() -> None:
    alike = changed(true_metric(rel_se=0.05), {(3, 7): 1.1})  # 1.4 joint standard errors
    assert lint(good(latency=alike)) == ()
    differing = changed(true_metric(rel_se=0.01), {(3, 7): 1.2})
    finding = only(good(latency=differing, energy=None), "unequal-twins")
    assert finding.severity == "warning"
    assert "1 of 40 operators" in finding.sentence
    assert "1.00 times the cheapest in the median, 1.20 times at worst (layer 3, k5_e6 and layer 2, k5_e6)" in (
        finding.sentence
    )
    assert set(finding.cells) == {CellRef(2, 7), CellRef(3, 7), CellRef(4, 7)}


def test_without_uncertainty_the_ratio_decides() -> None:
    places = {(layer, op): 2.0 for layer in (3, 7, 11, 15, 19) for op in range(8)}
    finding = next(f for f in lint(good(energy=without_se(changed(true_metric(energy=True), places)))))
    assert (finding.rule, finding.severity) == ("unequal-twins", "error")
    assert "40 of 40 operators" in finding.sentence
    assert "2.00 times the cheapest in the median" in finding.sentence
    assert lint(good(latency=without_se(true_metric()))) == ()


@pytest.mark.parametrize(("small", "large", "what"), [(0, 2, "expansion"), (0, 4, "kernel")])
def test_costs_that_fall(small: int, large: int, what: str) -> None:
    latency = true_metric()
    ratio = latency.value[21, small] / latency.value[21, large]
    lut = good(latency=changed(latency, {(21, large): 0.8 * ratio}), energy=None)
    found = {f.sentence.split(" costs less")[0]: f for f in lint(lut)}
    finding = found[f"1 of 88 times a larger {what}"]
    assert (finding.severity, finding.cells) == ("warning", (CellRef(21, large),))
    assert f"layer 21, {SPACE.op_names[small]} takes" in finding.sentence
    uncertain = replace(lut, latency=changed(true_metric(rel_se=0.2), {(21, large): 0.8 * ratio}))
    assert lint(uncertain) == ()


# ---- the record ----


def test_few_meter_samples_count_where_there_was_a_meter() -> None:
    few = true_metric(energy=True, n=3)
    finding = only(good(energy=few), "few-meter-samples")
    assert "rest on fewer than 8 fresh meter samples, the least on 3" in finding.sentence
    assert len(finding.cells) == 176 + 3
    assert lint(good(energy=few, provenance={})) == ()


@pytest.mark.parametrize(
    ("change", "rule", "severity", "words"),
    [
        ({"rounds_left_out": 0}, "flagged-samples", "error", "2 rounds were hot, throttled or disturbed"),
        ({"disturbed_share": 0.4}, "flagged-samples", "warning", "40% of the executions ran in unusual moments"),
        ({"host": {"throttled_bits": 0b101}}, "flagged-samples", "warning", "under-voltage and throttling"),
        ({"drift": {"latency": 0.05, "latency_se": 0.002}}, "drift", "warning", "took +5.0% time in the last third"),
        ({"drift": {"latency": -0.2, "latency_se": 0.01}}, "drift", "error", "-20.0%"),
        ({"power": {"idle_power_w": 1.3, "idle_power_sd_w": 0.3}}, "drift", "warning", "idle power wandered by 23%"),
        ({"meter": {"kind": "um25c", "model": "UM25C", "serial": "77"}}, "calibration", "warning", "UM25C 77 has no"),
        (
            {
                "meter": {
                    "kind": "tc66c",
                    "firmware": "1.18",
                    "calibration": {"measured_wall_s": 1.7e9, "firmware": "1.14"},
                }
            },
            "calibration",
            "warning",
            "is of its firmware 1.14, not of 1.18",
        ),
        (
            {"meter": {"kind": "um25c", "calibration": {"measured_wall_s": 1.6e9}}},
            "calibration",
            "warning",
            "was 1158 days old",
        ),
        (
            {"meters": [{"kind": "um25c", "emulated": True}, {"kind": "tc66c", "device": "pi-02"}]},
            "calibration",
            "warning",
            "tc66c has no calibration",
        ),
    ],
)
def test_what_the_record_says(change: dict[str, Any], rule: str, severity: str, words: str) -> None:
    finding = only(with_provenance(**change), rule)
    assert finding.severity == severity
    assert words in finding.sentence


def test_what_the_record_does_not_say_is_no_finding() -> None:
    throttled_since_boot = {"host": {"throttled_bits": 0xF0000}}
    for change in (
        throttled_since_boot,
        {"drift": {"latency": 0.05, "latency_se": 0.03}},
        {"drift": None},
        {"meter": {"kind": "um25c", "emulated": True}},
        {"host": None},
    ):
        assert lint(with_provenance(**change)) == ()


def test_a_correction_far_from_one() -> None:
    assert lint(good(latency=true_metric(factor=1.03))) == ()
    assert "by +8.0%" in only(good(latency=true_metric(factor=1.08)), "correction").sentence
    assert only(good(latency=true_metric(factor=0.6)), "correction").severity == "error"


def test_cells_that_were_disturbed() -> None:
    finding = only(good(flags={CellRef(0, 1): ("throttled",), CellRef(1, 1): ("wider than asked",)}), "flagged-samples")
    assert finding.cells == (CellRef(0, 1),)


def test_every_rule_has_its_name_in_the_documentation() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "tags-and-lint.md").read_text()
    assert [name for name in RULES if f"`{name}`" not in text] == []


@needs_tables
def test_the_flaws_of_the_tables_of_hanna() -> None:
    found = {(f.rule, f.metric, f.severity): f for f in lint(hanna_lut())}
    beyond = found["implied-power", "energy", "warning"]
    assert "128 of 176 cells imply more than 2.55 W above idle" in beyond.sentence
    assert len(beyond.cells) == 128
    assert "13 of 176 cells" in found["implied-power", "energy", "error"].sentence
    twins = found["unequal-twins", "energy", "error"]
    assert "40 of 40 operators" in twins.sentence
    assert "2.08 times the cheapest in the median" in twins.sentence
    skip = found["expensive-skip", "latency", "error"]
    assert "a skip costs 49% to 73% of the cheapest block on 15 layers" in skip.sentence
    assert {cell.op for cell in skip.cells} == {8}
