"""From a search space to a run: which operators, which networks, how long and how exactly. Pure functions."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from protos.errors import BadInputError, unknown
from protos.types import (
    FIXED_LAYER,
    METER_KINDS,
    SKIP,
    BlockSpec,
    CellRef,
    Device,
    MeasurementPlan,
    Network,
    PlanItem,
    RunSpec,
    SearchSpace,
)

# A block stands on several layers and is seen in some path of every round, a network once a round: half of the time for
# the networks brings their noise, against which everything is judged, down to that of the sums.
PATHS_PER_NETWORK = 1
ISOLATED_EVERY = 4  # rounds between two passes of hot loops: what they would have predicted, for a tenth of the time
OTHER_CONTEXT_EVERY = 8  # rounds between two looks at the other context
STEADY_SHARE = 4  # in `steady` an execution is twelve calls: a round then holds a quarter of the networks, in turn
WARMUP_CALLS, TIMED_CALLS = 4, 8  # calls 5 to 12 of a burst are level; the first ones still load the caches
SHORT_ENERGY_S = 300.0  # below it an energy budget is a look with a fast meter,
FAST_METER_HZ = 10.0
SLOW_METER_ENERGY_S = 600.0  # what a short look costs with a 2 Hz meter: 1.2 % median error per operator
SHORT_NETWORK_SHARE = 0.3  # and gives the networks more, so that all of them are seen once
MAX_SEGMENT_S = 300.0  # of an energy task: long against the meter's lag, short enough to lose to an unplugged board


@dataclass(frozen=True)
class Preset:
    """How much evidence a run collects. Times are device time.

    fit networks are for the correction, validation networks for the stated error, anchors to compare runs of a board.
    meter_samples: fresh values of the meter under each operator; a cell with fewer says so.
    """

    latency_budget_s: float
    energy_budget_s: float
    target_rel_halfwidth: float
    fit: int
    validation: int
    anchors: int
    rounds_per_task: int
    meter_samples: int


PRESETS: dict[str, Preset] = {
    "quick": Preset(
        latency_budget_s=40.0,  # with start-up and build under a minute on a server
        energy_budget_s=60.0,  # every operator about once, in shortened windows: a look, not a result
        target_rel_halfwidth=0.03,  # 10 rounds come near it
        fit=10,  # enough for one factor, not for more
        validation=20,  # the fewest that say something: the error's own spread is 0.35 of 1.55 % (10: 0.51)
        anchors=3,  # rescaling a later process with 3 left 1.0 % of error, with 10 left 0.9 %
        rounds_per_task=4,  # a task must be short against the budget, or the run cannot stop in time
        meter_samples=4,  # a 2 Hz meter gives about 6 in its 10 minutes
    ),
    "standard": Preset(
        latency_budget_s=420.0,  # 8 minutes with everything around it
        energy_budget_s=1500.0,  # 25 minutes at 2 Hz: 0.45 % median error per operator; 40 minutes gave 0.35 %
        target_rel_halfwidth=0.01,  # what a standard LUT promises
        fit=20,  # a ridge by kind needs 20 (10: 0.84 % of error, 20: 0.69 %)
        validation=30,  # Spearman's ρ is known to about 0.01
        anchors=5,  # what the protocol recommends: between 3 and 10 little is left to win
        rounds_per_task=4,
        meter_samples=12,  # a 2 Hz meter gives about 20
    ),
    "thorough": Preset(
        latency_budget_s=3600.0,  # a bound for boards that cannot reach the target, not a plan
        energy_budget_s=3600.0,  # beyond 40 minutes the meter's own errors are what remains
        target_rel_halfwidth=0.005,  # about the noise floor of whole networks (0.5 %)
        fit=40,  # the last 0.1 % of the ridge (20: 0.69 %, 40: 0.58 %)
        validation=60,  # the error's own spread is below a tenth of it
        anchors=5,
        rounds_per_task=4,
        meter_samples=30,  # a 2 Hz meter gives about 48
    ),
}


def preset_named(name: str) -> Preset:
    """Raises BadInputError that names the presets there are."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]


# ---- operators ------------------------------------------------------------------------------------------------------


def plan_items(space: SearchSpace, dedupe: bool = True) -> tuple[PlanItem, ...]:
    """What must be measured, in network order: stem, layers, head, without skips, which cost nothing by definition.

    With `dedupe` equal operators are one item that stands for all their cells; without, every cell is an item.
    """
    if not dedupe:
        return tuple(PlanItem(spec, (cell,)) for spec, cell in _cells(space))
    groups: dict[BlockSpec, list[CellRef]] = {}
    for spec, cell in _cells(space):
        groups.setdefault(spec, []).append(cell)
    return tuple(PlanItem(spec, tuple(cells)) for spec, cells in groups.items())


def _cells(space: SearchSpace) -> Iterable[tuple[BlockSpec, CellRef]]:
    for op, spec in enumerate(space.stem):
        yield spec, CellRef(FIXED_LAYER, op)
    for layer, cells in enumerate(space.layers):
        for op, cell in enumerate(cells.cells):
            if cell.spec is not None and cell.spec.kind != SKIP:
                yield cell.spec, CellRef(layer, op)
    for op, spec in enumerate(space.head, start=len(space.stem)):
        yield spec, CellRef(FIXED_LAYER, op)


# ---- networks -------------------------------------------------------------------------------------------------------


def architectures(space: SearchSpace) -> int:
    """How many architectures there are."""
    return math.prod(len(space.allowed(layer)) for layer in range(len(space.layers)))


