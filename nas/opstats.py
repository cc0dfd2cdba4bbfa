"""What an operator costs on paper: multiply-accumulates, parameters and bytes. Standard library only.

The numbers describe the modules that nas/blocks.py builds, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from protos.types import SKIP, BlockSpec, Network, RunSpec, SearchSpace

FLOAT_BYTES = 4  # BlockSpec.bits is 32
RUNTIME_BYTES = 190_000_000  # Python with torch loaded (x86-64, torch 2.13)
OBJECTS_SHARE = 1.2  # memory per byte of weights: modules are many Python objects
COUNTER_BYTES = 8  # batch norm counts the batches it has seen in an int64
INDEX_BYTES = 8  # of a channel that a dense layer selects


@dataclass(frozen=True)
class _Convolution:
    """in_size and out_size are positions (height × width) of one image."""

    in_channels: int
    out_channels: int
    kernel: int
    groups: int
    in_size: int
    out_size: int

    @property
    def weights(self) -> int:
        return self.out_channels * (self.in_channels // self.groups) * self.kernel**2


def _convolutions(spec: BlockSpec) -> tuple[_Convolution, ...]:
    """The convolutions of an operator in the order they run; a linear layer is a 1×1 convolution of one position."""
    in_size = spec.input_height * spec.input_width
    out_size = spec.output_height * spec.output_width
    if spec.kind in (SKIP, "pool", "norm"):
        return ()
    if spec.kind == "pool_linear":
        return (_Convolution(spec.in_channels, spec.out_channels, 1, 1, 1, 1),)
    if spec.kind == "dense":
        growth = spec.out_channels - spec.in_channels
        wide = growth * spec.expansion
        return (
            _Convolution(spec.in_channels, wide, 1, spec.groups, in_size, in_size),
            _Convolution(wide, growth, spec.kernel, spec.groups, in_size, in_size),
        )
    if spec.kind == "conv":
        return (_Convolution(spec.in_channels, spec.out_channels, spec.kernel, spec.groups, in_size, out_size),)
    hidden = spec.in_channels * spec.expansion
    return (
        _Convolution(spec.in_channels, hidden, 1, spec.groups, in_size, in_size),
        _Convolution(hidden, hidden, spec.kernel, hidden, in_size, out_size),
        _Convolution(hidden, spec.out_channels, 1, spec.groups, out_size, out_size),
    )


def _norms(spec: BlockSpec) -> tuple[int, ...]:
    """The channels of every batch norm: one after each convolution, but before it in a dense layer."""
    if spec.norm != "batch" or spec.kind in (SKIP, "pool", "pool_linear"):
        return ()
    if spec.kind == "norm":
        return (spec.in_channels,)
    convolutions = _convolutions(spec)
    return tuple(c.in_channels if spec.kind == "dense" else c.out_channels for c in convolutions)


def macs(spec: BlockSpec) -> int:
    """Multiply-accumulates of the convolutions for one call, that is for `spec.batch` images; 0 for a skip."""
    return spec.batch * sum(conv.weights * conv.out_size for conv in _convolutions(spec))


def parameters(spec: BlockSpec) -> int:
    """Trainable numbers: weights, and per output channel of a convolution a bias, or gain and shift of a batch norm."""
    biases = sum(conv.out_channels for conv in _convolutions(spec)) if not _norms(spec) else 0
    return sum(conv.weights for conv in _convolutions(spec)) + biases + 2 * sum(_norms(spec))


def weight_bytes(spec: BlockSpec) -> int:
    """Bytes of the parameters, of what a batch norm has learnt (mean, variance, count) and of a dense layer's index."""
    norms = sum(2 * FLOAT_BYTES * channels + COUNTER_BYTES for channels in _norms(spec))
    index = INDEX_BYTES * spec.in_channels if spec.kind == "dense" else 0
    return FLOAT_BYTES * parameters(spec) + norms + index


def activation_bytes(spec: BlockSpec) -> int:
    """Bytes that one call reads and writes in convolutions, pools, and the copies of a dense layer; no weights."""
    numbers = sum(c.in_channels * c.in_size + c.out_channels * c.out_size for c in _convolutions(spec))
    size = spec.input_height * spec.input_width
    if spec.kind in ("pool", "norm"):
        numbers += spec.in_channels * size + spec.out_channels * spec.output_height * spec.output_width
    if spec.kind == "dense":  # the selected inputs, and input and new maps side by side
        numbers += 2 * (spec.in_channels + spec.out_channels) * size
    if spec.kind == "pool_linear":
        numbers += spec.in_channels * (size + 1)
    return FLOAT_BYTES * spec.batch * numbers


def peak_activation_bytes(spec: BlockSpec) -> int:
    """The most that is alive at once inside one call: a convolution's input and output, and the block's own input."""
    entry = spec.in_channels * spec.input_height * spec.input_width
    inside = (
        conv.in_channels * conv.in_size + conv.out_channels * conv.out_size + (entry if index else 0)
        for index, conv in enumerate(_convolutions(spec))
    )
    if spec.kind == "dense":  # its output holds the input once more
        return FLOAT_BYTES * spec.batch * max(*inside, 2 * spec.out_channels * spec.input_height * spec.input_width)
    leaves = spec.out_channels * spec.output_height * spec.output_width if spec.kind in ("pool", "norm") else 0
    return FLOAT_BYTES * spec.batch * max(inside, default=entry + leaves)


def network_weight_bytes(space: SearchSpace, choices: tuple[int, ...]) -> int:
    """Bytes of the weights of one architecture with stem and head."""
    chosen = (space.spec(layer, op) for layer, op in enumerate(choices))
    return _total((*space.stem, *space.head, *(spec for spec in chosen if spec is not None)))


def space_memory_bytes(space: SearchSpace, networks: Iterable[Network]) -> int:
    """What a worker holds while it measures, without Python and torch themselves.

    That is the weights of every cell of the supernet, of stem and head and of each network, and the largest activations
    of one call.
    """
    cells = [cell.spec for layer in space.layers for cell in layer.cells if cell.spec is not None]
    fixed = [*space.stem, *space.head]
    own = sum(network_weight_bytes(space, network.choices) for network in networks)
    return _total((*cells, *fixed)) + own + max(map(peak_activation_bytes, (*cells, *fixed)))


def run_memory_bytes(run: RunSpec, sweep_bytes: int = 0) -> float:
    """What the worker process needs for a run, Python, torch and the buffer that empties the caches included.

    For fbnet-cifar10 with 55 networks and a sweep of 64 MiB it says 848 MB; 849 MB were measured on x86-64.
    """
    if run.plan.method == "paths":
        modules = space_memory_bytes(run.space, run.networks)
    else:  # hot loops over single operators need no supernet
        modules = sum(weight_bytes(item.spec) for item in run.items)
        modules += sum(network_weight_bytes(run.space, network.choices) for network in run.networks)
    return RUNTIME_BYTES + OBJECTS_SHARE * modules + (run.plan.sweep_bytes or sweep_bytes)


def _total(specs: Iterable[BlockSpec]) -> int:
    return sum(map(weight_bytes, specs))
