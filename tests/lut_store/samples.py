"""Spaces, LUTs and runs that the tests of lut_store share."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np

from lut_store.lut import Lut
from lut_store.metric import Metric
from protos.types import (
    BlockSpec,
    Cell,
    CellRef,
    Configuration,
    HostState,
    LatencyRound,
    Layer,
    Measurement,
    MeasurementPlan,
    MeterInfo,
    MeterSamples,
    Network,
    NetworkTimings,
    PathTimings,
    PlanItem,
    PowerTrace,
    PowerWindow,
    RunSpec,
    SearchSpace,
)

OP_NAMES = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
OPS = ((3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (5, 1, 1), (5, 1, 2), (5, 3, 1), (5, 6, 1))


def space_of(
    stages: Sequence[tuple[int, int, int]] = ((1, 16, 1), (3, 24, 2)), *, size: int = 16, name: str = "sample"
) -> SearchSpace:
    """Stages of (blocks, channels, stride) after a stem of 16 channels; FBNet's nine candidates, skip where it fits."""
    channels, layers = 16, []
    for blocks, out, first_stride in stages:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            cells = [
                Cell(BlockSpec("mbconv", channels, out, k, stride, e, g, input_height=size, input_width=size))
                for k, e, g in OPS
            ]
            skip = BlockSpec("skip", out, out, activation="none", input_height=size, input_width=size)
            layers.append(Layer((*cells, Cell(None if block == 0 else skip))))
            channels, size = out, -(-size // stride)
    stem_size = layers[0].cells[0].spec.input_height * 2  # type: ignore[union-attr]
    stem = BlockSpec("conv", 3, 16, 3, 2, activation="none", input_height=stem_size, input_width=stem_size)
    head = (
        BlockSpec("conv", channels, 64, 1, activation="none", input_height=size, input_width=size),
        BlockSpec("pool_linear", 64, 10, activation="none", input_height=size, input_width=size),
    )
    return SearchSpace(name, OP_NAMES, tuple(layers), (stem,), head)


def fbnet() -> SearchSpace:
    """The shape of fbnet-cifar10: 22 layers × 9 candidates."""
    stages = ((1, 16, 1), (4, 24, 2), (4, 32, 2), (4, 64, 1), (4, 112, 1), (4, 184, 1), (1, 352, 1))
    return space_of(stages, size=16, name="fbnet-cifar10")


def items_of(space: SearchSpace) -> tuple[PlanItem, ...]:
    """Unique operators without skips, stem and head included."""
    cells: dict[BlockSpec, list[CellRef]] = {}
    for index, spec in enumerate(space.stem + space.head):
        cells.setdefault(spec, []).append(CellRef(-1, index))
    for layer, row in enumerate(space.layers):
        for op, cell in enumerate(row.cells):
            if cell.spec is not None and cell.spec.kind != "skip":
                cells.setdefault(cell.spec, []).append(CellRef(layer, op))
    return tuple(PlanItem(spec, tuple(places)) for spec, places in cells.items())


def metric_of(space: SearchSpace, *, seed: int = 0, scale: float = 1e-3, factor: float = 1.01) -> Metric:
    items, rng = items_of(space), np.random.default_rng(seed)
    value = scale * rng.uniform(0.5, 3.0, len(items))
    return Metric.from_items(
        space,
        items,
        value,
        value * 0.01,
        rng.integers(20, 60, len(items)),
        value * factor,
        correction={"method": "factor", "factor": factor},
        factor_rel_se=0.002,
        residual_rel_sd=0.005,
    )


def lut_of(space: SearchSpace | None = None, *, seed: int = 0, energy: bool = True, **changes: object) -> Lut:
    space = space or space_of()
    values: dict[str, object] = {
        "configuration": Configuration("rpi3b", space.name),
        "space": space,
        "latency": metric_of(space, seed=seed),
        "energy": metric_of(space, seed=seed + 1, scale=2e-3) if energy else None,
        "flags": {CellRef(0, 1): ("disturbed", "budget"), CellRef(-1, 0): ("throttled",)},
        "validation": {"latency": {"corrected": {"mape": 0.007}, "networks": 30}},
        "provenance": {"method": {"latency": "paths"}, "evidence": [f"m{seed}"], "git": "abc", "run_ids": ["run-1"]},
    }
    return Lut(**{**values, **changes})  # type: ignore[arg-type]


def random_choices(space: SearchSpace, count: int, *, seed: int = 0) -> np.ndarray:
    """(count, L) allowed architectures."""
    rng = np.random.default_rng(seed)
    columns = [rng.choice(space.allowed(layer), count) for layer in range(len(space.layers))]
    return np.stack(columns, axis=1)


def run_of(space: SearchSpace | None = None, *, device: str = "rpi3b", networks: int = 6, seed: int = 0) -> RunSpec:
    space = space or space_of()
    roles = ("fit", "validation", "anchor")
    chosen = random_choices(space, networks, seed=seed).tolist()
    return RunSpec(
        device=device,
        space=space,
        items=items_of(space),
        networks=tuple(Network(roles[index % 3], tuple(choices)) for index, choices in enumerate(chosen)),
        plan=MeasurementPlan(),
        seed=seed,
    )


def round_of(spec: RunSpec, *, paths: int = 4, seed: int = 0) -> LatencyRound:
    """A latency round of random paths and every network, shuffled."""
    rng = np.random.default_rng(seed)
    slots = len(spec.space.stem) + len(spec.space.layers) + len(spec.space.head)
    executions = paths + len(spec.networks)
    return LatencyRound(
        round_index=seed,
        started_ns=10**12,
        ended_ns=2 * 10**12,
        paths=PathTimings(
            calls=1,
            choices=tuple(random_choices(spec.space, paths, seed=seed).ravel().tolist()),
            block_ns=tuple(rng.integers(0, 10**6, paths * slots).tolist()),
            total_ns=tuple(rng.integers(10**6, 10**7, paths).tolist()),
        ),
        networks=NetworkTimings(
            calls=1,
            network=tuple(range(len(spec.networks))),
            total_ns=tuple(rng.integers(10**6, 10**7, len(spec.networks)).tolist()),
        ),
        order=tuple(rng.permutation(executions).tolist()),
        probe_ns=tuple(rng.integers(10**5, 2 * 10**5, executions + 1).tolist()),
    )


def trace_of(*, samples: int = 20, seed: int = 0) -> PowerTrace:
    rng = np.random.default_rng(seed)
    return PowerTrace(
        segment_id="segment",
        chunk=seed,
        windows=(PowerWindow("idle", 0, 10**9), PowerWindow("item", 10**9, 2 * 10**9, index=1, count=40)),
        samples=MeterSamples(
            t_ns=tuple(range(0, samples * 10**8, 10**8)),
            voltage_v=(5.1,) * samples,
            current_a=tuple(rng.uniform(0.2, 0.7, samples).tolist()),
            power_w=tuple(rng.uniform(1.0, 3.5, samples).tolist()),
            fresh=(True,) * samples,
        ),
        meter=MeterInfo("um25c", emulated=True),
    )


def measurement_of(
    task_id: str,
    part: LatencyRound | PowerTrace,
    *,
    fence: int = 1,
    sequence: int = 0,
    name: str = "",
    flags: tuple[str, ...] = (),
) -> Measurement:
    return Measurement(
        id=name or uuid.uuid4().hex,
        task_id=task_id,
        fence=fence,
        sequence=sequence,
        before=HostState(monotonic_ns=1, temp_c=50.5),
        after=HostState(monotonic_ns=2),
        flags=flags,
        latency=part if isinstance(part, LatencyRound) else None,
        power=part if isinstance(part, PowerTrace) else None,
    )