def draw_networks(space: SearchSpace, seed: int, fit: int, validation: int, anchors: int) -> tuple[Network, ...]:
    """Random architectures, every candidate of a layer equally likely, all different: anchors, validation, then fit.

    The anchors depend on the space's operators alone, so that every run of a space has the same; fewer are the first of
    more. A space with fewer architectures than asked for gives each role its share, and validation what is left over.
    """
    asked, there_are = fit + validation + anchors, architectures(space)
    if there_are < asked:
        fit, anchors = fit * there_are // asked, anchors * there_are // asked
        validation = there_are - fit - anchors
    drawn: set[tuple[int, ...]] = set()
    roles = (("anchor", anchors, space.digest), ("validation", validation, seed), ("fit", fit, seed))
    networks = []
    for role, count, source in roles:
        rng = random.Random(f"{role} {source}")  # streams of their own: a role's networks do not depend on other counts
        networks += [Network(role, _draw_another(space, rng, drawn)) for _ in range(count)]
    return tuple(networks)


def _draw_another(space: SearchSpace, rng: random.Random, drawn: set[tuple[int, ...]]) -> tuple[int, ...]:
    """An architecture that is not in `drawn`, and is from now on. There must be one."""
    while True:
        allowed = [space.allowed(layer) for layer in range(len(space.layers))]
        # Of Python's generator only random() is promised to give the same numbers in every version.
        choices = tuple(ops[int(rng.random() * len(ops))] for ops in allowed)
        if choices not in drawn:
            drawn.add(choices)
            return choices


# ---- runs -----------------------------------------------------------------------------------------------------------


def preset_plan(preset: str, method: str, context: str, threads: int, energy: bool) -> MeasurementPlan:
    """How to measure under a preset. Raises BadInputError for an unknown name or an impossible number of threads."""
    amount = preset_named(preset)
    bursts = context == "steady" or method == "isolated"
    compare = method == "paths"
    energy_budget_s = amount.energy_budget_s if energy else 0.0
    try:
        return MeasurementPlan(
            method=method,
            context=context,
            threads=threads,
            rounds_per_task=amount.rounds_per_task,
            warmup_calls=WARMUP_CALLS if bursts else 0,
            timed_calls=TIMED_CALLS if bursts else 1,
            target_rel_halfwidth=amount.target_rel_halfwidth,
            latency_budget_s=amount.latency_budget_s,
            energy_budget_s=energy_budget_s,
            segment_s=min(MAX_SEGMENT_S, energy_budget_s or MAX_SEGMENT_S),
            network_share=SHORT_NETWORK_SHARE if energy_budget_s < SHORT_ENERGY_S else MeasurementPlan.network_share,
            isolated_every=ISOLATED_EVERY if compare else 0,
            other_context_every=OTHER_CONTEXT_EVERY if compare else 0,
        )
    except ValueError as error:
        raise BadInputError(str(error)) from error


def make_run(
    space: SearchSpace,
    device: str,
    *,
    preset: str = "standard",
    method: str = "paths",
    context: str = "cold",
    threads: int = 1,
    dedupe: bool = True,
    meter: str = "",
    energy: bool = True,
    seed: int = 0,
    purpose: str = "profile",
    lut_digest: str = "",
) -> RunSpec:
    """A complete request. Raises BadInputError for what cannot be asked.

    For the purpose "validate" all networks but the anchors are for validation, because nothing is fitted, and energy is
    not measured; choose another seed than the profile's, so that the networks are new.
    """
    amount = preset_named(preset)
    check_meter(meter)
    validate = purpose == "validate"
    fit, validation = (0, amount.fit + amount.validation) if validate else (amount.fit, amount.validation)
    networks = draw_networks(space, seed, fit, validation, amount.anchors)
    plan = preset_plan(preset, method, context, threads, energy and meter != "none" and not validate)
    in_a_round = max(1, -(-len(networks) // STEADY_SHARE) if context == "steady" else len(networks))
    plan = replace(
        plan,
        paths_per_round=PATHS_PER_NETWORK * in_a_round,
        networks_per_round=in_a_round if context == "steady" else 0,
    )
    try:
        return RunSpec(
            device=device,
            space=space,
            items=plan_items(space, dedupe),
            networks=networks,
            plan=plan,
            preset=preset,
            dedupe=dedupe,
            meter=meter,
            seed=seed,
            purpose=purpose,
            lut_digest=lut_digest,
        )
    except ValueError as error:
        raise BadInputError(str(error)) from error


def check_meter(meter: str) -> None:
    """Raise BadInputError for a meter kind that no agent knows; "" and "none" are none."""
    kind = meter.partition(":")[0].partition("?")[0]
    if kind not in ("", "none", *METER_KINDS):
        raise unknown("meter kind", kind, METER_KINDS)


def for_meters(run: RunSpec, devices: Sequence[Device]) -> RunSpec:
    """The run with energy time enough for the slowest meter of its devices: a short look is for fast meters."""
    rates = [device.meter.rate_hz for device in devices if device.meter is not None and device.meter.rate_hz > 0]
    plan = run.plan
    if not 0 < plan.energy_budget_s < SHORT_ENERGY_S or not rates or min(rates) >= FAST_METER_HZ:
        return run
    return replace(run, plan=replace(plan, energy_budget_s=SLOW_METER_ENERGY_S, segment_s=MAX_SEGMENT_S))
