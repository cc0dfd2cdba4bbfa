"""Figure 3: how far identical blocks lie apart when each is measured by itself (`--no-dedupe`), on the emulated Pi 3B.

In HANNA's published tables three identical blocks differ 2.08 times in energy and 1.09 times in latency (medians).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.emulated import profile
from benchmarks.runs import keep
from benchmarks.truth import CONTEXT, SPACE, TYPE
from coordinator.plan import make_run
from lut_store.lut import Lut
from nas.space import load_space
from protos.types import BlockSpec

SEEDS = 3


def main() -> None:
    spec = make_run(load_space(SPACE), TYPE, preset="standard", context=CONTEXT, dedupe=False)
    spec = replace(spec, plan=replace(spec.plan, energy_budget_s=2 * spec.plan.energy_budget_s))  # twice the subjects
    found = [spreads(profile(spec, TYPE, seed).lut) for seed in range(SEEDS)]
    record = {name: float(np.median([one[name] for one in found])) for name in found[0]}
    for name, value in record.items():
        print(f"{name}: largest ÷ smallest of identical blocks, median over groups: {value:.3f}")
    keep("spread", record)


def spreads(lut: Lut) -> dict[str, float]:
    """Median over groups of three or more identical cells of largest ÷ smallest."""
    groups: dict[BlockSpec, list[tuple[int, int]]] = {}
    for layer, cells in enumerate(lut.space.layers):
        for op, cell in enumerate(cells.cells):
            if cell.spec is not None and cell.spec.kind != "skip":
                groups.setdefault(cell.spec, []).append((layer, op))
    result = {}
    for name, table in (("latency", lut.latency_s), ("energy", lut.energy_j)):
        ratios = [max(v) / min(v) for own in groups.values() if len(own) > 2 for v in [[table[c] for c in own]]]
        result[name] = float(np.median(ratios))
    return result
