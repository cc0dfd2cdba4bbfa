"""What an operator costs on an emulated board, given what it finds in the cache. Noise-free and at the nominal clock.

An operator is taken apart into kernels. A kernel calculates and moves bytes; the two overlap imperfectly (a p-norm of
both times), and the power of the moment depends on the mix. What is missing in the cache comes from memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.emulator.device_types import DEPTHWISE, ELEMENTWISE, GROUPED, LINEAR, POINTWISE, SPATIAL, DeviceType
from protos.types import BlockSpec

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

FLOAT_BYTES = 4
CODE, WEIGHTS, INPUT, HIDDEN, OUTPUT = range(5)  # what an operator touches; columns of a miss matrix
NOTHING = -1  # as predecessor: a sweep, or nothing at all


@dataclass(frozen=True)
class Kernel:
    """One call into the framework's library. Bytes are what it moves of each range the first time it is touched."""

    kind: int
    compute_s: float  # on one core
    work: float  # multiply-adds or elements, to decide on threads
    moved_bytes: float  # through the cache, packing included
    weights: int = 0
    input: int = 0
    hidden: int = 0
    output: int = 0


@dataclass(frozen=True)
class Operator:
    """The kernels of a block and the ranges that it touches. Code is by class of kernels, 5 × 5 apart from 3 × 3."""

    kernels: tuple[Kernel, ...]
    code: tuple[int, ...]
    weights_bytes: int
    input_bytes: int
    hidden_bytes: int
    output_bytes: int


