"""What a new run need not measure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coordinator.missing import Known, best_of, difference, known_of, narrowed, newest_by_space, query_of
from coordinator.plan import make_run
from lut_store.completed import check_conditions, completed, reused_sentence
from lut_store.estimate.executions import covered
from lut_store.lut import Lut
from protos.errors import BadInputError
from protos.types import CellRef, Device, HostFacts, LutSummary, RunSpec, SearchSpace
from tests.lut_store.samples import items_of, lut_of, space_of
from tests.lut_store.test_estimated import modelled, without

SPACE = space_of(((1, 16, 1), (3, 24, 2)))
LARGER = space_of(((1, 16, 1), (3, 24, 2), (1, 32, 2)), name="larger")  # its head differs
RUNS = {"runs": ["r1"], "conditions": {"kernel": ["6.6"], "space": ["sample"]}}


def measured(space: SearchSpace = SPACE) -> Lut:
    lut = modelled(space)
    return replace(lut, provenance=dict(lut.provenance) | RUNS, version=3)


def run_of(space: SearchSpace, **options: object) -> RunSpec:
    return make_run(space, "rpi3b", **options)  # type: ignore[arg-type]


def test_a_version_of_the_same_space_spares_what_it_holds() -> None:
    partial = without(measured(), [CellRef(2, 3), CellRef(-1, 0)])
    known = known_of(partial, run_of(SPACE), energy=True)
    assert known.same_space
    assert {item.spec for item in known.missing} == {SPACE.spec(2, 3), SPACE.stem[0]}
    run = narrowed(run_of(SPACE), known)
    assert run.items == known.missing
    assert run.lut_digest == partial.digest
    assert 300 <= run.plan.energy_budget_s < run_of(SPACE).plan.energy_budget_s
    assert run.networks == run_of(SPACE).networks


def test_energy_is_missing_only_where_it_is_wanted() -> None:
    latency_only = replace(measured(), energy=None)
    assert known_of(latency_only, run_of(SPACE), energy=False).missing == ()
    assert known_of(latency_only, run_of(SPACE), energy=True).spared == ()


def test_another_space_spares_the_energy_of_common_operators() -> None:
    run = run_of(LARGER)
    known = known_of(measured(), run, energy=True)
    assert not known.same_space
    assert len(known.spared) == len(items_of(SPACE)) - 2  # all but the head's
    assert known_of(measured(), run, energy=False).spared == ()
    small = narrowed(run, known)
    assert len(small.items) == len(known.missing) + 3
    assert set(known.missing) < set(small.items)
    assert len(covered(small).items) == len(run.items)


def test_hot_loops_spare_latencies_too() -> None:
    run = run_of(LARGER, method="isolated", energy=False)
    assert known_of(measured(), run, energy=False).spared


def test_an_imported_table_has_no_evidence_to_add_to() -> None:
    with pytest.raises(BadInputError, match="was not measured here"):
        known_of(lut_of(SPACE), run_of(SPACE), energy=False)


def test_the_same_space_comes_before_one_that_spares_more() -> None:
    own = known_of(without(measured(), [CellRef(2, 3)]), run_of(SPACE), energy=True)
    other = replace(own, same_space=False, spared=own.spared * 2)
    assert best_of([other, own]) is own
    assert best_of([Known(own.lut, False, own.spared, ())]) is None


def test_the_newest_version_of_each_space_by_the_method() -> None:
    def summary(space: str, version: int, method: str = "paths") -> LutSummary:
        return LutSummary("rpi3b", space, version, "", "none", "cold", 1, 1, "", "", method, 0.0, "r")

    found = newest_by_space([summary("b", 9), summary("a", 2), summary("b", 10), summary("a", 3, "isolated")], "paths")
    assert [(s.space, s.version) for s in found] == [("a", 2), ("b", 10)]
    query = query_of(run_of(SPACE, threads=2), "rpi3b", "meter")
    assert (query.space, query.threads, query.emulation, query.context) == ("sample", 2, "meter", "cold")


def test_a_board_with_another_kernel_is_named() -> None:
    lut = measured()
    assert difference(lut, [Device("pi-01", "rpi3b", facts=HostFacts(kernel="6.6"))]) == ""
    lut = replace(lut, provenance=dict(lut.provenance) | {"devices": [{"facts": {"kernel": "6.1"}}]})
    said = difference(lut, [Device("pi-01", "rpi3b", facts=HostFacts(kernel="6.6"))])
    assert said == "kernel of pi-01 is 6.6, and was 6.1"


# ---- completed ----


def test_covered_adds_what_is_not_planned_and_nothing_else() -> None:
    run = run_of(SPACE)
    assert covered(run) is run
    part = replace(run, items=run.items[3:5])
    full = covered(part)
    assert full.items[:2] == part.items
    assert {item.spec for item in full.items} == {item.spec for item in run.items}
    apart = replace(part, dedupe=False)
    assert sum(len(item.cells) for item in covered(apart).items) == sum(len(item.cells) for item in run.items)


def test_holes_are_filled_with_the_entries_of_another_space_and_labelled() -> None:
    source = measured()
    lut = modelled(LARGER)
    networks = [{"choices": [0] * 5, "measured": float(lut.predict([[0] * 5])[0, 1]), "measured_se": None}]
    record = {"energy": {"uncorrected": {"n": 0}, "networks": networks, "noise_floor_mape": 0.01}}
    lut = replace(without(lut, [CellRef(0, 0), CellRef(2, 5)], ("energy",)), validation=record)
    found = completed(lut, source)
    assert found.coverage == {"latency": 1.0, "energy": 1.0}
    assert found.energy_j[2, 5] == found.energy_j[3, 5] == source.energy_j[2, 5]
    assert found.flags[CellRef(2, 5)] == ("reused",)
    assert CellRef(1, 0) not in found.flags
    assert found.latency == lut.latency or found.latency is lut.latency
    assert found.energy is not None
    assert found.energy.correction["method"] == "none"
    reused = found.provenance["reused"]
    assert reused["cells"] == 3
    assert len(reused["operators"]) == 2
    assert reused["measured_again"]["latency"]["ratio"] == pytest.approx(1.0, abs=0.02)
    assert "energy of 3 cells (2 operators) are those of made-up/sample@3, not measured again" in reused_sentence(found)
    errors = found.validation["energy"]["uncorrected"]
    assert errors["n"] == 1
    assert abs(errors["bias"]) < 0.05
    assert found.validation["energy"]["noise_floor_mape"] == 0.01
    assert found.digest != lut.digest
    assert reused_sentence(lut) == ""


def test_nothing_to_reuse_changes_nothing() -> None:
    lut = modelled(LARGER)
    assert completed(lut, measured()) is lut
    foreign = without(lut, [CellRef(4, 0)])
    assert completed(foreign, measured()) is foreign
    assert np.isnan(foreign.latency_s[4, 0])


def test_other_conditions_are_refused_by_name() -> None:
    lut, source = measured(LARGER), measured()
    check_conditions(lut, source)
    warmer = replace(lut, provenance=dict(lut.provenance) | {"conditions": {"kernel": ["6.12"]}})
    with pytest.raises(
        BadInputError, match=r"made-up/sample@3 cannot be reused: kernel is 6\.12 now and was 6\.6 then"
    ):
        check_conditions(warmer, source)
    check_conditions(warmer, source, ("kernel",))
