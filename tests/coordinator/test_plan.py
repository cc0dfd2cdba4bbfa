"""Operators, networks and presets of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.plan import (
    PRESETS,
    Preset,
    architectures,
    check_meter,
    draw_networks,
    for_meters,
    make_run,
    plan_items,
    preset_plan,
)
from nas.space import builtin_spaces, load_space
from protos.convert import from_message, to_message
from protos.errors import BadInputError
from protos.types import (
    FIXED_LAYER,
    BlockSpec,
    Cell,
    CellRef,
    Device,
    HostFacts,
    Layer,
    MeterInfo,
    RunSpec,
    SearchSpace,
)

SPACE = load_space("fbnet-cifar10")
PI_3B = Device("pi-01", "rpi3b", facts=HostFacts(memory_bytes=906 << 20))


def small_space(layers: int, candidates: int) -> SearchSpace:
    cells = tuple(
        Cell(BlockSpec("mbconv", 4, 4, kernel=2 * op + 1, input_height=4, input_width=4)) for op in range(candidates)
    )
    return SearchSpace("small", tuple(f"k{2 * op + 1}" for op in range(candidates)), (Layer(cells),) * layers)


# ---- operators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", builtin_spaces())
def test_equal_operators_are_one_item(name: str) -> None:
    space = load_space(name)
    items = plan_items(space)
    assert len(items) == 96 + 3
    assert len({item.spec for item in items}) == len(items)
    cells = [cell for item in items for cell in item.cells]
    assert len(cells) == len(set(cells)) == 176 + 3
    assert all(space.spec(cell.layer, cell.op) == item.spec for item in items for cell in item.cells)
    assert not any(item.spec.kind == "skip" for item in items)


def test_items_stand_in_network_order_with_stem_and_head() -> None:
    items = plan_items(SPACE)
    assert items[0].cells == (CellRef(FIXED_LAYER, 0),)
    assert [item.cells for item in items[-2:]] == [(CellRef(FIXED_LAYER, 1),), (CellRef(FIXED_LAYER, 2),)]
    firsts = [item.cells[0].layer for item in items[1:-2]]
    assert firsts == sorted(firsts)
    shared = next(item for item in items if CellRef(2, 3) in item.cells)
    assert shared.cells == tuple(CellRef(layer, 3) for layer in (2, 3, 4))


def test_without_dedupe_every_cell_is_an_item() -> None:
    items = plan_items(SPACE, dedupe=False)
    assert len(items) == 176 + 3
    assert all(len(item.cells) == 1 for item in items)
    assert {item.spec for item in items} == {item.spec for item in plan_items(SPACE)}


# ---- networks -------------------------------------------------------------------------------------------------------


def test_networks_are_allowed_distinct_and_of_the_roles_asked_for() -> None:
    networks = draw_networks(SPACE, seed=1, fit=20, validation=30, anchors=5)
    assert Counter(network.role for network in networks) == {"fit": 20, "validation": 30, "anchor": 5}
    assert len({network.choices for network in networks}) == 55
    for network in networks:
        SPACE.check_choices(network.choices)


def test_every_run_of_a_space_has_the_same_anchors() -> None:
    def anchors(space: SearchSpace, seed: int, count: int) -> list[tuple[int, ...]]:
        return [n.choices for n in draw_networks(space, seed, 7, seed % 3, count) if n.role == "anchor"]

    assert anchors(SPACE, 1, 5) == anchors(SPACE, 2, 5)
    assert anchors(SPACE, 3, 3) == anchors(SPACE, 4, 5)[:3]
    assert anchors(load_space("fbnet-imagenet"), 1, 5) != anchors(SPACE, 1, 5)
    renamed = SearchSpace("other name", SPACE.op_names, SPACE.layers, SPACE.stem, SPACE.head)
    assert anchors(renamed, 1, 5) == anchors(SPACE, 1, 5)


def test_anchors_are_the_same_in_every_version_of_python_and_of_edgelut() -> None:
    """A change here would make runs of one board incomparable."""
    (anchor,) = draw_networks(SPACE, 0, 0, 0, 1)
    assert anchor.choices == (1, 7, 8, 5, 5, 4, 6, 3, 7, 6, 6, 6, 3, 4, 5, 0, 1, 3, 1, 0, 0, 6)


def test_other_networks_follow_the_seed_and_nothing_else() -> None:
    assert draw_networks(SPACE, 5, 10, 20, 3) == draw_networks(SPACE, 5, 10, 20, 3)
    first = {n.choices for n in draw_networks(SPACE, 5, 10, 20, 0)}
    assert not first & {n.choices for n in draw_networks(SPACE, 6, 10, 20, 0)}
    validation = [n for n in draw_networks(SPACE, 5, 0, 20, 3) if n.role == "validation"]
    assert validation == [n for n in draw_networks(SPACE, 5, 40, 30, 5) if n.role == "validation"][:20]


def test_candidates_are_drawn_uniformly() -> None:
    networks = draw_networks(SPACE, 0, 3000, 0, 0)
    for layer in range(22):
        counts = Counter(network.choices[layer] for network in networks)
        expected = 3000 / len(SPACE.allowed(layer))
        # Five standard deviations of a binomial count: the seed is fixed, so it holds or it does not.
        assert all(abs(counts[op] - expected) < 5 * expected**0.5 for op in SPACE.allowed(layer))


@settings(deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(0, 40), st.integers(0, 40), st.integers(0, 10), st.integers(0, 99)
)
def test_a_small_space_gives_each_role_its_share(
    layers: int, candidates: int, fit: int, validation: int, anchors: int, seed: int
) -> None:
    space = small_space(layers, candidates)
    assert architectures(space) == candidates**layers
    networks = draw_networks(space, seed, fit, validation, anchors)
    assert len({network.choices for network in networks}) == len(networks)
    assert len(networks) == min(fit + validation + anchors, architectures(space))
    counts = Counter(network.role for network in networks)
    assert counts["fit"] <= fit
    assert counts["anchor"] <= anchors
    if architectures(space) >= fit + validation + anchors:
        assert counts["validation"] == validation
    elif validation:
        assert counts["validation"] >= 1


# ---- presets --------------------------------------------------------------------------------------------------------


def test_presets_grow() -> None:
    assert tuple(PRESETS) == ("quick", "standard", "thorough")
    for field in fields(Preset):
        values = [getattr(preset, field.name) for preset in PRESETS.values()]
        assert values == sorted(values, reverse=field.name == "target_rel_halfwidth")


@pytest.mark.parametrize("preset", PRESETS)
def test_calls_follow_method_and_context(preset: str) -> None:
    cold = preset_plan(preset, "paths", "cold", 1, energy=True)
    assert (cold.warmup_calls, cold.timed_calls) == (0, 1)
    for method, context in (("paths", "steady"), ("isolated", "cold"), ("isolated", "steady")):
        plan = preset_plan(preset, method, context, 2, energy=False)
        assert (plan.method, plan.context, plan.threads) == (method, context, 2)
        assert (plan.warmup_calls, plan.timed_calls) == (4, 8)
        assert plan.energy_budget_s == 0


def test_a_plan_has_the_numbers_of_its_preset() -> None:
    plan = preset_plan("standard", "paths", "cold", 1, energy=True)
    assert (plan.latency_budget_s, plan.energy_budget_s, plan.target_rel_halfwidth) == (420, 1500, 0.01)
    assert (plan.rounds_per_task, plan.segment_s) == (4, 300)
    assert preset_plan("quick", "paths", "cold", 1, energy=True).segment_s == 60  # no longer than the whole


def test_unknown_names_say_what_exists() -> None:
    with pytest.raises(
        BadInputError, match=r"unknown preset 'standart' .*quick, standard, thorough.*mean 'standard'\?"
    ):
        preset_plan("standart", "paths", "cold", 1, energy=True)
    with pytest.raises(BadInputError, match="method is 'path'; it must be one of paths, isolated"):
        make_run(SPACE, "rpi3b", method="path")
    with pytest.raises(BadInputError, match="threads is 0"):
        make_run(SPACE, "rpi3b", threads=0)
    with pytest.raises(BadInputError, match="a device type or a device's name"):
        make_run(SPACE, "")
    with pytest.raises(BadInputError, match="purpose is 'look'"):
        make_run(SPACE, "rpi3b", purpose="look")


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_is_complete_and_travels() -> None:
    run = make_run(SPACE, "rpi3b", preset="quick", seed=7, meter="um25c:/dev/rfcomm0")
    assert (run.device, run.preset, run.seed, run.purpose, run.dedupe) == ("rpi3b", "quick", 7, "profile", True)
    assert Counter(network.role for network in run.networks) == {"anchor": 3, "validation": 20, "fit": 10}
    assert run.plan.paths_per_round == 33
    assert run.plan.energy_budget_s == 60
    assert from_message(RunSpec, to_message(run)) == run


def test_no_meter_or_no_energy_is_no_energy() -> None:
    assert make_run(SPACE, "rpi3b", meter="none").plan.energy_budget_s == 0
    assert make_run(SPACE, "rpi3b", energy=False).plan.energy_budget_s == 0


def test_a_run_that_validates_fits_nothing() -> None:
    run = make_run(SPACE, "rpi3b", preset="quick", seed=8, purpose="validate", lut_digest="ab12")
    assert Counter(network.role for network in run.networks) == {"anchor": 3, "validation": 30}
    assert run.lut_digest == "ab12"
    assert run.plan.energy_budget_s == 0
    assert run.plan.paths_per_round == 33  # the ballast is the same


def test_a_space_of_one_architecture_can_be_profiled() -> None:
    run = make_run(small_space(2, 1), "rpi3b")
    assert [network.role for network in run.networks] == ["validation"]
    assert run.plan.paths_per_round == 1


# ---- meters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meter", ["", "none", "emulated", "um25c:/dev/rfcomm0", "csv:/dev/ttyACM0?columns=t,v,i", "auto"]
)
def test_meters_that_agents_know_are_taken(meter: str) -> None:
    check_meter(meter)


def test_a_mistyped_meter_is_refused_before_the_run() -> None:
    with pytest.raises(BadInputError, match="um25c"):
        make_run(load_space("fbnet-cifar10"), "rpi3b", meter="um25:/dev/rfcomm0")


@pytest.mark.parametrize(("rate_hz", "budget_s"), [(2.0, 600.0), (50.0, 60.0), (0.0, 60.0)])
def test_a_slow_meter_gets_more_than_a_short_look(rate_hz: float, budget_s: float) -> None:
    run = make_run(load_space("fbnet-cifar10"), "rpi3b", preset="quick")
    board = Device("pi-01", "rpi3b", meter=MeterInfo("um25c", rate_hz=rate_hz))
    assert for_meters(run, [board]).plan.energy_budget_s == budget_s
    assert for_meters(run, []).plan == run.plan
    standard = make_run(load_space("fbnet-cifar10"), "rpi3b", preset="standard")
    assert for_meters(standard, [board]) == standard
