"""What an operator costs on paper: multiply-accumulates, parameters and bytes. Standard library only.

The numbers describe the modules that nas/blocks.py builds, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from protos.types import SKIP, BlockSpec, Network, SearchSpace

FLOAT_BYTES = 4  # BlockSpec.bits is 32
COUNTER_BYTES = 8  # batch norm counts the batches it has seen in an int64


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
    if spec.kind == SKIP:
        return ()
    if spec.kind == "pool_linear":
        return (_Convolution(spec.in_channels, spec.out_channels, 1, 1, 1, 1),)
    if spec.kind == "conv":
        return (_Convolution(spec.in_channels, spec.out_channels, spec.kernel, spec.groups, in_size, out_size),)
    hidden = spec.in_channels * spec.expansion
    return (
        _Convolution(spec.in_channels, hidden, 1, spec.groups, in_size, in_size),
        _Convolution(hidden, hidden, spec.kernel, hidden, in_size, out_size),
        _Convolution(hidden, spec.out_channels, 1, spec.groups, out_size, out_size),
    )


def macs(spec: BlockSpec) -> int:
    """Multiply-accumulates of the convolutions for one call, that is for `spec.batch` images; 0 for a skip."""
    return spec.batch * sum(conv.weights * conv.out_size for conv in _convolutions(spec))


def parameters(spec: BlockSpec) -> int:
    """Trainable numbers: weights, and per output channel of a convolution a bias, or gain and shift of a batch norm."""
    per_channel = 2 if spec.norm == "batch" else 1
    return sum(conv.weights + per_channel * conv.out_channels for conv in _convolutions(spec))


def weight_bytes(spec: BlockSpec) -> int:
    """Bytes of the parameters and of what a batch norm has learnt (mean, variance, count)."""
    total = FLOAT_BYTES * parameters(spec)
    if spec.norm == "batch":
        total += sum(2 * FLOAT_BYTES * conv.out_channels + COUNTER_BYTES for conv in _convolutions(spec))
    return total


def activation_bytes(spec: BlockSpec) -> int:
    """Bytes that the convolutions of one call read and write, without their weights; a pool reads its input as well."""
    numbers = sum(c.in_channels * c.in_size + c.out_channels * c.out_size for c in _convolutions(spec))
    if spec.kind == "pool_linear":
        numbers += spec.in_channels * (spec.input_height * spec.input_width + 1)
    return FLOAT_BYTES * spec.batch * numbers


def peak_activation_bytes(spec: BlockSpec) -> int:
    """The most that is alive at once inside one call: a convolution's input and output, and the block's own input."""
    entry = spec.in_channels * spec.input_height * spec.input_width
    inside = (
        conv.in_channels * conv.in_size + conv.out_channels * conv.out_size + (entry if index else 0)
        for index, conv in enumerate(_convolutions(spec))
    )
    return FLOAT_BYTES * spec.batch * max(inside, default=entry)


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


def _total(specs: Iterable[BlockSpec]) -> int:
    return sum(map(weight_bytes, specs))
