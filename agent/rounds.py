"""What one latency round holds, drawn from its seed: the same for a real worker and for an emulated board."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from protos.types import MeasurementPlan, RunSpec

KINDS = ("path", "network", "operator")  # in the order in which LatencyRound.order counts them
HOT_WARMUP_CALLS, HOT_TIMED_CALLS = 4, 8  # where a plan for `cold` does not say it
OTHER_WARMUP_CALLS, OTHER_TIMED_CALLS = 2, 2  # of a network in the other context, `steady`: a coarse look


@dataclass(frozen=True)
class Content:
    """What a latency round times; `executions` (kind, index) in the order in which they run."""

    paths: tuple[tuple[int, ...], ...]  # choices
    executions: tuple[tuple[str, int], ...]  # index into paths, RunSpec.networks or RunSpec.items
    other_context: tuple[int, ...]  # networks, after everything else

    def positions(self, kind: str) -> list[int]:
        """Where the executions of a kind stand in `executions`, in the order in which they ran."""
        return [position for position, (own, _) in enumerate(self.executions) if own == kind]

    def order(self) -> tuple[int, ...]:
        """LatencyRound.order: every execution's number, counted through paths, then networks, then operators."""
        by_kind = [position for kind in KINDS for position in self.positions(kind)]
        number = {position: n for n, position in enumerate(by_kind)}
        return tuple(number[position] for position in range(len(self.executions)))


def hot_calls(plan: MeasurementPlan) -> tuple[int, int]:
    """(untimed, timed) calls of a hot loop under this plan, which in `cold` paths means one call to everything else."""
    if plan.context == "cold" and plan.method == "paths":
        return HOT_WARMUP_CALLS, HOT_TIMED_CALLS
    return plan.warmup_calls, plan.timed_calls


def compose(run: RunSpec, seed: int, round_index: int) -> Content:
    """Random paths, every layer's candidate equally likely, shuffled with the round's networks and hot loops."""
    plan, space = run.plan, run.space
    rng = random.Random(f"{seed} {round_index}")
    isolated = plan.method == "isolated"
    allowed = [space.allowed(layer) for layer in range(len(space.layers))]
    paths = tuple(tuple(rng.choice(ops) for ops in allowed) for _ in range(0 if isolated else plan.paths_per_round))
    executions = [("path", index) for index in range(len(paths))]
    executions += [("network", index) for index in _networks(run, round_index)]
    if isolated or _is_due(plan.isolated_every, round_index):
        executions += [("operator", index) for index in range(len(run.items))]
    rng.shuffle(executions)
    other: list[int] = []
    if _is_due(plan.other_context_every, round_index):
        other = [index for index, network in enumerate(run.networks) if network.role == "validation"]
        rng.shuffle(other)
    return Content(paths, tuple(executions), tuple(other))


def _networks(run: RunSpec, round_index: int) -> Sequence[int]:
    """All networks, or the plan's share of a shuffled order that goes on from round to round, so that none is left
    out.
    """
    share, count = run.plan.networks_per_round, len(run.networks)
    if not 0 < share < count:
        return range(count)
    turn = list(range(count))
    random.Random(run.seed).shuffle(turn)
    return [turn[(round_index * share + step) % count] for step in range(share)]


def _is_due(every: int, round_index: int) -> bool:
    return every > 0 and round_index % every == 0
