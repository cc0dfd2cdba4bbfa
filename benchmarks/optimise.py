"""Exact search over a full space: how long, how it compares with HiGHS, and whether the two agree.

Budgets are drawn at random between the latency-energy front of the table and its dearest network, scores at random as
normal numbers. Times are CPU time of the solver alone (both run on one core, so that it is the wall time of an idle
machine), ours and HiGHS in turn on the same problem.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from agent.emulator.device_space import SpaceModel
from agent.emulator.device_truth import true_operators
from agent.emulator.device_types import RPI3B
from lut_store.formats import hanna
from lut_store.metric import Array
from nas.budgets import Budgets, Costs, Solution
from nas.exact import minimise
from nas.milp import milp
from nas.pareto import ParetoFront, pareto
from nas.space import load_space

SPACE = "fbnet-cifar10"
PROBLEMS, LONG_PROBLEMS = 40, 400
FRONTS = 20
PATHS = 600  # of the emulated table: what matters here is that it looks like one
AGREE = 1e-6  # relative: HiGHS meets its budgets to about that
Problem = tuple[Array, Budgets]


def main(full: bool = False) -> None:
    for name, costs in tables().items():
        print(f"\n{SPACE}, {name}: {search_size(costs):.3g} architectures")
        front = pareto(costs)
        taken = [_timed(partial(pareto, costs))[0] for _ in range(FRONTS)]
        print(f"  the exact front, {len(front.latency_s)} points: {_spread(taken)} ms")
        print(f"  {'problem':34} {'ours, ms':>22} {'HiGHS, ms':>22} {'ratio':>6}  agree")
        for kind, problems in drawn(costs, front, LONG_PROBLEMS if full else PROBLEMS).items():
            _compare(kind, costs, problems)


def tables() -> dict[str, Costs]:
    """An emulated Pi 3B, and HANNA's published tables where EDGELUT_HANNA names their folder."""
    space = load_space(SPACE)
    truth = true_operators(SpaceModel(RPI3B, space, threads=1), "cold", paths=PATHS)
    allowed = ~np.isnan(truth.latency_s)
    emulated = Costs(
        np.nan_to_num(truth.latency_s),
        np.nan_to_num(truth.energy_j),
        allowed,
        float(truth.fixed_latency_s.sum()),
        float(truth.fixed_energy_j.sum()),
    )
    found = {"emulated Pi 3B": emulated}
    folder = Path(os.environ.get("EDGELUT_HANNA", ""))
    if (folder / "rpi_speed.txt").is_file():
        lut = hanna.load_pair(space, "rpi3b-hanna", folder / "rpi_speed.txt", folder / "new_rpi_energy.txt")
        found["HANNA's tables"] = Costs.from_lut(lut)
    return found


def search_size(costs: Costs) -> float:
    return float(np.prod(costs.allowed.sum(axis=1).astype(float)))


def drawn(costs: Costs, front: ParetoFront, count: int, seed: int = 0) -> dict[str, list[Problem]]:
    """Random problems of each kind; budgets that some architecture of the front meets, and up to twice as much."""
    rng = np.random.default_rng(seed)
    kinds: dict[str, list[Problem]] = {"least energy within a latency": [], "best score, one budget": []}
    kinds["best score, two budgets"] = []
    kinds["least weighted cost, two budgets"] = []
    for _ in range(count):
        latency_s, energy_j = _budgets(costs, front, rng)
        score = -rng.normal(size=costs.latency_s.shape)
        weighted = rng.uniform() * costs.latency_s + rng.uniform() * costs.energy_j
        kinds["least energy within a latency"].append((costs.energy_j, Budgets(max_latency_s=latency_s)))
        kinds["best score, one budget"].append((score, Budgets(max_latency_s=latency_s)))
        kinds["best score, two budgets"].append((score, Budgets(latency_s, energy_j)))
        kinds["least weighted cost, two budgets"].append((weighted, Budgets(latency_s, energy_j)))
    return kinds


def _budgets(costs: Costs, front: ParetoFront, rng: np.random.Generator) -> tuple[float, float]:
    """Between a point of the front and the dearest architecture, in both costs, nearer to the front."""
    point = rng.integers(len(front.latency_s))
    budgets = []
    for cost, values, fixed in (
        (front.latency_s[point], costs.latency_s, costs.fixed_latency_s),
        (front.energy_j[point], costs.energy_j, costs.fixed_energy_j),
    ):
        most = float(np.where(costs.allowed, values, -np.inf).max(axis=1).sum()) + fixed
        budgets.append(float(cost) + rng.uniform() ** 2 * (most - float(cost)))
    return budgets[0], budgets[1]


def _compare(kind: str, costs: Costs, problems: list[Problem]) -> None:
    ours, theirs, agree = [], [], 0
    for objective, budgets in problems:
        for solver, taken in ((minimise, ours), (milp, theirs)):
            seconds, found = _timed(partial(solver, objective, costs, budgets))
            taken.append(seconds)
            if solver is minimise:
                mine = found
        scale = max(abs(mine.objective), abs(found.objective))
        agree += mine.objective <= found.objective + AGREE * scale
    ratio = np.median(theirs) / np.median(ours)
    print(f"  {kind:34} {_spread(ours):>22} {_spread(theirs):>22} {ratio:>5.1f}×  {agree} of {len(problems)}")


def _timed(solve: Callable[[], Solution | ParetoFront]) -> tuple[float, Solution]:
    begun = time.process_time()
    found = solve()
    return time.process_time() - begun, found  # type: ignore[return-value]


def _spread(seconds: list[float]) -> str:
    """Median and 95th percentile."""
    middle, high = np.quantile(np.array(seconds) * 1e3, [0.5, 0.95])
    return f"{middle:.1f} (p95 {high:.1f})"


if __name__ == "__main__":
    main()
