"""A search space on an emulated board: chains of operators, what they touch, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from agent.emulator.device_cache import Cache
from agent.emulator.device_operators import CODE, HIDDEN, INPUT, NOTHING, OUTPUT, WEIGHTS, Array, CostTable, IntArray
from agent.emulator.device_types import DeviceType, MemoryModel
from protos.types import FIXED_LAYER, SKIP, BlockSpec, CellRef, SearchSpace

SUPERNET = 0  # owner of the weights that random paths and hot loops use; network i of a run owns its own as i + 1
COLUMNS = 5  # of a miss matrix: CODE, WEIGHTS, INPUT, HIDDEN, OUTPUT

_OWNER_SHIFT = 20  # a name of weights is owner, layer, candidate
_FIXED_PLACE = 4095 << 8
_CODE_NAMES = 1 << 10  # below are the names of code


@dataclass(frozen=True)
class Chain:
    """n operators that run one after another, each on the output of the one before."""

    rows: IntArray  # (n,) into the cost table
    weights: IntArray  # (n,) names of the weights
    slots: IntArray  # (n,) position in stem + layers + head
    ranges: list[tuple[int, int]]  # what they touch, in order
    columns: IntArray  # (touches,) 5 × operator + column of the miss matrix
    footprint: Array  # (n,) bytes of the weights of the whole chain

    @cached_property
    def after_nothing(self) -> IntArray:
        """(n,) predecessors of a first call."""
        return np.concatenate(([NOTHING], self.rows[:-1]))

    @cached_property
    def after_itself(self) -> IntArray:
        """(n,) predecessors of a call that follows the same call."""
        return np.roll(self.rows, 1)

    def walk(self, cache: Cache) -> Array:
        """Touch everything; (n, 5) bytes that were missing."""
        missing = np.bincount(self.columns, cache.touch(self.ranges), len(self.rows) * COLUMNS)
        return missing.astype(np.float64).reshape(-1, COLUMNS)

    def walk_swept(self, cache: Cache, memory: MemoryModel) -> Array:
        """The same after a sweep: what it erased beside the cache is learned again, mostly by the first operators."""
        missing = self.walk(cache)
        missing[:, CODE] += memory.history_bytes * 0.5 ** np.arange(1, len(self.rows) + 1)
        return missing


class SpaceModel:
    """The operators of `space` on `board` with `threads` threads."""

    def __init__(self, board: DeviceType, space: SearchSpace, threads: int) -> None:
        self.board = board
        self.space = space
        rows: dict[BlockSpec, int] = {}
        for spec in self._specs(space):
            if spec.kind != SKIP:
                rows.setdefault(spec, len(rows))
        self.table = CostTable(board, tuple(rows), threads)
        self._cells = [
            [-1 if cell.spec is None else rows.get(cell.spec, -1) for cell in layer.cells] for layer in space.layers
        ]
        self._fixed = [rows[spec] for spec in space.stem + space.head]
        self._parts: dict[tuple[int, int, int], tuple[tuple[int, int], ...]] = {}

    @staticmethod
    def _specs(space: SearchSpace) -> list[BlockSpec]:
        cells = [cell.spec for layer in space.layers for cell in layer.cells if cell.spec is not None]
        return [*space.stem, *cells, *space.head]

    def row(self, cell: CellRef) -> int:
        """Of an operator in the cost table; -1 for a skip and for what is not allowed."""
        return self._fixed[cell.op] if cell.layer == FIXED_LAYER else self._cells[cell.layer][cell.op]

    def network(self, choices: Sequence[int], owner: int = SUPERNET) -> Chain:
        """Stem, chosen operators without skips, head."""
        stem = len(self.space.stem)
        refs = [CellRef(FIXED_LAYER, op) for op in range(stem)]
        refs += [CellRef(layer, op) for layer, op in enumerate(choices)]
        refs += [CellRef(FIXED_LAYER, op) for op in range(stem, len(self._fixed))]
        return self._chain(refs, owner)

    def cells(self) -> tuple[Chain, ...]:
        """Every module of the supernet alone."""
        space = self.space
        refs = [CellRef(FIXED_LAYER, op) for op in range(len(self._fixed))]
        refs += [CellRef(layer, op) for layer in range(len(space.layers)) for op in space.allowed(layer)]
        return tuple(self.alone(self.row(ref), weights_name(ref)) for ref in refs if self.row(ref) >= 0)

    def alone(self, row: int, weights: int = SUPERNET) -> Chain:
        """One operator of the cost table, with weights of this name."""
        part = self._touched(row, weights, 0)
        return self._made([row], [weights], [0], list(part), [len(part)])

    def _chain(self, cells: Sequence[CellRef], owner: int) -> Chain:
        rows: list[int] = []
        weights: list[int] = []
        slots: list[int] = []
        counts: list[int] = []  # of ranges
        ranges: list[tuple[int, int]] = []
        for slot, cell in enumerate(cells):
            row = self.row(cell)
            if row < 0:
                continue
            name = weights_name(cell, owner)
            part = self._touched(row, name, len(rows) % 2)
            rows.append(row)
            weights.append(name)
            slots.append(slot)
            ranges += part
            counts.append(len(part))
        return self._made(rows, weights, slots, ranges, counts)

    def _made(
        self, rows: list[int], weights: list[int], slots: list[int], ranges: list[tuple[int, int]], counts: list[int]
    ) -> Chain:
        bytes_ = sum(self.table.operators[row].weights_bytes for row in rows)
        footprint = np.full(len(rows), float(bytes_))
        return Chain(np.array(rows), np.array(weights), np.array(slots), ranges, _columns(counts), footprint)

    def _touched(self, row: int, weights: int, parity: int) -> tuple[tuple[int, int], ...]:
        """Code, weights, input, hidden and output of an operator: (name, bytes).

        The allocator hands out freed buffers of the same size again, so a buffer's name is its size; input and output
        of one operator differ (parity).
        """
        key = (row, weights, parity)
        if key not in self._parts:
            op, memory = self.table.operators[row], self.board.memory
            self._parts[key] = (
                (0, memory.interpreter_bytes),
                *((1 + code, memory.kernel_bytes) for code in op.code),
                (_CODE_NAMES + weights, op.weights_bytes),
                (-4 * op.input_bytes - parity, op.input_bytes),
                (-4 * op.hidden_bytes - 2, op.hidden_bytes),
                (-4 * op.output_bytes - (1 - parity), op.output_bytes),
            )
        return self._parts[key]


def weights_name(cell: CellRef, owner: int = SUPERNET) -> int:
    """Of the weights of a cell's module: every owner and every cell has its own."""
    place = _FIXED_PLACE | cell.op if cell.layer == FIXED_LAYER else cell.layer << 8 | cell.op
    return owner << _OWNER_SHIFT | place


def _columns(counts: Sequence[int]) -> IntArray:
    """Column of every touch, for operators that touch counts[i] ranges: code first, then the other four."""
    columns: list[int] = []
    for index, count in enumerate(counts):
        base = index * COLUMNS
        columns += [base + CODE] * (count - 4)
        columns += (base + WEIGHTS, base + INPUT, base + HIDDEN, base + OUTPUT)
    return np.array(columns)
