"""What an operator's cost is guessed from: its arithmetic, its bytes and its shape, straight from the BlockSpec.

The quantities describe the modules that are measured (docs/architecture.md); a test compares them with nas.opstats,
which the store may not import.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lut_store.metric import Array
from protos.types import BlockSpec

KINDS = ("mbconv", "conv", "pool_linear")
FLOAT_BYTES = 4  # BlockSpec.bits is 32
QUANTITIES = ("pointwise_macs", "depthwise_macs", "dense_macs", "weight_bytes", "activation_bytes", "calls")
SHAPES = (
    "in_channels",
    "out_channels",
    "hidden",
    "in_positions",
    "out_positions",
    "kernel",
    "stride",
    "groups",
    "residual",
)


def _convolutions(spec: BlockSpec) -> list[tuple[str, int, int, int, int, int]]:
    """(which quantity, input channels of one group, output channels, kernel, positions in, positions out)."""
    taken, given = spec.input_height * spec.input_width, spec.output_height * spec.output_width
    cin, cout, groups = spec.in_channels, spec.out_channels, spec.groups
    if spec.kind == "pool_linear":
        return [("pointwise_macs", cin, cout, 1, 1, 1)]
    if spec.kind == "conv":
        kind = "pointwise_macs" if spec.kernel == 1 else "dense_macs"
        return [(kind, cin // groups, cout, spec.kernel, taken, given)]
    hidden = cin * spec.expansion
    return [
        ("pointwise_macs", cin // groups, hidden, 1, taken, taken),
        ("depthwise_macs", 1, hidden, spec.kernel, taken, given),
        ("pointwise_macs", hidden // groups, cout, 1, given, given),
    ]


def quantities(spec: BlockSpec) -> dict[str, float]:
    """QUANTITIES of one call of an operator that is not a skip. `calls` counts what a framework is called for."""
    found = dict.fromkeys(QUANTITIES, 0.0)
    channels = spec.in_channels  # of what the next convolution takes
    for kind, group_channels, out, kernel, taken, given in _convolutions(spec):
        found[kind] += spec.batch * group_channels * kernel**2 * out * given
        found["weight_bytes"] += FLOAT_BYTES * (
            group_channels * kernel**2 * out + out * (2 if spec.norm == "batch" else 1)
        )
        found["activation_bytes"] += FLOAT_BYTES * spec.batch * (channels * taken + out * given)
        found["calls"] += 1 + (spec.norm == "batch")
        channels = out
    if spec.kind == "pool_linear":
        found["activation_bytes"] += (
            FLOAT_BYTES * spec.batch * spec.in_channels * (spec.input_height * spec.input_width + 1)
        )
        found["calls"] += 1
    elif spec.kind == "mbconv":
        found["calls"] += 2 * (spec.activation != "none") + 2 * (spec.groups > 1) + _residual(spec)
    else:
        found["calls"] += spec.activation != "none"
    return found


def _residual(spec: BlockSpec) -> bool:
    return spec.kind == "mbconv" and spec.stride == 1 and spec.in_channels == spec.out_channels


def quantity_matrix(specs: Sequence[BlockSpec]) -> Array:
    """(n, len(QUANTITIES))"""
    return np.array([list(quantities(spec).values()) for spec in specs], np.float64).reshape(
        len(specs), len(QUANTITIES)
    )


def log_matrix(specs: Sequence[BlockSpec]) -> Array:
    """(n, len(QUANTITIES) + len(SHAPES)) logarithms; what is 0 counts as 1."""
    shapes = [
        (
            spec.in_channels,
            spec.out_channels,
            spec.in_channels * spec.expansion,
            spec.input_height * spec.input_width,
            spec.output_height * spec.output_width,
            spec.kernel,
            spec.stride,
            spec.groups,
            2 if _residual(spec) else 1,
        )
        for spec in specs
    ]
    both = np.hstack([quantity_matrix(specs), np.array(shapes, np.float64).reshape(len(specs), len(SHAPES))])
    return np.asarray(np.log(np.maximum(both, 1.0)), np.float64)


def shape_of(spec: BlockSpec) -> tuple[object, ...]:
    """What operators of one layer have in common."""
    return spec.in_channels, spec.out_channels, spec.stride, spec.input_height, spec.input_width
