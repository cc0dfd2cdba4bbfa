"""Latency evidence as arrays: every execution in the order in which it ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from protos.types import FIXED_LAYER, SKIP, BlockSpec, CellRef, LatencyRound, PathTimings, PlanItem, RunSpec

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

PATH, NETWORK, OPERATOR = 0, 1, 2
BLOCK_EXECUTIONS = 16  # executions that are resampled together: longer than a disturbance usually lasts


@dataclass(frozen=True)
class Executions:
    """N executions in the order of time, of which P are paths; T timed blocks in all.

    A stream is what one device did, task after task: neighbours in time are looked for inside a stream only.
    """

    kind: IntArray  # (N,) PATH, NETWORK or OPERATOR
    index: IntArray  # (N,) row of a path, or index of a network or of an item
    log_total: Array  # (N,) log of the median timed call, in seconds
    log_probe: Array  # (N, 2) log seconds of the probe before and after
    stream: IntArray  # (N,)
    block: IntArray  # (N,) what is resampled together
    path_execution: IntArray  # (P,) the execution of a path
    timed_path: IntArray  # (T,) row of the path that a timed block belongs to
    timed_item: IntArray  # (T,) item of the timed block
    timed_log_s: Array  # (T,) log of its median over the calls, in seconds
    items: int
    networks: int


def slot_items(spec: RunSpec) -> tuple[IntArray, IntArray]:
    """Which item stands for a cell: (layers, candidates) and (stem + head,); -1 where there is none (a skip)."""
    layers, candidates = spec.space.shape
    cells = np.full((layers, candidates), -1, np.int64)
    fixed = np.full(len(spec.space.stem) + len(spec.space.head), -1, np.int64)
    for number, item in enumerate(spec.items):
        for cell in item.cells:
            if cell.layer == FIXED_LAYER:
                fixed[cell.op] = number
            else:
                cells[cell.layer, cell.op] = number
    return cells, fixed


def covered(spec: RunSpec) -> RunSpec:
    """The run with an item for every operator of its space; those that it did not plan come last.

    A path runs through all of them, planned or not, and a network's cost is the sum of all of them.
    """
    planned = {cell for item in spec.items for cell in item.cells}
    ends = [(CellRef(FIXED_LAYER, op), own) for op, own in enumerate((*spec.space.stem, *spec.space.head))]
    cells = [
        (CellRef(layer, op), cell.spec)
        for layer, row in enumerate(spec.space.layers)
        for op, cell in enumerate(row.cells)
        if cell.spec is not None and cell.spec.kind != SKIP
    ]
    more: dict[object, list[CellRef]] = {}
    specs: dict[object, BlockSpec] = {}
    for cell, own in (*ends, *cells):
        if cell not in planned:
            key = own if spec.dedupe else cell
            more.setdefault(key, []).append(cell)
            specs[key] = own
    items = tuple(PlanItem(specs[key], tuple(places)) for key, places in more.items())
    return replace(spec, items=spec.items + items) if items else spec


def skip_cells(spec: RunSpec) -> NDArray[np.bool_]:
    """(layers, candidates): True where the candidate is an allowed skip."""
    return np.array(
        [[c.spec is not None and c.spec.kind == SKIP for c in layer.cells] for layer in spec.space.layers], bool
    )


def flatten(spec: RunSpec, streams: Sequence[Sequence[LatencyRound]]) -> Executions:
    """The rounds of each stream, in order, as one set of arrays."""
    cells, fixed = slot_items(spec)
    parts: dict[str, list[Array | IntArray]] = {
        name: [] for name in ("kind", "index", "total", "probe", "stream", "block")
    }
    timed: dict[str, list[Array | IntArray]] = {name: [] for name in ("path", "item", "log_s", "execution")}
    paths = executions = block = 0
    for stream, rounds in enumerate(streams):
        in_stream = 0
        for round_ in rounds:
            kind, index, total = _round_arrays(round_)
            order = np.asarray(round_.order, np.int64)
            position = np.argsort(order)  # where each execution ran
            if round_.paths is not None:
                count = len(round_.paths.total_ns) // round_.paths.calls
                path, item, log_s = _timed_blocks(spec, round_.paths, cells, fixed)
                timed["path"].append(path + paths)
                timed["item"].append(item)
                timed["log_s"].append(log_s)
                timed["execution"].append(executions + position[:count])
                index[:count] += paths
                paths += count
            n = len(order)
            probe = np.log(np.asarray(round_.probe_ns, float) * 1e-9)
            parts["kind"].append(kind[order])
            parts["index"].append(index[order])
            parts["total"].append(total[order])
            parts["probe"].append(np.stack([probe[:-1], probe[1:]], axis=1))  # (n, 2)
            parts["stream"].append(np.full(n, stream))
            parts["block"].append(block + (in_stream + np.arange(n)) // BLOCK_EXECUTIONS)
            in_stream += n
            executions += n
        block += in_stream // BLOCK_EXECUTIONS + 1

    def joined(values: list[Array | IntArray], dtype: type, shape: tuple[int, ...] = (0,)) -> NDArray[np.generic]:
        return np.concatenate(values).astype(dtype) if values else np.zeros(shape, dtype)

    return Executions(
        kind=joined(parts["kind"], np.int64),  # type: ignore[arg-type]
        index=joined(parts["index"], np.int64),  # type: ignore[arg-type]
        log_total=joined(parts["total"], float),  # type: ignore[arg-type]
        log_probe=joined(parts["probe"], float, (0, 2)),  # type: ignore[arg-type]
        stream=joined(parts["stream"], np.int64),  # type: ignore[arg-type]
        block=joined(parts["block"], np.int64),  # type: ignore[arg-type]
        path_execution=joined(timed["execution"], np.int64),  # type: ignore[arg-type]
        timed_path=joined(timed["path"], np.int64),  # type: ignore[arg-type]
        timed_item=joined(timed["item"], np.int64),  # type: ignore[arg-type]
        timed_log_s=joined(timed["log_s"], float),  # type: ignore[arg-type]
        items=len(spec.items),
        networks=len(spec.networks),
    )


def _round_arrays(round_: LatencyRound) -> tuple[IntArray, IntArray, Array]:
    """kind, index within its kind and log seconds of each execution, before the order is applied."""
    kinds, indices, totals = [], [], []
    if round_.paths is not None:
        count = len(round_.paths.total_ns) // round_.paths.calls
        kinds.append(np.full(count, PATH))
        indices.append(np.arange(count))
        totals.append(_median_log_s(round_.paths.total_ns, count))
    if round_.networks is not None:
        count = len(round_.networks.network)
        kinds.append(np.full(count, NETWORK))
        indices.append(np.asarray(round_.networks.network, np.int64))
        totals.append(_median_log_s(round_.networks.total_ns, count))
    if round_.operators is not None:
        count = len(round_.operators.item)
        kinds.append(np.full(count, OPERATOR))
        indices.append(np.asarray(round_.operators.item, np.int64))
        totals.append(_median_log_s(round_.operators.total_ns, count))
    if not kinds:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    return np.concatenate(kinds), np.concatenate(indices), np.concatenate(totals)


def _median_log_s(total_ns: tuple[int, ...], count: int) -> Array:
    calls = np.asarray(total_ns, float).reshape(count, -1)  # (count, calls)
    result: Array = np.log(np.median(calls, axis=1) * 1e-9)
    return result


def _timed_blocks(
    spec: RunSpec, paths: PathTimings, cells: IntArray, fixed: IntArray
) -> tuple[IntArray, IntArray, Array]:
    """row of the path, item and log seconds of every timed block; removed skips are left out."""
    layers = len(spec.space.layers)
    stem, head = len(spec.space.stem), len(spec.space.head)
    count = len(paths.total_ns) // paths.calls
    choices = np.asarray(paths.choices, np.int64).reshape(count, layers)
    block_ns = np.asarray(paths.block_ns, float).reshape(count, paths.calls, stem + layers + head)
    typical_ns = np.median(block_ns, axis=1)  # (count, slots)
    item = np.empty((count, stem + layers + head), np.int64)
    item[:, :stem] = fixed[:stem]
    item[:, stem : stem + layers] = cells[np.arange(layers), choices]
    item[:, stem + layers :] = fixed[stem:]
    path, slot = np.nonzero((item >= 0) & (typical_ns > 0))
    return path, item[path, slot], np.log(typical_ns[path, slot] * 1e-9)
