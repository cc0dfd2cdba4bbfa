"""Does a run fit the memory of its boards? A worker holds the supernet and every network with weights of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from coordinator.plan import PRESETS
from nas.opstats import network_weight_bytes, run_memory_bytes
from protos.errors import BadInputError
from protos.types import Device, RunSpec

# The rest is for the system, the agent and what convolutions need meanwhile. A board that swaps measures its SD card.
MEMORY_SHARE = 0.7
LEAST = {"fit": PRESETS["quick"].fit, "validation": PRESETS["quick"].validation}  # below them a LUT says too little


def allowed_bytes(devices: Sequence[Device]) -> float | None:
    """What a worker may use on every one of the boards; None when none of them could say how much memory it has."""
    known = [device.facts.memory_bytes for device in devices if device.facts.memory_bytes]
    return MEMORY_SHARE * min(known) if known else None


def for_memory(run: RunSpec, devices: Sequence[Device]) -> RunSpec:
    """The run with as many of its networks as the smallest board holds: the first ones of each role, all anchors.

    Unchanged when everything fits, and when even the fewest that make a LUT would not (`check_memory` says so).
    """
    allowed = allowed_bytes(devices)
    if allowed is None:
        return run
    counts = Counter(network.role for network in run.networks)
    least = {role: min(LEAST.get(role, number), number) for role, number in counts.items()}
    spare = {role: counts[role] - least[role] for role in counts}
    for keep in range(100, -1, -1):
        quota = {role: least[role] + spare[role] * keep // 100 for role in counts}
        fewer = _first(run, quota)
        if run_memory_bytes(fewer) <= allowed:
            return fewer
    return run


def _first(run: RunSpec, quota: dict[str, int]) -> RunSpec:
    if all(sum(n.role == role for n in run.networks) == number for role, number in quota.items()):
        return run
    taken: Counter[str] = Counter()
    networks = []
    for network in run.networks:
        if taken[network.role] < quota[network.role]:
            taken[network.role] += 1
            networks.append(network)
    plan = run.plan
    share = len(networks) / len(run.networks)
    in_a_round = max(1, round(plan.networks_per_round * share)) if plan.networks_per_round else 0
    paths = max(1, round(plan.paths_per_round * share))
    return replace(
        run, networks=tuple(networks), plan=replace(plan, networks_per_round=in_a_round, paths_per_round=paths)
    )


def check_memory(run: RunSpec, device: Device) -> None:
    """Raise BadInputError with the sizes when the run's modules would not fit the device's memory.

    The worker may use MEMORY_SHARE of it. A device that could not say how much it has is not refused.
    """
    memory_bytes = device.facts.memory_bytes
    needed_bytes, allowed = run_memory_bytes(run), allowed_bytes([device])
    if allowed is None or needed_bytes <= allowed:
        return
    networks_bytes = sum(network_weight_bytes(run.space, network.choices) for network in run.networks)
    raise BadInputError(
        f"space {run.space.name} with preset {run.preset} does not fit the memory of {device.name}: the worker would "
        f"need {needed_bytes / 1e6:.0f} MB, {networks_bytes / 1e6:.0f} MB of them for {len(run.networks)} whole "
        f"networks, and may use {allowed / 1e6:.0f} MB ({MEMORY_SHARE:.0%} of {memory_bytes / 1e6:.0f} MB); "
        f"choose a smaller space, input or batch"
    )
