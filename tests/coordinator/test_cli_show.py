from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from rich.console import Console, RenderableType

from coordinator.cli import show
from coordinator.record import configuration_line, emulation_notice
from protos.types import CellRef
from tests.coordinator.luts import validated_lut, with_hole
from tests.lut_store.samples import fbnet
from tests.lut_store.test_estimated import modelled, without
from tests.lut_store.test_lut import imported


def text(part: RenderableType, width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(part)
    return out.getvalue()


def test_the_heading_says_plainly_what_is_emulated() -> None:
    assert "EMULATED" not in text(show.heading(validated_lut()))
    assert "EMULATED METER" in text(show.heading(validated_lut(emulation="meter")))
    assert "EMULATED DEVICE" in text(show.heading(validated_lut(emulation="device")))
    lut = validated_lut()
    assert "rpi3b/sample@3" in text(show.heading(lut))
    assert configuration_line(lut) == "cold context, 1 thread, batch 1, torch-eager float32"
    assert emulation_notice(lut) == ""


def test_the_summary_fits_a_narrow_terminal() -> None:
    lines = text(show.summary(validated_lut(fbnet())), width=100).splitlines()
    assert len(lines) == 3
    assert "191 of 191" in lines[1]
    assert "…" not in "".join(lines)
    assert "not measured" in text(show.summary(validated_lut(energy=False)))


def test_the_grid_leaves_forbidden_cells_blank_and_shows_stem_and_head() -> None:
    lut = validated_lut(fbnet())
    lines = text(show.grid(lut, "latency")).splitlines()
    assert "latency, ms" in lines[0]
    assert len(lines) == 2 + 22 + 3
    assert len(lines[2].split()) == 3 + 8  # no skip on the first layer
    assert lines[4].split()[-1] == "0"  # a skip costs nothing
    assert lines[-1].split()[:2] == ["head1", "pool_linear"]


def test_a_cell_without_a_number_is_a_dash() -> None:
    lut = with_hole(validated_lut())
    assert "–" in text(show.grid(lut, "latency"))
    cells = int(lut.allowed.sum())
    assert f"{cells - 1} of {cells}" in text(show.summary(lut))
    assert "no latency" in text(show.cells(lut))


def test_the_cells_say_who_shares_an_operator() -> None:
    cells = text(show.cells(validated_lut()), width=200)
    assert "1 other" in cells
    assert "disturbed" in cells


def test_the_validation_reports_the_uncorrected_error_first() -> None:
    shown = text(show.validation(validated_lut()))
    assert (
        shown.index("latency, uncorrected") < shown.index("latency, corrected") < shown.index("energy above idle, unc")
    )
    assert "3 anchor networks" in shown
    assert "Not validated" in text(show.validation(replace(validated_lut(), validation={})))


def test_hot_loops_and_the_other_context_stand_beside() -> None:
    lut = validated_lut()
    errors = lut.validation["latency"]["uncorrected"]
    record = lut.validation["latency"] | {"isolated": errors, "isolated_with_factor": errors}
    contexts = {"other": "steady", "ratio": 0.78, "spearman": 0.96, "n": 12}
    shown = text(show.validation(replace(lut, validation={**lut.validation, "latency": record, "contexts": contexts})))
    assert "from hot loops × factor" in shown
    assert "in the steady context the same networks take 22.0 % less time (rank correlation 0.960)" in shown


def test_the_provenance_names_device_host_method_and_meter() -> None:
    shown = text(show.provenance(validated_lut()))
    for part in (
        "pi-01, Raspberry Pi 3 Model B Rev 1.2, torch 2.9.1",
        "paths, preset quick, seed 7",
        "40 clean, 2 flagged and left out; caches swept with 64 MiB",
        "latency 1:01, energy 5:00",
        "50 to 59 °C, 1200 MHz, governor performance, never throttled",
        "UM25C at 2 Hz, 1 losses",
    ):
        assert part in shown
    bare = replace(validated_lut(), provenance={})
    assert "digest" in text(show.provenance(bare))


def test_findings_and_a_shift_of_the_anchors_are_said() -> None:
    lut = validated_lut()
    more = {"findings": ["12 cells: wider than asked"], "anchor_shift": {"against": "rpi3b/sample@2", "shift": 0.03}}
    shown = text(show.validation(replace(lut, validation={**lut.validation, **more})))
    assert "! 12 cells: wider than asked" in shown
    assert "3 anchor networks: +3.00 % from rpi3b/sample@2" in shown


def test_rounds_that_were_all_flagged_are_not_called_clean() -> None:
    lut = validated_lut()
    shown = text(show.provenance(replace(lut, provenance={**lut.provenance, "rounds": 6, "rounds_flagged": 6})))
    assert "6, all flagged and used for want of others" in shown


def test_a_metric_without_any_number_is_shown_as_unknown_beside_one_that_is_there() -> None:
    lut = validated_lut()
    assert lut.energy is not None
    value = np.where(lut.energy.value == 0, 0.0, np.nan)
    ends = np.full_like(lut.energy.fixed_value, np.nan)
    empty = replace(lut.energy, value=value, corrected=value, fixed_value=ends, fixed_corrected=ends)
    lut = replace(lut, energy=empty)
    latency, energy = text(show.summary(lut)).splitlines()[1:]
    assert energy.split()[-3:] == ["–", "–", "–"]
    assert "–" not in latency
    shown = text(show.validation(lut))
    assert "latency, corrected" in shown


def test_what_is_not_included_or_guessed_stands_above_everything() -> None:
    assert "NOT INCLUDED: stem and head" in text(show.heading(imported()))
    assert "NOT INCLUDED" not in text(show.heading(validated_lut()))
    partial = without(modelled(fbnet()), [CellRef(2, 3)])
    assert "ESTIMATED" not in text(show.heading(partial))
    assert "ESTIMATED: latency of 3 cells (1 operators), from 98 measured; mbconv by " in text(
        show.heading(partial.estimated()), width=300
    )
    assert "cross-validated error" in text(show.heading(partial.estimated()), width=300)


def test_the_origin_of_an_imported_table_is_shown() -> None:
    origin = {"format": "hanna", "files": {"latency": "speed.txt", "energy": "energy.txt"}, "note": "imported"}
    lut = validated_lut(provenance={"method": {"latency": "imported"}, "origin": origin})
    shown = text(show.provenance(lut))
    assert "speed.txt and energy.txt (hanna): imported" in shown
    assert "preset" not in shown
