"""What operators cost on paper, against the modules themselves and against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.blocks import build_block, build_cells, build_fixed, build_network
from nas.opstats import (
    activation_bytes,
    macs,
    network_weight_bytes,
    parameters,
    peak_activation_bytes,
    space_memory_bytes,
    weight_bytes,
)
from nas.space import load_space
from protos.types import BlockSpec, Network

SPECS = [
    BlockSpec("mbconv", 16, 24, kernel=3, stride=2, expansion=6, input_height=16, input_width=16),
    BlockSpec("mbconv", 24, 24, kernel=5, expansion=3, groups=2, input_height=7, input_width=5, batch=3),
    BlockSpec("mbconv", 32, 16, kernel=3, stride=2, norm="batch", input_height=9, input_width=9, batch=2),
    BlockSpec("conv", 3, 16, kernel=3, stride=2, activation="none", input_height=32, input_width=32),
    BlockSpec("conv", 8, 16, kernel=5, groups=4, norm="batch", input_height=6, input_width=6),
    BlockSpec("pool_linear", 352, 10, activation="none", input_height=4, input_width=4, batch=2),
]


def held_bytes(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def built(spec: BlockSpec) -> nn.Module:
    module = build_block(spec)
    assert module is not None
    return module


@pytest.mark.parametrize("spec", SPECS, ids=BlockSpec.label)
def test_parameters_and_bytes_are_those_of_the_module(spec: BlockSpec) -> None:
    module = built(spec)
    assert parameters(spec) == sum(p.numel() for p in module.parameters())
    assert weight_bytes(spec) == held_bytes(module)


@pytest.mark.parametrize("spec", SPECS, ids=BlockSpec.label)
def test_macs_and_activations_are_those_of_the_convolutions_that_run(spec: BlockSpec) -> None:
    """Counted by hooks on the convolutions and linear layers of a real call."""
    counted_macs = counted_bytes = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal counted_macs, counted_bytes
        assert isinstance(module, nn.Conv2d | nn.Linear)
        counted_macs += output.numel() * module.weight[0].numel()
        counted_bytes += inputs[0].nbytes + output.nbytes

    module = built(spec)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(count)
    x = torch.randn(spec.batch, spec.in_channels, spec.input_height, spec.input_width)
    module(x)
    if spec.kind == "pool_linear":
        counted_bytes += x.nbytes + spec.batch * spec.in_channels * 4  # the pool reads all and writes one per channel
    assert macs(spec) == counted_macs
    assert activation_bytes(spec) == counted_bytes


def test_numbers_by_hand() -> None:
    spec = SPECS[0]  # hidden 96, 16×16 → 8×8
    assert macs(spec) == 16 * 96 * 256 + 96 * 9 * 64 + 96 * 24 * 64
    assert parameters(spec) == (16 + 1) * 96 + (9 + 1) * 96 + (96 + 1) * 24
    assert activation_bytes(spec) == 4 * ((16 + 96) * 256 + 96 * (256 + 64) + (96 + 24) * 64)
    assert peak_activation_bytes(spec) == 4 * (96 * (256 + 64) + 16 * 256)


def test_a_skip_costs_nothing() -> None:
    skip = BlockSpec("skip", 24, 24, activation="none", input_height=8, input_width=8)
    assert (macs(skip), parameters(skip), weight_bytes(skip), activation_bytes(skip)) == (0, 0, 0, 0)
    assert peak_activation_bytes(skip) == 4 * 24 * 64  # what flows through is still there


def test_memory_of_a_space_is_what_its_modules_hold_and_the_largest_call() -> None:
    space = load_space("fbnet-cifar10")
    networks = (Network("fit", (3,) * 22), Network("validation", (7, 7, 8, *(5,) * 19)))
    stem, head = build_fixed(space)
    modules = [*stem, *head, *(module for layer in build_cells(space) for module in layer if module is not None)]
    supernet = sum(map(held_bytes, modules))
    assert supernet == pytest.approx(44.5e6, rel=0.01)
    children = [build_network(space, network.choices) for network in networks]
    for network, child in zip(networks, children, strict=True):
        assert network_weight_bytes(space, network.choices) == held_bytes(child)
    largest = max(peak_activation_bytes(c.spec) for layer in space.layers for c in layer.cells if c.spec)
    assert space_memory_bytes(space, networks) == supernet + sum(map(held_bytes, children)) + largest
