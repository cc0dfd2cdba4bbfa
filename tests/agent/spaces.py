"""A space of three layers and runs of it, small enough to be measured in a blink."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from protos.types import (
    FIXED_LAYER,
    SKIP,
    BlockSpec,
    Cell,
    CellRef,
    Layer,
    Lease,
    MeasurementPlan,
    Network,
    PlanItem,
    RunSpec,
    SearchSpace,
)

T = TypeVar("T")

STEM = BlockSpec("conv", 3, 8, kernel=3, stride=2, input_height=16, input_width=16)
HEAD = (
    BlockSpec("conv", 12, 16, activation="none", input_height=4, input_width=4),
    BlockSpec("pool_linear", 16, 10, activation="none", input_height=4, input_width=4),
)
OP_NAMES = ("k3_e1", "k5_e3", SKIP)


def _block(kind: str, channels: int, out: int, size: int, kernel: int, expansion: int, stride: int) -> BlockSpec:
    return BlockSpec(kind, channels, out, kernel, stride, expansion, input_height=size, input_width=size)


def tiny_space() -> SearchSpace:
    """(3 layers, 3 candidates): the second layer changes the shape and has no skip."""
    layers = []
    for channels, out, size, stride in ((8, 8, 8, 1), (8, 12, 8, 2), (12, 12, 4, 1)):
        blocks = [
            _block("mbconv", channels, out, size, kernel, expansion, stride) for kernel, expansion in ((3, 1), (5, 3))
        ]
        skip = _block(SKIP, channels, out, size, 1, 1, 1) if channels == out and stride == 1 else None
        layers.append(Layer((*map(Cell, blocks), Cell(skip))))
    return SearchSpace("tiny", OP_NAMES, tuple(layers), (STEM,), HEAD)


def tiny_run(networks: int = 4, device: str = "board", **plan: Any) -> RunSpec:
    """Every operator of the tiny space is an item; networks take the roles in turn."""
    space = tiny_space()
    cells: dict[BlockSpec, list[CellRef]] = {}
    for op, spec in enumerate(space.stem + space.head):
        cells.setdefault(spec, []).append(CellRef(FIXED_LAYER, op))
    for layer, row in enumerate(space.layers):
        for op, cell in enumerate(row.cells):
            if cell.spec is not None and cell.spec.kind != SKIP:
                cells.setdefault(cell.spec, []).append(CellRef(layer, op))
    rng = random.Random(1)
    drawn = [tuple(rng.choice(space.allowed(layer)) for layer in range(len(space.layers))) for _ in range(networks)]
    roles = ("fit", "validation", "anchor")
    return RunSpec(
        device=device,
        space=space,
        items=tuple(PlanItem(spec, tuple(refs)) for spec, refs in cells.items()),
        networks=tuple(Network(roles[index % 3], choices) for index, choices in enumerate(drawn)),
        plan=replace(MeasurementPlan(rounds_per_task=2, paths_per_round=5, sweep_bytes=1 << 20), **plan),
        meter="none",
    )


def lease_of(run: RunSpec, kind: str = "latency", task_id: str = "task-1", fence: int = 1, **changes: Any) -> Lease:
    return replace(Lease(task_id, fence, "run-1", kind, seed=7, first_round=0, run=run), **changes)


def wait(work: Coroutine[Any, Any, T], limit_s: float = 120.0) -> T:
    """Run to the end; a deadline that only a hang can meet."""
    return asyncio.run(asyncio.wait_for(work, limit_s))
