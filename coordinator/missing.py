"""What a new run need not measure, because a version of the same configuration holds it already. Pure functions.

A version of the same space is completed by merging evidence: the new run measures what the version lacks, and the build
takes the measurements of both (coordinator.build). Of a version of another space the entries of common operators are
reused (lut_store.completed). Whole networks, and with the method `paths` the latency of every operator, are measured in
every run: it is the energy of single operators that takes the time, and that is spared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coordinator.plan import SHORT_ENERGY_S
from lut_store.lut import Lut
from lut_store.metric import Metric
from protos.errors import BadInputError
from protos.types import FIXED_LAYER, BlockSpec, CellRef, Device, LutQuery, LutSummary, PlanItem, RunSpec

COMPARED = ("model", "kernel", "python_version", "torch_version", "torch_build")  # of HostFacts, where both are known
CHECKED = 3  # of the operators that are reused from another space, measured again: has the board moved?


@dataclass(frozen=True)
class Known:
    """A version and what of a run it spares. `same_space`: evidence is merged; else entries are reused."""

    lut: Lut
    same_space: bool
    missing: tuple[PlanItem, ...]
    spared: tuple[PlanItem, ...]


def known_of(lut: Lut, run: RunSpec, *, energy: bool) -> Known:
    """Which of the run's operators the version lacks: no latency, or, where `energy` is wanted, no energy.

    Raises BadInputError for a version of this space that was imported, so that there is no evidence to add to.
    """
    same = lut.space.digest == run.space.digest
    if same and not lut.provenance.get("runs"):
        raise BadInputError(
            f"{lut.reference} was not measured here, so that there is no evidence to add to: profile without "
            "--only-missing, or under another device type"
        )
    # Random paths time every operator of another space anyway: only its energy can be spared.
    reusable = [lut.energy] if energy else []
    metrics = [lut.latency, *([lut.energy] if energy else [])] if same or run.plan.method == "isolated" else reusable
    held = [bool(metrics) and all(_has(lut, metric, item, same_space=same) for metric in metrics) for item in run.items]
    pairs = list(zip(run.items, held, strict=True))
    return Known(lut, same, tuple(i for i, has in pairs if not has), tuple(i for i, has in pairs if has))


def _has(lut: Lut, metric: Metric | None, item: PlanItem, *, same_space: bool) -> bool:
    if metric is None:
        return False
    cells = item.cells if same_space else _cells_of(lut, item.spec)
    return bool(cells) and all(_number(lut, metric, cell) for cell in cells)


def _number(lut: Lut, metric: Metric, cell: CellRef) -> bool:
    if cell.layer == FIXED_LAYER:
        return lut.fixed_included and not np.isnan(metric.fixed_value[cell.op])
    return not np.isnan(metric.value[cell.layer, cell.op])


def _cells_of(lut: Lut, spec: BlockSpec) -> tuple[CellRef, ...]:
    ends = [CellRef(FIXED_LAYER, i) for i, own in enumerate((*lut.space.stem, *lut.space.head)) if own == spec]
    cells = [
        CellRef(layer, op)
        for layer, row in enumerate(lut.space.layers)
        for op, cell in enumerate(row.cells)
        if cell.spec == spec
    ]
    return (*ends, *cells)


def narrowed(run: RunSpec, known: Known) -> RunSpec:
    """The run with only what is missing, and of what is reused a few operators again; less energy time accordingly."""
    again = () if known.same_space else _spread(known)
    items = tuple(item for item in run.items if item in known.missing or item in again)
    share = len(items) / len(run.items)
    plan = run.plan
    if plan.energy_budget_s:
        of_items = 1 - plan.network_share - plan.idle_share
        budget_s = plan.energy_budget_s * (1 - of_items * (1 - share))
        budget_s = min(plan.energy_budget_s, max(budget_s, SHORT_ENERGY_S))
        plan = replace(plan, energy_budget_s=budget_s, segment_s=min(plan.segment_s, budget_s))
    return replace(run, items=items, plan=plan, lut_digest=known.lut.digest)


def _spread(known: Known) -> tuple[PlanItem, ...]:
    """The cheapest, the dearest and one between of the spared operators."""
    metric = known.lut.energy or known.lut.latency
    assert metric is not None  # it spares something

    def cost(item: PlanItem) -> float:
        cell = _cells_of(known.lut, item.spec)[0]
        return float(metric.fixed_value[cell.op] if cell.layer == FIXED_LAYER else metric.value[cell.layer, cell.op])

    ordered = sorted(known.spared, key=cost)
    places = np.unique(np.linspace(0, len(ordered) - 1, min(CHECKED, len(ordered))).round().astype(int))
    return tuple(ordered[place] for place in places.tolist())


def best_of(candidates: Sequence[Known]) -> Known | None:
    """A version of the same space, else the one that spares most; None when no other spares anything."""
    spares = [known for known in candidates if known.spared or known.same_space]
    return max(spares, key=lambda known: (known.same_space, len(known.spared)), default=None)


# ---- where to look ----


def query_of(run: RunSpec, device_type: str, emulation: str) -> LutQuery:
    """The newest version of the configuration that the run's LUT will have."""
    return LutQuery(
        device_type=device_type,
        space=run.space.name,
        version="latest",
        emulation=emulation,
        context=run.plan.context,
        threads=run.plan.threads,
        batch=run.space.input_shape[0],
        runtime="torch-eager",
        precision="float32",
    )


def newest_by_space(summaries: Sequence[LutSummary], method: str) -> list[LutSummary]:
    """The newest version of every space that was measured by the method."""
    newest: dict[str, LutSummary] = {}
    for summary in sorted(summaries, key=lambda s: s.version):
        if summary.method == method:
            newest[summary.space] = summary
    return [newest[name] for name in sorted(newest)]


def difference(lut: Lut, devices: Sequence[Device]) -> str:
    """In what a connected board is not as those that the version was measured on, in words; empty if none is known."""
    then = [board.get("facts") or {} for board in lut.provenance.get("devices") or ()]
    for device in devices:
        for name in COMPARED:
            now, before = getattr(device.facts, name), {facts.get(name) for facts in then if facts.get(name)}
            if now and before and now not in before:
                return f"{name} of {device.name} is {now}, and was {' and '.join(sorted(map(str, before)))}"
    return ""