class _Kernels:
    """Collects the kernels of one block."""

    def __init__(self, board: DeviceType, norm: bool) -> None:
        self._board = board
        self._norm = norm
        self.found: list[Kernel] = []

    def product(self, inputs: int, outputs: int, groups: int, pixels: int, spill: int = 0, **touched: int) -> None:
        """A 1×1 convolution, or with `groups` a grouped one, and the norm after it. spill: bytes to be read again."""
        compute = self._board.compute
        kind = POINTWISE if groups == 1 else GROUPED
        work = inputs // groups * outputs * pixels
        depth, width = inputs // groups, outputs // groups
        shape = pixels / (pixels + compute.pixels_half) * depth / (depth + compute.channels_half)
        padding = -(-width // compute.tile) * compute.tile / width
        self._add(kind, work, work * padding / shape, (inputs + outputs) * pixels, spill, touched)
        self._normalise(outputs * pixels)

    def depthwise(self, channels: int, spec: BlockSpec, **touched: int) -> None:
        compute = self._board.compute
        pixels = spec.output_height * spec.output_width * spec.batch
        work = channels * spec.kernel**2 * pixels
        rate = (compute.kernel5 if spec.kernel > 3 else 1.0) * (compute.stride2 if spec.stride > 1 else 1.0)
        border = (spec.output_width + spec.kernel - 1) / spec.output_width  # rows are padded: narrow maps pay most
        inputs = channels * spec.input_height * spec.input_width * spec.batch
        self._add(DEPTHWISE, work, work * border / rate, inputs + channels * pixels, 0, touched)
        self._normalise(channels * pixels)

    def spatial(self, spec: BlockSpec, **touched: int) -> None:
        pixels = spec.output_height * spec.output_width * spec.batch
        work = spec.in_channels // spec.groups * spec.kernel**2 * spec.out_channels * pixels
        self._add(SPATIAL, work, work, spec.out_channels * pixels, 0, touched)
        self._normalise(spec.out_channels * pixels)

    def linear(self, inputs: int, outputs: int, batch: int, **touched: int) -> None:
        self._add(LINEAR, inputs * outputs * batch, inputs * outputs * batch, inputs + outputs, 0, touched)

    def elementwise(self, elements: int, **touched: int) -> None:
        self._add(ELEMENTWISE, elements, elements, 2 * elements, 0, touched)

    def _normalise(self, elements: int) -> None:
        if self._norm:
            self.elementwise(elements)

    def _add(self, kind: int, work: float, effort: float, floats: int, spill: int, touched: dict[str, int]) -> None:
        board = self._board
        packed = 0.0 if kind in (DEPTHWISE, ELEMENTWISE) else board.memory.packing
        moved = FLOAT_BYTES * floats + touched.get("weights", 0) * (1 + packed) + spill
        self.found.append(Kernel(kind, effort / board.compute.rate[kind], work, moved, **touched))


def operator(board: DeviceType, spec: BlockSpec) -> Operator:
    """Take a block apart. A skip has no kernels and is never run."""
    make = {
        "mbconv": _mbconv,
        "conv": _conv,
        "pool_linear": _pool_linear,
        "dense": _dense,
        "pool": _pool,
        "norm": _pool,
    }[spec.kind]
    kernels, hidden_bytes, code = make(board, spec)
    return Operator(
        kernels=tuple(kernels),
        code=code,
        weights_bytes=sum(kernel.weights for kernel in kernels),
        input_bytes=FLOAT_BYTES * spec.batch * spec.in_channels * spec.input_height * spec.input_width,
        hidden_bytes=hidden_bytes,
        output_bytes=FLOAT_BYTES * spec.batch * spec.out_channels * spec.output_height * spec.output_width,
    )


def _mbconv(board: DeviceType, spec: BlockSpec) -> tuple[list[Kernel], int, tuple[int, ...]]:
    hidden = spec.in_channels * spec.expansion
    pixels_in = spec.batch * spec.input_height * spec.input_width
    pixels_out = spec.batch * spec.output_height * spec.output_width
    wide, narrow = hidden * pixels_in, hidden * pixels_out  # floats before and after the depthwise kernel
    size = FLOAT_BYTES * (wide + narrow)
    # What a hidden map larger than the cache loses between two kernels is moved again.
    spill = int(max(0.0, 1 - board.cache_bytes / size) * size)
    made = _Kernels(board, spec.norm == "batch")
    made.product(
        spec.in_channels,
        hidden,
        spec.groups,
        pixels_in,
        weights=FLOAT_BYTES * (spec.in_channels // spec.groups + 1) * hidden,
        input=FLOAT_BYTES * spec.in_channels * pixels_in,
        hidden=FLOAT_BYTES * wide,
    )
    if spec.activation != "none":
        made.elementwise(wide)
    if spec.groups > 1:
        made.elementwise(wide)
    made.depthwise(hidden, spec, weights=FLOAT_BYTES * (spec.kernel**2 + 1) * hidden, hidden=FLOAT_BYTES * narrow)
    if spec.activation != "none":
        made.elementwise(narrow)
    made.product(
        hidden,
        spec.out_channels,
        spec.groups,
        pixels_out,
        spill=spill,
        weights=FLOAT_BYTES * (hidden // spec.groups + 1) * spec.out_channels,
        output=FLOAT_BYTES * spec.out_channels * pixels_out,
    )
    if spec.groups > 1:
        made.elementwise(spec.out_channels * pixels_out)
    if spec.stride == 1 and spec.in_channels == spec.out_channels:
        made.elementwise(spec.out_channels * pixels_out)
    code = (POINTWISE, *((GROUPED,) if spec.groups > 1 else ()), DEPTHWISE * 100 + spec.kernel)
    return made.found, size, code


def _conv(board: DeviceType, spec: BlockSpec) -> tuple[list[Kernel], int, tuple[int, ...]]:
    pixels = spec.batch * spec.output_height * spec.output_width
    touched = {
        "weights": FLOAT_BYTES * (spec.in_channels // spec.groups * spec.kernel**2 + 1) * spec.out_channels,
        "input": FLOAT_BYTES * spec.batch * spec.in_channels * spec.input_height * spec.input_width,
        "output": FLOAT_BYTES * spec.out_channels * pixels,
    }
    made = _Kernels(board, spec.norm == "batch")
    if spec.kernel == 1 and spec.stride == 1:
        made.product(spec.in_channels, spec.out_channels, spec.groups, pixels, **touched)
    else:
        made.spatial(spec, **touched)
    if spec.activation != "none":
        made.elementwise(spec.out_channels * pixels)
    return made.found, 0, (made.found[0].kind,)


def _pool_linear(board: DeviceType, spec: BlockSpec) -> tuple[list[Kernel], int, tuple[int, ...]]:
    elements = spec.batch * spec.in_channels * spec.input_height * spec.input_width
    made = _Kernels(board, norm=False)
    made.elementwise(elements, input=FLOAT_BYTES * elements)
    made.linear(
        spec.in_channels,
        spec.out_channels,
        spec.batch,
        weights=FLOAT_BYTES * (spec.in_channels + 1) * spec.out_channels,
        output=FLOAT_BYTES * spec.out_channels * spec.batch,
    )
    return made.found, 0, (ELEMENTWISE, LINEAR)


def _dense(board: DeviceType, spec: BlockSpec) -> tuple[list[Kernel], int, tuple[int, ...]]:
    growth = spec.out_channels - spec.in_channels
    wide = growth * spec.expansion
    pixels = spec.batch * spec.input_height * spec.input_width
    taken, hidden = spec.in_channels * pixels, wide * pixels  # floats that are selected, and between the convolutions
    made = _Kernels(board, norm=False)  # norms stand before the convolutions here
    before = (spec.norm == "batch") + (spec.activation != "none")
    made.elementwise(taken, input=FLOAT_BYTES * taken)
    for _ in range(before):
        made.elementwise(taken)
    weights = FLOAT_BYTES * spec.in_channels // spec.groups * wide
    made.product(spec.in_channels, wide, spec.groups, pixels, weights=weights, hidden=FLOAT_BYTES * (taken + hidden))
    for _ in range(before + (spec.groups > 1)):
        made.elementwise(hidden)
    inner = replace(spec, kind="conv", in_channels=wide, out_channels=growth)
    made.spatial(inner, weights=FLOAT_BYTES * wide // spec.groups * spec.kernel**2 * growth)
    made.elementwise(spec.out_channels * pixels, output=FLOAT_BYTES * spec.out_channels * pixels)
    return made.found, FLOAT_BYTES * (taken + hidden), (ELEMENTWISE, GROUPED, SPATIAL)


def _pool(board: DeviceType, spec: BlockSpec) -> tuple[list[Kernel], int, tuple[int, ...]]:
    """A pool, or norm and activation: they read and write every number."""
    read = spec.batch * spec.in_channels * spec.input_height * spec.input_width
    written = spec.batch * spec.out_channels * spec.output_height * spec.output_width
    made = _Kernels(board, norm=False)
    made.elementwise(read, input=FLOAT_BYTES * read, output=FLOAT_BYTES * written)
    if spec.kind == "norm" and spec.activation != "none":
        made.elementwise(written)
    return made.found, 0, (ELEMENTWISE,)


class CostTable:
    """The operators of a space on one board with one number of threads, as arrays: R operators, K kernels at most."""

    def __init__(self, board: DeviceType, specs: Sequence[BlockSpec], threads: int) -> None:
        self.board = board
        self.threads = threads
        self.operators = [operator(board, spec) for spec in specs]
        rows, width = len(self.operators), max(len(o.kernels) for o in self.operators)
        self._compute_s = np.zeros((rows, width))  # with all threads
        self._load = np.zeros((rows, width))  # what the busy cores draw, in units of one
        self._fixed_s = np.zeros((rows, width))  # bytes through the cache
        self._bytes = np.zeros((rows, width, 4))  # from memory when everything misses: weights, input, hidden, output
        self._compute_w = np.zeros((rows, width))
        self._overhead_s = np.zeros(rows)
        for row, op in enumerate(self.operators):
            self._fill(row, op)
        touched = [(o.weights_bytes, o.input_bytes, o.hidden_bytes, o.output_bytes) for o in self.operators]
        self._touched = np.maximum(np.array(touched, float), 1)  # (R, 4)
        hidden = np.array([op.hidden_bytes for op in self.operators], float)
        reach = hidden / (hidden + board.compute.predecessor_half_bytes)
        self._wake = np.append(board.compute.predecessor * reach, 0.0)  # (R + 1,), the last one for NOTHING

    def _fill(self, row: int, op: Operator) -> None:
        compute, memory, power = self.board.compute, self.board.memory, self.board.power
        overhead_s = compute.module_s + len(op.kernels) * compute.dispatch_s
        for column, kernel in enumerate(op.kernels):
            share = compute.parallel[kernel.kind]
            threads = min(max(kernel.work / compute.grain[kernel.kind], 1.0), self.threads)
            cores = 1 / (1 - share + share / threads)
            overhead_s += compute.fork_s * (1 - 1 / threads)
            self._compute_s[row, column] = kernel.compute_s / cores
            self._load[row, column] = cores**power.scaling
            self._fixed_s[row, column] = kernel.moved_bytes / (memory.cache_rate * cores)
            self._bytes[row, column] = (kernel.weights, kernel.input, kernel.hidden, kernel.output)
            self._compute_w[row, column] = power.compute_w[kernel.kind]
        self._overhead_s[row] = overhead_s

    @property
    def busy_w(self) -> float:
        """Above idle, while code runs that neither calculates nor moves much; further threads wait for work."""
        power = self.board.power
        return power.active_w + (self.threads - 1) * power.spin_w

    @property
    def dram_rate(self) -> float:
        """Bytes per second that all threads together get from memory."""
        return self.board.memory.dram_rate * float(self.threads**self.board.memory.dram_scaling)

    def cost(self, rows: IntArray, previous: IntArray, missing: Array, footprint: Array) -> tuple[Array, Array]:
        """(seconds, joules above idle) of n operators: (n,) each.

        rows (n,) and those of the predecessors (n,); what was missing (n, 5); footprint (n,): bytes of the weights of
        the whole chain that each is part of.
        """
        power, memory, overlap = self.board.power, self.board.memory, self.board.compute.overlap
        share = missing[:, WEIGHTS:] / self._touched[rows]  # (n, 4)
        moved = np.einsum("nkf,nf->nk", self._bytes[rows], share)  # (n, K)
        compute_s = self._compute_s[rows]
        memory_s = self._fixed_s[rows] + moved / self.dram_rate
        kernel_s = (compute_s**overlap + memory_s**overlap) ** (1 / overlap)
        divisor = np.where(kernel_s > 0, kernel_s, 1.0)
        busy, waiting = compute_s / divisor, memory_s / divisor
        above_w = (
            self._compute_w[rows] * self._load[rows] * busy + power.dram_w * waiting - power.clash_w * busy * waiting
        )
        stalled_s = missing[:, CODE] / memory.code_rate
        walks = memory.page_walk * footprint / (footprint + memory.page_walk_half_bytes)
        slower = (1 + self._wake[previous]) * (1 + walks)
        seconds = (self._overhead_s[rows] + stalled_s + kernel_s.sum(axis=1)) * slower
        joules = self.busy_w * seconds + ((above_w * kernel_s).sum(axis=1) + power.dram_w * stalled_s) * slower
        return seconds, joules
