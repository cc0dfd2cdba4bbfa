"""Whether a LUT still holds on a board: a short run over its anchor networks and operators, and a verdict. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from coordinator.operator_changes import OPERATOR_CHANGE
from coordinator.plan import make_run
from lut_store.lut import Lut
from protos.errors import BadInputError
from protos.types import Network, RunSpec

BUDGET_S = 60.0  # of device time; a board that is quick to measure ends earlier, at TARGET
TOLERANCE = 0.02  # of the anchors' median: beyond it two runs of a board do not describe the same board
PATHS_PER_ROUND = 16  # with the anchors: 20 executions, so that the intervals of the operators have blocks enough
ROUNDS_PER_TASK = 4
TARGET = 0.03  # relative half-width of every operator, at which the run ends early
OPERATOR_SHARE = 0.05  # of the operators: a few are bad luck or bad neighbours, more are another kernel or library
Z95 = 1.959964


def reference_run(lut: Lut, device: str, *, budget_s: float = BUDGET_S, seed: int = 0) -> RunSpec:
    """A run that measures the LUT's anchor networks, and its operators in random paths, as its configuration says.

    Raises BadInputError for a LUT without latency or anchors: nothing was kept that could be measured again.
    """
    anchors = [tuple(anchor["choices"]) for anchor in lut.validation.get("anchors") or () if anchor.get("latency_s")]
    if lut.latency is None or not anchors:
        raise BadInputError(f"{lut.reference} has no anchor networks to measure again; profile the device to get them")
    own = lut.configuration
    spec = make_run(
        lut.space,
        device,
        preset="quick",
        context=own.context,
        threads=own.threads,
        meter="none",
        energy=False,
        seed=seed,
        purpose="validate",
        lut_digest=lut.digest,
    )
    plan = replace(
        spec.plan,
        latency_budget_s=budget_s,
        target_rel_halfwidth=TARGET,
        rounds_per_task=ROUNDS_PER_TASK,
        paths_per_round=PATHS_PER_ROUND,
        networks_per_round=0,
        isolated_every=0,
        other_context_every=0,
    )
    return replace(spec, plan=plan, networks=tuple(Network("anchor", choices) for choices in anchors))


# ---- verdict --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """holds: the LUT still describes the board. shift and halfwidth (95 %) are of the anchors, relative; `reasons` say
    why it does not hold.
    """

    holds: bool
    shift: float
    halfwidth: float
    tolerance: float
    anchors: int
    operators: Mapping[str, Any] | None
    reasons: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        return asdict(self)


def judge(report: Mapping[str, Any], tolerance: float = TOLERANCE) -> Verdict:
    """The verdict over the report of a validate run (coordinator.validate): drifted is what differs by more than
    `tolerance` and by more than its own uncertainty. Raises BadInputError when no anchor was measured.
    """
    factor = report.get("anchor_factor")
    if factor is None:
        raise BadInputError(f"run {report.get('run')} measured no anchor network, so that nothing can be compared")
    shift, halfwidth = float(factor) - 1, Z95 * float(report["anchor_se"])
    reasons = []
    if abs(shift) > max(tolerance, halfwidth):
        reasons.append(f"the anchor networks take {shift:+.1%} (± {halfwidth:.1%}), more than {tolerance:.1%}")
    operators = report.get("operators")
    if operators and operators["changed"] > max(1, OPERATOR_SHARE * operators["tested"]):
        worst = operators["changes"][0]
        reasons.append(
            f"{operators['changed']} of {operators['tested']} operators changed by more than {OPERATOR_CHANGE:.0%} "
            f"beside that, the most {worst['label']} with {worst['beside_shift']:+.0%}"
        )
    return Verdict(not reasons, shift, halfwidth, tolerance, int(report["anchors"]), operators, tuple(reasons))
